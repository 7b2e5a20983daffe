"""How many requests may be in service, and how many bytes of bodies. Knows nothing of HTTP."""

import math
import time
from collections.abc import Callable
from typing import Final

from app.errors import Overloaded

LONGEST_RETRY: Final = 60

# share of the newest interval in the mean time between two answers
NEWEST: Final = 0.05


class Admission:
    """Counts what was accepted; what is past the limits is refused at once, with when to come back.

    A request is in service from the last byte of its body to its answer, so that slow senders take
    no place; their bytes count against `most_bytes` as they arrive.
    """

    def __init__(
        self, most: int, most_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._clock = clock
        self._last: float | None = None  # when the last answer was given, if others waited then
        self._each = 0.0  # mean seconds between two answers of a busy server
        self.in_service = 0
        self.bytes = 0

    def check(self) -> None:
        """Raises Overloaded if one more would be too many."""
        if self.in_service >= self._most:
            raise Overloaded(
                f"{self.in_service} requests wait already, the limit by max_queue; come back later",
                limit=self._most,
                value=self.in_service,
                retry_after=self.retry_after(),
            )

    def enter(self) -> None:
        """One more in service. Raises Overloaded."""
        self.check()
        if not self.in_service:
            self._last = None
        self.in_service += 1

    def leave(self) -> None:
        """One less, answered or dropped."""
        now = self._clock()
        if self._last is not None:
            interval = now - self._last
            self._each += NEWEST * (interval - self._each) if self._each else interval
        self.in_service -= 1
        self._last = now if self.in_service else None

    def take_bytes(self, count: int) -> None:
        """So many more bytes of bodies are held. Raises Overloaded, and then they are not."""
        if self.bytes + count > self._most_bytes:
            raise Overloaded(
                f"bodies of {self.bytes} bytes are held already, the limit of max_pending_bytes",
                limit=self._most_bytes,
                value=self.bytes + count,
                retry_after=self.retry_after(),
            )
        self.bytes += count

    def free_bytes(self, count: int) -> None:
        """So many are let go."""
        self.bytes -= count

    def retry_after(self) -> int:
        """Seconds until what is in service now will have been answered, at the present pace."""
        return max(1, min(LONGEST_RETRY, math.ceil(self.in_service * self._each)))
