"""The span that is current, and those below it. Knows nothing of requests or of who makes spans.

Nothing of OpenTelemetry is imported here: where no traces are made no span is ever current, and
all of this returns at once.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from app.errors import Problem

if TYPE_CHECKING:
    from app.tracing import Place

Traced = contextlib.AbstractContextManager["Place | None"]

UNTRACED: Final = contextlib.nullcontext()

_current: "ContextVar[Place | None]" = ContextVar("openvocab_span", default=None)


def current() -> "Place | None":
    """The span to be below of; None where nothing is to be traced."""
    place = _current.get()
    return place if place is not None and place.recorded else None


def span(name: str, **attributes: int) -> Traced:
    """A span below the current one while this is open."""
    place = current()
    return UNTRACED if place is None else _open(place.below(name, _ours(attributes)))


def joint(name: str, callers: "Sequence[Place | None]", **attributes: int) -> Traced:
    """One span for the work that several callers share: below the first, linked with all."""
    places = [place for place in callers if place is not None]
    return _open(places[0].below(name, _ours(attributes), places)) if places else UNTRACED


def passed(
    name: str, seconds: float, ago: float, shared: "Place | None" = None, **attributes: int
) -> None:
    """A span that lasted `seconds` and ended `ago` seconds before now.

    `shared` is the span of the work that was done in it, for others too.
    """
    place = current()
    if place is None:
        return
    end = time.time_ns() - round(ago * 1e9)
    linked = () if shared is None else (shared,)
    place.below(name, _ours(attributes), linked, end - round(seconds * 1e9)).end(at=end)


@contextlib.contextmanager
def at(place: "Place | None") -> "Iterator[Place | None]":
    """Go on at another place, or at none: what is done is not traced."""
    token = _current.set(place)
    try:
        yield place
    finally:
        _current.reset(token)


@contextlib.contextmanager
def _open(place: "Place") -> "Iterator[Place | None]":
    try:
        with at(place):
            yield place
    except asyncio.CancelledError:  # nobody waits for it any more: no fault
        place.span.set_attribute("openvocab.cancelled", True)
        place.end()
        raise
    except BaseException as error:
        place.end(error.code if isinstance(error, Problem) else type(error).__name__)
        raise
    place.end()


def _ours(attributes: dict[str, int]) -> dict[str, int]:
    return {f"openvocab.{name}": value for name, value in attributes.items()}
