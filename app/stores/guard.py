"""Circuit breakers and time limits before a store. Knows not which store it is."""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Literal

from app.stores.breaker import Breaker, fails, gone, refuses
from app.stores.gcra import Grant
from app.stores.protocols import (
    CHUNK,
    Head,
    LabelSets,
    Pictures,
    Quota,
    RateLimits,
    Record,
    Store,
    StoreAway,
    StoreError,
    StoreRefused,
    VectorCache,
)

Call = Literal["read", "write", "count"]
Result = Literal["ok", "refused", "away"]
Tell = Callable[[Call, Result, float], None]


def nobody(_call: Call, _result: Result, _seconds: float) -> None:
    """For a store whose calls are not counted."""


@contextmanager
def told(tell: Tell, call: Call) -> Iterator[None]:
    """Around one call; one that is cancelled is none."""
    begun = time.perf_counter()
    try:
        yield
    except StoreRefused:
        tell(call, "refused", time.perf_counter() - begun)
        raise
    except StoreAway:
        tell(call, "away", time.perf_counter() - begun)
        raise
    except StoreError:
        # that somebody else was faster is an answer
        tell(call, "ok", time.perf_counter() - begun)
        raise
    else:
        tell(call, "ok", time.perf_counter() - begun)


State = Literal["ok", "read-only", "away"]


class Gates:
    """What a call passes: breakers for reads, for writes and for buckets.

    Where `write_timeout` is None one server does it all: a call that it does not answer keeps all
    others from asking, a write that it refuses only other writes. Else writes have a way of their
    own, their failures say nothing of reads, and buckets are not to stop writes that may wait.
    """

    def __init__(
        self, timeout: float, write_timeout: float | None, clock: Callable[[], float], tell: Tell
    ) -> None:
        self._tell = tell
        self.timeout = timeout
        self.write_timeout = timeout if write_timeout is None else write_timeout
        self._together = write_timeout is None
        refused = refuses if self._together else fails
        self._reads = Breaker("is away", "is back", gone, clock)
        self._writes = Breaker("takes no writes", "takes writes again", refused, clock)
        self._buckets = Breaker("counts no requests", "counts requests again", fails, clock)

    @property
    def state(self) -> State:
        """What the store can do now."""
        if self._reads.open:
            return "away"
        return "read-only" if self._writes.open else "ok"

    @asynccontextmanager
    async def read(self, limit: float | None) -> AsyncIterator[None]:
        """Around a call that changes nothing."""
        with told(self._tell, "read"):
            async with self._reads.call(limit):
                yield

    @asynccontextmanager
    async def write(self, limit: float) -> AsyncIterator[None]:
        """Around a call that changes something."""
        with told(self._tell, "write"):
            if self._together:
                async with self._writes.call(None), self._reads.call(limit):
                    yield
            else:
                async with self._writes.call(limit):
                    yield

    @asynccontextmanager
    async def bucket(self) -> AsyncIterator[None]:
        """Around taking from a bucket."""
        with told(self._tell, "count"):
            if self._together:
                async with self._writes.call(None), self._reads.call(self.timeout):
                    yield
            else:
                async with self._buckets.call(self.timeout):
                    yield

    @property
    def to_probe(self) -> bool:
        """Whether a write is to be tried: with one server always, else if the last one failed."""
        return self._together or self._writes.open


class GuardedLabelSets:
    """The definitions of a store, behind its breakers."""

    def __init__(self, inner: LabelSets, gates: Gates) -> None:
        self._inner = inner
        self._gates = gates
        self._read = gates.timeout
        self._write = gates.write_timeout

    async def head(self, name: str) -> Head | None:
        async with self._gates.read(self._read):
            return await self._inner.head(name)

    async def get(self, name: str) -> Record | None:
        async with self._gates.read(self._read):
            return await self._inner.get(name)

    async def page(self, after: str, before: str, limit: int) -> Sequence[Record]:
        async with self._gates.read(self._read):
            return await self._inner.page(after, before, limit)

    async def write(
        self,
        name: str,
        body: bytes,
        expected: int | None,
        most: int,
        least: int = 1,
        quota: Quota | None = None,
    ) -> Record:
        async with self._gates.write(self._write):
            return await self._inner.write(name, body, expected, most, least, quota)

    async def amend(self, name: str, version: int, body: bytes) -> bool:
        async with self._gates.write(self._write):
            return await self._inner.amend(name, version, body)

    async def delete(self, name: str, expected: int) -> None:
        async with self._gates.write(self._write):
            await self._inner.delete(name, expected)

    async def restore(self, record: Record) -> bool:
        async with self._gates.write(self._write):
            return await self._inner.restore(record)

    async def touch(self, name: str, when: float) -> None:
        async with self._gates.write(self._write):
            await self._inner.touch(name, when)

    async def recent(self) -> Sequence[str]:
        async with self._gates.read(self._read):
            return await self._inner.recent()


