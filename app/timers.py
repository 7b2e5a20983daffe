"""One thing that is to happen later, or not at all. Knows nothing of what it is."""

import asyncio
from collections.abc import Callable


class Timer:
    """Started once at a time: a second start does not put it off."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float, call: Callable[[], object]) -> None:
        """Call it in so many seconds, unless that is settled already."""
        if self._handle is None:
            self._handle = self._loop.call_later(seconds, self._fire, call)

    def stop(self) -> None:
        """Call nothing."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self, call: Callable[[], object]) -> None:
        self._handle = None
        call()
