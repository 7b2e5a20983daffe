"""Ends a process whose work hangs, so that its supervisor starts a new one.

Knows nothing of the work.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from app.server.exit_status import HUNG

log = logging.getLogger("openvocab.watchdog")


LOOKS: Final = 10


class Watchdog:
    """Checks from a thread of its own how long each worker has been busy with one item.

    `work` names each worker and gives the `time.monotonic()` at which it began what it is doing,
    None while it waits. One that is at the same piece for longer than `limit` seconds will not come
    back: neither a thread nor a device can be interrupted, so the process ends with status 70.
    """

    def __init__(
        self,
        limit: float,
        work: Mapping[str, Callable[[], float | None]],
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._limit = limit
        self._work = work
        self._end = end
        # what each was at when it was looked at, and how often it was still at it
        self._seen: dict[str, tuple[float | None, int]] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop checking."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(self._limit / LOOKS):
            hung = self._look()
            if hung is not None:
                name, seconds = hung
                log.critical(
                    "%s has been hanging for %.0f s (hang_timeout is %g); the process exits",
                    name, seconds, self._limit,
                )  # fmt: skip
                for handler in logging.getLogger().handlers:
                    handler.flush()
                self._end(HUNG)
                return

    def _look(self) -> tuple[str, float] | None:
        """The worker that hangs, and for how many seconds.

        Looks are counted beside the clock: a process that was stopped for a while, with all its
        threads, does not hang.
        """
        for name, since in self._work.items():
            begun = since()
            before, looks = self._seen.get(name, (None, 0))
            looks = looks + 1 if begun is not None and begun == before else 0
            self._seen[name] = begun, looks
            spent = 0.0 if begun is None else time.monotonic() - begun
            if looks >= LOOKS and spent > self._limit:
                return name, spent
        return None


class Heartbeat:
    """Tells a Watchdog since when an event loop has been blocked."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asked: float | None = None

    def busy_since(self) -> float | None:
        """When the loop was last pinged without a reply; pings it if no ping is pending."""
        asked_at = self._asked
        if asked_at is None:
            asked_at = self._asked = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(self._beat)
            except RuntimeError:  # it is closed
                self._asked = asked_at = None
        return asked_at

    def _beat(self) -> None:
        self._asked = None
