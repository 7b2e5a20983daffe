"""Circuit breakers: a store that fails is left alone for a while. Does not know which."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from app.stores.protocols import StoreAway, StoreDamaged, StoreError, StoreRefused

log = logging.getLogger("openvocab.stores")

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 10.0

# what an error says of the store: True it failed, False it answered, None nothing
Verdict = Callable[[StoreAway], bool | None]


def gone(error: StoreAway) -> bool:
    """Whether the store does not answer: one that accepts no writes does, or has a damaged key."""
    return not isinstance(error, StoreRefused | StoreDamaged)


def refuses(error: StoreAway) -> bool | None:
    """Whether the store accepts no writes; unknown while it is unavailable."""
    return True if isinstance(error, StoreRefused) else None


def fails(error: StoreAway) -> bool:
    """Any error is a failure, but for a damaged key."""
    return not isinstance(error, StoreDamaged)


class Breaker:
    """Lets calls through until one fails; then, after a pause, one at a time on trial.

    Each failed trial doubles the pause, a successful one lets all through again. `verdict` says
    which StoreAway is a failure; a passed time limit is one, any other error is an answer.
    `trouble` and `cure` are what the log says of the store.
    """

    def __init__(
        self,
        trouble: str,
        cure: str,
        verdict: Verdict,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trouble = trouble
        self._cure = cure
        self._verdict = verdict
        self._clock = clock
        self._pause = 0.0  # 0: closed
        self._until = 0.0
        self._trying = False

    @property
    def open(self) -> bool:
        """True from the first failure until a call succeeds again."""
        return self._pause > 0

    @asynccontextmanager
    async def call(self, limit: float | None) -> AsyncIterator[None]:
        """Around one call, which may take `limit` seconds.

        Raises:
            StoreAway: it is no time to ask, or the call failed.
        """
        trial = self.open
        if trial and (self._trying or self._clock() < self._until):
            raise StoreAway(f"the store {self._trouble}; not retried for a moment")
        self._trying = self._trying or trial
        try:
            async with asyncio.timeout(limit):
                yield
        except StoreAway as error:
            self._judge(trial, self._verdict(error), error)
            raise
        except TimeoutError as error:
            away = StoreAway(f"no response within {limit} s")
            self._judge(trial, True, away)
            raise away from error
        except StoreError as error:
            self._judge(trial, False, error)
            raise
        else:
            self._judge(trial, False)
        finally:
            if trial:
                self._trying = False

    def _judge(self, trial: bool, failed: bool | None, error: StoreError | None = None) -> None:
        if failed:
            self._failed(trial, error)
        elif trial and failed is False:
            self._pause = 0.0
            log.warning("the store %s", self._cure)

    def _failed(self, trial: bool, error: StoreError | None) -> None:
        if trial:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        elif self.open:
            return  # began before the one that opened the circuit
        else:
            self._pause = FIRST_PAUSE
            log.warning("the store %s; continuing without it: %s", self._trouble, error)
        self._until = self._clock() + self._pause
