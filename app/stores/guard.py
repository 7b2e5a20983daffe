"""A circuit breaker and a time limit before a store. Knows not which store it is."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from app.stores.chunks import CHUNK
from app.stores.protocols import (
    Head,
    LabelSets,
    Record,
    Store,
    StoreAway,
    StoreError,
    VectorCache,
)

log = logging.getLogger("openvocab.stores")

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 10.0


class Breaker:
    """Lets calls through until one fails; then, after a pause, one at a time on trial.

    Each failed trial doubles the pause, a successful one lets all through again. Only StoreAway
    and a passed time limit are failures: any other error is an answer.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pause = 0.0  # 0: closed
        self._until = 0.0
        self._trying = False

    @property
    def away(self) -> bool:
        return self._pause > 0

    @asynccontextmanager
    async def call(self, limit: float | None) -> AsyncIterator[None]:
        """Around one call, which may take `limit` seconds.

        Raises:
            StoreAway: it is no time to ask, or the call failed.
        """
        trial = self.away
        if trial and (self._trying or self._clock() < self._until):
            raise StoreAway("the store did not answer lately and is not asked for a moment")
        self._trying = self._trying or trial
        try:
            async with asyncio.timeout(limit):
                yield
        except StoreAway as error:
            self._failed(trial, error)
            raise
        except TimeoutError as error:
            away = StoreAway(f"no answer in {limit} s")
            self._failed(trial, away)
            raise away from error
        except StoreError:
            self._answered(trial)
            raise
        else:
            self._answered(trial)
        finally:
            if trial:
                self._trying = False

    def _failed(self, trial: bool, error: StoreAway) -> None:
        if trial:
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        elif self.away:
            return  # began before the one that opened the circuit
        else:
            self._pause = FIRST_PAUSE
            log.warning("the store is away, going on without it: %s", error)
        self._until = self._clock() + self._pause

    def _answered(self, trial: bool) -> None:
        if trial:
            self._pause = 0.0
            log.warning("the store is back")


class GuardedLabelSets:
    """The definitions of a store, behind its breaker."""

    def __init__(self, inner: LabelSets, breaker: Breaker, read: float, write: float) -> None:
        self._inner = inner
        self._breaker = breaker
        self._read = read
        self._write = write

    async def head(self, name: str) -> Head | None:
        async with self._breaker.call(self._read):
            return await self._inner.head(name)

    async def get(self, name: str) -> Record | None:
        async with self._breaker.call(self._read):
            return await self._inner.get(name)

    async def page(self, after: str, limit: int) -> Sequence[Record]:
        async with self._breaker.call(self._read):
            return await self._inner.page(after, limit)

    async def write(
        self, name: str, body: bytes, expected: int | None, most: int, least: int = 1
    ) -> Record:
        async with self._breaker.call(self._write):
            return await self._inner.write(name, body, expected, most, least)

    async def amend(self, name: str, version: int, body: bytes) -> bool:
        async with self._breaker.call(self._write):
            return await self._inner.amend(name, version, body)

    async def delete(self, name: str, expected: int) -> None:
        async with self._breaker.call(self._write):
            await self._inner.delete(name, expected)

    async def restore(self, record: Record) -> bool:
        async with self._breaker.call(self._write):
            return await self._inner.restore(record)

    async def touch(self, name: str, when: float) -> None:
        async with self._breaker.call(self._write):
            await self._inner.touch(name, when)

    async def recent(self) -> Sequence[str]:
        async with self._breaker.call(self._read):
            return await self._inner.recent()


class GuardedVectors:
    """The vectors of a store, behind its breaker; the limit holds for each CHUNK of them."""

    def __init__(self, inner: VectorCache, breaker: Breaker, limit: float) -> None:
        self._inner = inner
        self._breaker = breaker
        self._limit = limit

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        async with self._breaker.call(self._limit * _pieces(len(keys))):
            return await self._inner.get_many(keys)

    async def put_many(self, values: Mapping[str, bytes]) -> None:
        async with self._breaker.call(self._limit * _pieces(len(values))):
            await self._inner.put_many(values)


class Guarded:
    """A store that never keeps a caller longer than `timeout` seconds, and not at all while away.

    `write_timeout` is for a store whose disk may be slow and whose answer matters (default:
    `timeout`). A write that failed with StoreAway may have happened all the same.
    """

    def __init__(
        self,
        store: Store,
        timeout: float,
        *,
        write_timeout: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._timeout = timeout
        self._breaker = Breaker(clock)
        write = timeout if write_timeout is None else write_timeout
        self.labelsets: LabelSets = GuardedLabelSets(store.labelsets, self._breaker, timeout, write)
        self.vectors: VectorCache = GuardedVectors(store.vectors, self._breaker, timeout)

    @property
    def away(self) -> bool:
        """True from the first failure until a call succeeds again."""
        return self._breaker.away

    async def open(self) -> None:
        """Connect and migrate, in the store's own time.

        Raises:
            StoreUnusable, StoreAway
        """
        async with self._breaker.call(None):
            await self._store.open()

    async def ping(self) -> None:
        """Nothing if the store answers, else StoreAway."""
        async with self._breaker.call(self._timeout):
            await self._store.ping()

    async def close(self) -> None:
        """Let go of connections and threads."""
        await self._store.close()


def _pieces(count: int) -> int:
    return max(1, -(-count // CHUNK))