class GuardedVectors:
    """The vectors of a store, behind its breakers; the limit holds for each CHUNK of them."""

    def __init__(self, inner: VectorCache, gates: Gates) -> None:
        self._inner = inner
        self._gates = gates

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        async with self._gates.read(self._gates.timeout * _pieces(len(keys))):
            return await self._inner.get_many(keys)

    async def put_many(self, values: Mapping[str, bytes]) -> None:
        async with self._gates.write(self._gates.write_timeout * _pieces(len(values))):
            await self._inner.put_many(values)


class GuardedRates:
    """The buckets of a store, behind its breakers."""

    def __init__(self, inner: RateLimits, gates: Gates) -> None:
        self._inner = inner
        self._gates = gates

    async def take(self, key: str, wanted: int, rate: float, burst: int) -> Grant:
        async with self._gates.bucket():
            return await self._inner.take(key, wanted, rate, burst)


class Guarded:
    """A store that never keeps a caller longer than `timeout` seconds, and not at all while away.

    `write_timeout` is for a store that writes on a way of its own, which may be slow and whose
    answer matters. A write that failed with StoreAway may have happened all the same. `tell` hears
    of every call, also of those that are not made.
    """

    def __init__(
        self,
        store: Store,
        timeout: float,
        *,
        write_timeout: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        tell: Tell = nobody,
    ) -> None:
        self._store = store
        self._gates = Gates(timeout, write_timeout, clock, tell)
        self.labelsets: LabelSets = GuardedLabelSets(store.labelsets, self._gates)
        self.pictures: Pictures = GuardedPictures(store.pictures, self._gates)
        self.vectors: VectorCache = GuardedVectors(store.vectors, self._gates)
        self.rates: RateLimits = GuardedRates(store.rates, self._gates)

    @property
    def state(self) -> State:
        """What the store can do, as far as the last calls have shown."""
        return self._gates.state

    @property
    def away(self) -> bool:
        """Whether the store cannot do all that it should."""
        return self.state != "ok"

    async def open(self) -> None:
        """Connect and migrate, in the store's own time.

        Raises:
            StoreUnusable, StoreAway
        """
        async with self._gates.read(None):
            await self._store.open()

    async def ping(self) -> None:
        """Nothing if the store answers and takes writes, else StoreAway."""
        # a server that cannot write refuses this as well: then the probe says so
        with suppress(StoreRefused):
            async with self._gates.read(self._gates.timeout):
                await self._store.ping()
        if self._gates.to_probe:
            async with self._gates.write(self._gates.timeout):
                await self._store.probe()

    async def close(self) -> None:
        """Let go of connections and threads."""
        await self._store.close()


def _pieces(count: int) -> int:
    return max(1, -(-count // CHUNK))


class GuardedPictures:
    """The pictures of a store, behind its breakers; the limit holds for each megabyte of one."""

    def __init__(self, inner: Pictures, gates: "Gates") -> None:
        self._inner = inner
        self._gates = gates

    async def put(self, name: str, key: str, value: bytes, most: int) -> None:
        async with self._gates.write(self._gates.write_timeout * _megabytes(len(value))):
            await self._inner.put(name, key, value, most)

    async def get(self, name: str, key: str, size: int) -> bytes | None:
        async with self._gates.read(self._gates.timeout * _megabytes(size)):
            return await self._inner.get(name, key, size)

    async def delete(self, name: str, keys: Sequence[str]) -> None:
        async with self._gates.write(self._gates.write_timeout * max(1, len(keys))):
            await self._inner.delete(name, keys)

    async def listed(self) -> Sequence[tuple[str, str]]:
        async with self._gates.read(None):  # nobody waits for it, and each page has its limit
            return await self._inner.listed()


def _megabytes(size: int) -> int:
    return 2 + size // 1_000_000
