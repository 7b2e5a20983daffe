"""Circuit breakers and time limits before a store, by a table of its methods.

Does not know which store it guards.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from types import SimpleNamespace
from typing import Any, Final, Literal, cast

from app.stores.breaker import Breaker, fails, gone, refuses
from app.stores.protocols import (
    CHUNK,
    LabelSetStore,
    PictureStore,
    RateLimits,
    Store,
    StoreAway,
    StoreDamaged,
    StoreError,
    StoreRefused,
    VectorCache,
)

Call = Literal["read", "write", "count"]
# to free is to write what a store that is full accepts as well
Kind = Literal["read", "write", "count", "free"]
Result = Literal["ok", "refused", "away"]
State = Literal["ok", "read-only", "away"]
Tell = Callable[[Call, Result, float], None]

# how many times the time limit a call may take, by its arguments; None: no limit
Times = Callable[..., int | None]


def _once(*_arguments: object) -> int:
    return 1


def _by_chunk(items: Sequence[str] | Mapping[str, bytes]) -> int:
    return max(1, -(-len(items) // CHUNK))


def _by_key(_name: str, keys: Sequence[str]) -> int:
    return max(1, len(keys))


def _by_size(body: bytes) -> int:
    return 1 + len(body) // 1_000_000


def _megabytes(size: int) -> int:
    return 2 + size // 1_000_000


# megabytes that definitions which are read may have; `head` or `recent` is asked before, and finds
# out that a store hangs
_READ: Final = 32


# every method of a store: what it does, and how long it may take
LABELSETS: Final[Mapping[str, tuple[Kind, Times]]] = {
    "head": ("read", _once),
    "get": ("read", lambda _name: _READ),
    "page": ("read", lambda _after, _before, _limit: _READ),
    "recent": ("read", _once),
    "write": ("write", lambda _name, body, *_rest: _by_size(body)),
    "amend": ("write", lambda _name, _version, body: _by_size(body)),
    "delete": ("free", _once),
    "restore": ("write", lambda record: _by_size(record.body)),
    "touch": ("write", _once),
}
PICTURES: Final[Mapping[str, tuple[Kind, Times]]] = {
    "put": ("write", lambda _name, _key, value, _most: _megabytes(len(value))),
    "get": ("read", lambda _name, _key, size: _megabytes(size)),
    "missing": ("read", lambda _name, keys: _by_chunk(keys)),
    "delete": ("free", _by_key),
    "listed": ("read", lambda: None),  # nobody waits for it, and each page has its limit
}
VECTORS: Final[Mapping[str, tuple[Kind, Times]]] = {
    "get_many": ("read", _by_chunk),
    "put_many": ("write", _by_chunk),
}
RATES: Final[Mapping[str, tuple[Kind, Times]]] = {"take": ("count", _once)}


# seconds between two pings without a probe: nobody may be using the store, or asking this process
EVERY: Final = 10.0


def nobody(_call: Call, _result: Result, _seconds: float) -> None:
    """For a store whose calls are not counted."""


class Guarded:
    """A store that never keeps a caller longer than `timeout` seconds, and not at all while away.

    What may be large has that time for each megabyte; definitions that are read, whose size is not
    known before, for 32.

    Where `write_timeout` is None one server does it all: a call that it does not answer keeps all
    others from asking, a write that it refuses only other writes, and of these none that makes
    room. Else writes have a way of their own, which may be slow and whose answer matters: their
    failures say nothing of reads, and counting requests, which may not wait, says nothing of
    writes. A write that failed with StoreAway may have happened all the same. `tell` hears of every
    call, also of those that are not made.
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
        self._tell = tell
        self._together = write_timeout is None
        self._reads = Breaker("is away", "is back", gone, clock)
        refused = refuses if self._together else fails
        self._writes = Breaker("accepts no writes", "accepts writes again", refused, clock)
        self._buckets = Breaker(
            "does not count rate limits", "counts rate limits again", fails, clock
        )
        self._limits = {"read": timeout, "write": write_timeout or timeout, "count": timeout}
        self.labelsets = cast(LabelSetStore, self._guard(store.labelsets, LABELSETS))
        self.pictures = cast(PictureStore, self._guard(store.pictures, PICTURES))
        self.vectors = cast(VectorCache, self._guard(store.vectors, VECTORS))
        self.rates = cast(RateLimits, self._guard(store.rates, RATES))

    @property
    def state(self) -> State:
        """What the store can do, as far as the last calls have shown."""
        if self._reads.open:
            return "away"
        return "read-only" if self._writes.open else "ok"

    @property
    def away(self) -> bool:
        """Whether the store cannot do all that it should."""
        return self.state != "ok"

    async def open(self) -> None:
        """Connect and migrate, in the store's own time.

        Raises:
            StoreUnusable, StoreAway
        """
        async with self._passing("read", None):
            await self._store.open()

    async def ping(self) -> None:
        """Nothing if the store answers and takes writes, else StoreAway."""
        refused = False
        try:
            async with self._passing("read", self._limits["read"]):
                await self._store.ping()
        except StoreRefused:
            refused = True  # what cannot be written refuses this as well: then the probe says so
        if self._together or self._writes.open or refused:
            async with self._passing("write", self._limits["read"]):
                await self._store.probe()

    async def keep_pinging(self) -> None:
        """Ask at intervals, for readers of `state`; never returns."""
        while True:
            await asyncio.sleep(EVERY)
            with suppress(StoreAway):
                await self.ping()

    async def close(self) -> None:
        """Close connections and threads."""
        await self._store.close()

    def _guard(self, inner: object, methods: Mapping[str, tuple[Kind, Times]]) -> Any:
        def guarded(name: str, kind: Kind, times: Times) -> Callable[..., Awaitable[Any]]:
            async def call(*arguments: Any, **named: Any) -> Any:
                count = times(*arguments)
                seconds = self._limits["write" if kind == "free" else kind]
                limit = None if count is None else count * seconds
                async with self._passing(kind, limit):
                    return await getattr(inner, name)(*arguments, **named)

            return call

        return SimpleNamespace(**{name: guarded(name, *rule) for name, rule in methods.items()})

    @asynccontextmanager
    async def _passing(self, kind: Kind, limit: float | None) -> AsyncIterator[None]:
        """Around one call, which may take `limit` seconds."""
        with _reporting(self._tell, "write" if kind == "free" else kind):
            if kind == "read" or (kind == "free" and self._together):
                async with self._reads.call(limit):
                    yield
            elif self._together:
                async with self._writes.call(None), self._reads.call(limit):
                    yield
            else:
                async with (self._buckets if kind == "count" else self._writes).call(limit):
                    yield


@contextmanager
def _reporting(tell: Tell, call: Call) -> Iterator[None]:
    """Around one call; a cancelled call is not counted."""
    begun = time.perf_counter()
    result: Result = "ok"
    try:
        yield
    except StoreError as error:
        # that somebody else was faster, or that a name is damaged, is an answer
        if isinstance(error, StoreRefused):
            result = "refused"
        elif isinstance(error, StoreAway) and not isinstance(error, StoreDamaged):
            result = "away"
        tell(call, result, time.perf_counter() - begun)
        raise
    tell(call, result, time.perf_counter() - begun)
