"""What is known of a request on its way; the middleware writes it, routes read it."""

from collections.abc import Callable, MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from app.api.middleware import Matched
from app.api.middleware.keys import Identity
from app.telemetry.spans import Stages

_KEY: Final = "openvocab"


def hold_nothing(_count: int) -> None:
    """Of a request that has ended, or not begun, nothing is held."""


@dataclass(slots=True)
class RequestState:
    """One request. `deadline` is in the event loop's time, `received` counts bytes of the body.

    `hold` counts so many more bytes as held until the request ends, and raises Overloaded
    or TooLarge;
    `closing` is closed when the request has ended, however it ends.
    """

    request_id: str
    stages: Stages
    route: Matched
    caller: Identity | None = None
    deadline: float = 0.0
    hold: Callable[[int], None] = hold_nothing
    closing: ExitStack = field(default_factory=ExitStack)
    received: int = 0
    model: str | None = None  # the one that the request named, if it did
    problem: str | None = None  # the code of what was answered in place of a result
    duplex: bool = False  # the response begins while the body still arrives

    def put_in(self, scope: MutableMapping[str, Any]) -> None:
        """Make this the state of the request of an ASGI scope."""
        scope[_KEY] = self


def state_of(scope: MutableMapping[str, Any]) -> RequestState:
    """The state of the request of an ASGI scope."""
    state: RequestState = scope[_KEY]
    return state
