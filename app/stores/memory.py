"""The store of one process: everything in dictionaries, gone when it ends.

Knows nothing of other processes: each would have its own.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from app.stores.gcra import Grant, take
from app.stores.protocols import (
    TOMBSTONES,
    Head,
    LabelSetRecord,
    LabelSetStore,
    PicturesFull,
    PictureStore,
    Quota,
    RateLimits,
    StoreFull,
    VectorCache,
    VersionConflict,
)


@dataclass(slots=True)
class _Entry:
    version: int
    body: bytes | None  # None: deleted
    used: float


class MemoryLabelSets:
    """Definitions in a dictionary. No method awaits, so each is atomic in its event loop."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._forgotten = 0  # the newest version of a tombstone that is no longer kept

    async def head(self, name: str) -> Head | None:
        entry = self._entries.get(name)
        return None if entry is None else Head(entry.version, entry.body is None)

    async def get(self, name: str) -> LabelSetRecord | None:
        entry = self._entries.get(name)
        if entry is None or entry.body is None:
            return None
        return LabelSetRecord(name, entry.version, entry.body)

    async def page(self, after: str, before: str, limit: int) -> Sequence[LabelSetRecord]:
        records = [await self.get(name) for name in sorted(self._between(after, before))[:limit]]
        return [record for record in records if record is not None]

    async def write(
        self,
        name: str,
        body: bytes,
        expected: int | None,
        most: int,
        least: int = 1,
        quota: Quota | None = None,
    ) -> LabelSetRecord:
        entry = self._entries.get(name)
        current = None if entry is None or entry.body is None else entry.version
        if current != expected:
            raise VersionConflict(current)
        if current is None:
            if quota and len(self._between(quota.after, quota.before)) >= quota.most:
                raise StoreFull(quota.most, own=True)
            if len(self._alive()) >= most:
                raise StoreFull(most)
        newest = self._forgotten if entry is None else entry.version
        version = max(newest + 1, least)
        self._entries[name] = _Entry(version, body, self._clock())
        return LabelSetRecord(name, version, body)

    async def amend(self, name: str, version: int, body: bytes) -> bool:
        entry = self._entries.get(name)
        if entry is None or entry.body is None or entry.version != version:
            return False
        entry.body = body
        return True

    async def delete(self, name: str, expected: int, least: int = 1) -> None:
        entry = self._entries.get(name)
        current = None if entry is None or entry.body is None else entry.version
        if entry is None or current != expected:
            raise VersionConflict(current)
        del self._entries[name]  # the order of the tombstones is that of the deletions
        self._entries[name] = _Entry(max(entry.version + 1, least), None, entry.used)
        deleted = [name for name, entry in self._entries.items() if entry.body is None]
        for oldest in deleted[:-TOMBSTONES]:
            self._forgotten = max(self._forgotten, self._entries.pop(oldest).version)

    async def restore(self, record: LabelSetRecord) -> bool:
        if record.name in self._entries or record.version <= self._forgotten:
            return False
        self._entries[record.name] = _Entry(record.version, record.body, self._clock())
        return True

    async def touch(self, name: str, when: float) -> None:
        entry = self._entries.get(name)
        if entry is not None:
            entry.used = max(entry.used, when)

    async def recent(self) -> Sequence[str]:
        return sorted(self._alive(), key=lambda name: self._entries[name].used, reverse=True)

    def _alive(self) -> Sequence[str]:
        return [name for name, entry in self._entries.items() if entry.body is not None]

    def _between(self, after: str, before: str) -> Sequence[str]:
        return [name for name in self._alive() if after < name < before]


class MemoryPictures:
    """Pictures in a dictionary. No method awaits, so each is atomic in its event loop."""

    def __init__(self) -> None:
        self._bytes = 0
        self._values: dict[tuple[str, str], bytes] = {}

    async def put(self, name: str, key: str, value: bytes, most: int) -> None:
        total = self._bytes + len(value) - len(self._values.get((name, key), b""))
        if total > most:
            raise PicturesFull(most, total)
        self._bytes = total
        self._values[name, key] = value

    async def get(self, name: str, key: str, size: int) -> bytes | None:
        value = self._values.get((name, key))
        return value if value is not None and len(value) == size else None

    async def delete(self, name: str, keys: Sequence[str]) -> None:
        for key in keys:
            self._bytes -= len(self._values.pop((name, key), b""))

    async def missing(self, name: str, keys: Sequence[str]) -> Sequence[str]:
        return [key for key in keys if (name, key) not in self._values]

    async def listed(self) -> Sequence[tuple[str, str]]:
        return list(self._values)


class MemoryVectors:
    """Vectors in the order in which they expire, bounded in bytes; 0 bytes keep none."""

    def __init__(self, ttl: float, most: int, clock: Callable[[], float] = time.time) -> None:
        self._ttl = ttl
        self._most = most
        self._clock = clock
        self._bytes = 0
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        now = self._clock()
        entries = [self._entries.get(key) for key in keys]
        return [entry[1] if entry and entry[0] > now else None for entry in entries]

    async def put_many(self, values: Mapping[str, bytes]) -> None:
        now = self._clock()
        for key, value in values.items():
            if len(value) <= self._most:
                self._drop(key)
                self._entries[key] = now + self._ttl, value
                self._bytes += len(value)
        while self._entries:
            key, (expires, _) = next(iter(self._entries.items()))
            if self._bytes <= self._most and expires > now:
                break
            self._drop(key)

    def _drop(self, key: str) -> None:
        dropped = self._entries.pop(key, None)
        if dropped is not None:
            self._bytes -= len(dropped[1])


class MemoryRates:
    """Buckets in the order in which they were last used."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    async def take(self, key: str, count: int, rate: float, burst: int) -> Grant:
        now = self._clock()
        self._full_at[key], grant = take(self._full_at.get(key), now, count, rate, burst)
        self._full_at.move_to_end(key)
        # more than one is added; a full one says as much as none
        for oldest in list(islice(self._full_at, 2)):
            if self._full_at[oldest] <= now:
                del self._full_at[oldest]
        return grant


class MemoryStore:
    """All of it, for one process; nothing can be away and nothing needs to be opened."""

    def __init__(
        self, vector_ttl: float = 0, vector_bytes: int = 0, clock: Callable[[], float] = time.time
    ) -> None:
        self.labelsets: LabelSetStore = MemoryLabelSets(clock)
        self.pictures: PictureStore = MemoryPictures()
        self.vectors: VectorCache = MemoryVectors(vector_ttl, vector_bytes, clock)
        self.rates: RateLimits = MemoryRates(clock)

    async def open(self) -> None:
        """Nothing to open."""

    async def ping(self) -> None:
        """It is always there."""

    async def probe(self) -> None:
        """It always takes writes."""

    async def close(self) -> None:
        """Nothing to close."""
