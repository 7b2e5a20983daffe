"""The span that is current, and those below it. Knows nothing of requests or of who makes spans.

Nothing of OpenTelemetry is imported here: where no traces are made no span is ever current, and
all of this returns at once.
"""

import asyncio
import contextlib
import importlib.util
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Literal

from app.errors import Problem

if TYPE_CHECKING:
    from app.telemetry.otel import Place, Tracing


log = logging.getLogger("openvocab.tracing")

Traced = contextlib.AbstractContextManager["Place | None"]

UNTRACED: Final = contextlib.nullcontext()

_current: "ContextVar[Place | None]" = ContextVar("openvocab_span", default=None)


def current() -> "Place | None":
    """The span to be below of; None where nothing is to be traced."""
    place = _current.get()
    return place if place is not None and place.recorded else None


def span(name: str, **attributes: str | int) -> Traced:
    """A span below the current one while this is open."""
    place = current()
    return UNTRACED if place is None else _open(place.below(name, _ours(attributes)))


def joint(name: str, callers: "Sequence[Place | None]", **attributes: str | int) -> Traced:
    """One span for the work that several callers share: below the first, linked with all."""
    places = [place for place in callers if place is not None]
    return _open(places[0].below(name, _ours(attributes), places)) if places else UNTRACED


def passed(
    name: str, seconds: float, ago: float, shared: "Place | None" = None, **attributes: str | int
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


def _ours(attributes: dict[str, str | int]) -> dict[str, str | int]:
    return {f"openvocab.{name}": value for name, value in attributes.items()}


class Stages:
    """Seconds by stage, in the order in which the stages first ended; each is a span of a trace."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time spent inside, also when it ends with an error."""
        begun = time.perf_counter()
        try:
            with span(name):
                yield
        finally:
            self.add(name, time.perf_counter() - begun)

    def add(self, name: str, seconds: float) -> None:
        """Count time that was measured elsewhere."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def ran(self, waited: float, ran: float, size: int, shared: "Place | None") -> None:
        """Count a turn in a batch that has just ended: of `size`, in the span `shared`."""
        self.add("queue", waited)
        self.add("encode", ran)
        passed("queue", waited, ran)
        passed("encode", ran, 0.0, shared, batch_size=size)

    def server_timing(self) -> str:
        """The value of a Server-Timing header, in milliseconds (W3C Server Timing, section 3)."""
        return ", ".join(f"{name};dur={1000 * value:.2f}" for name, value in self.seconds.items())


Mode = Literal["auto", "on", "off"]

PROTOCOL: Final = "http/protobuf"


def hindrance(mode: Mode) -> str | None:
    """Why requested traces cannot be made; None if they can, or if none are requested."""
    if not _is_requested(mode):
        return None
    if not _installed():
        return "traces need pip install 'openvocab[otel]'"
    protocol = _first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in ("", PROTOCOL):
        return (
            f"traces are exported by {PROTOCOL} only, OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}"
        )
    return None


class CannotTrace(ValueError):
    """Why traces cannot be made although they must; one line."""


def start(mode: Mode, version: str) -> "Tracing | None":
    """The tracer, if tracing is requested and available.

    Raises CannotTrace if it is `on` and its variables are invalid; otherwise the log says so.
    """
    if not _is_requested(mode) or hindrance(mode) is not None:
        return None
    # half a second, and an extra: only who wants traces pays
    from app.telemetry.otel import Tracing

    try:
        return Tracing.to_collector(version)
    except ValueError as error:
        reason = f"a variable OTEL_… is invalid: {error}"
    if mode == "on":
        raise CannotTrace(reason)
    log.warning("no traces: %s", reason)
    return None


def _is_requested(mode: Mode) -> bool:
    if mode == "off" or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if mode == "on":
        return True
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "otlp")
    endpoint = _first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return bool(endpoint) and exporter == "otlp"


def _installed() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # not even what it would be a part of
        return False


def _first(*names: str) -> str:
    return next(filter(None, map(os.environ.get, names)), "")
