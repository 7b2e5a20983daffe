"""What a store must do: keep definitions and pictures forever, vectors while there is room, and
count requests.

Knows nothing of what a definition says, what a vector stands for or who makes requests.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from app.stores.gcra import Grant

T = TypeVar("T")

# 256 vectors of 1,024 numbers are 1 MB; also well under SQLite's limit of variables
CHUNK: Final = 256

# tombstones that a store keeps; of an older one it remembers only that it was that new
TOMBSTONES: Final = 1_000


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items in order, at most CHUNK at a time."""
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


class StoreError(Exception):
    """Base of what a store raises on purpose."""


class StoreAway(StoreError):
    """The store did not answer in time, or cannot be reached; the same call may work later.

    If a write ends this way, it may have happened all the same.
    """


class StoreRefused(StoreAway):
    """The store answers and accepts no writes now: it is full, or a copy; it can still be read."""


class StoreDamaged(StoreAway):
    """The store answers, and something in it that all need is not as this release wrote it."""


class StoreUnusable(StoreError):
    """The store can never be used as configured: wrong password, newer schema, bad address."""


class VersionConflict(StoreError):
    """The name is not at the expected version; `current` is None if it does not exist."""

    def __init__(self, current: int | None) -> None:
        super().__init__(f"the current version is {current}")
        self.current = current


class StoreFull(StoreError):
    """One more name would be over `limit`: that of a quota if it is `own`, else of the store."""

    def __init__(self, limit: int, *, own: bool = False) -> None:
        super().__init__(f"{limit} label sets are stored already")
        self.limit = limit
        self.own = own


class PicturesFull(StoreError):
    """One more picture would take more than `limit` bytes together; `value` is how many."""

    def __init__(self, limit: int, value: int) -> None:
        super().__init__(f"the pictures would have {value} bytes, the limit is {limit}")
        self.limit = limit
        self.value = value


@dataclass(frozen=True, slots=True)
class Quota:
    """At most so many names strictly between `after` and `before`."""

    after: str
    before: str
    most: int


@dataclass(frozen=True, slots=True)
class Head:
    """The version a name is at. Deleted names keep counting: a version never comes back."""

    version: int
    deleted: bool


@dataclass(frozen=True, slots=True)
class LabelSetRecord:
    """One name with its version and its body, which the store does not look into."""

    name: str
    version: int
    body: bytes


class LabelSetStore(Protocol):
    """Definitions by name. Never expire. A deleted name leaves a tombstone: its last version.

    The last TOMBSTONES deletions are kept. What another program wrote under a name, or what was
    damaged, is at version 0 with an empty body: it can be replaced and deleted.
    Every method raises StoreAway when the store cannot answer.
    """

    async def head(self, name: str) -> Head | None:
        """Version and tombstone of a name, None if the store knows nothing of it."""

    async def get(self, name: str) -> LabelSetRecord | None:
        """The record of a name that is not deleted, else None."""

    async def page(self, after: str, before: str, limit: int) -> Sequence[LabelSetRecord]:
        """Up to `limit` records with names strictly between the two, in the order of their names.

        Names are in the order of their characters' code points.
        """

    async def write(
        self,
        name: str,
        body: bytes,
        expected: int | None,
        most: int,
        least: int = 1,
        quota: Quota | None = None,
    ) -> LabelSetRecord:
        """Create (`expected` None) or replace (at version `expected`), atomically and durably.

        The new version is at least `least`, and more than any that the store knows the name had
        or may have had, by the tombstones that it no longer keeps.

        Raises:
            VersionConflict: the name exists although `expected` is None, or is not at `expected`.
            StoreFull: a new name would be the `most` + 1st, or one too many for the quota.
        """

    async def amend(self, name: str, version: int, body: bytes) -> bool:
        """Change the body without a new version; False if the name is not at `version`."""

    async def delete(self, name: str, expected: int, least: int = 1) -> None:
        """Leave a tombstone of a new version: `expected` + 1, and at least `least`.

        Raises:
            VersionConflict: the name is not at `expected`, or does not exist.
        """

    async def restore(self, record: LabelSetRecord) -> bool:
        """Publish a record again that the store lost.

        False if it knows the name or a tombstone, or no longer keeps a tombstone as new as that.
        """

    async def touch(self, name: str, when: float) -> None:
        """Note when a name was last used (Unix time, seconds); nothing if it does not exist."""

    async def recent(self) -> Sequence[str]:
        """All names that are not deleted, most recently touched or written first."""


class PictureStore(Protocol):
    """Pictures by a label set's name and a key. Never expire.

    Nothing looks at whether the label set exists: who writes the definition says which keys count.
    Every method raises StoreAway when the store cannot answer.
    """

    async def put(self, name: str, key: str, value: bytes, most: int) -> None:
        """Keep a picture, durably; all of the store together have `most` bytes at most.

        Raises:
            PicturesFull: there is no room for it.
        """

    async def get(self, name: str, key: str, size: int) -> bytes | None:
        """A picture stored with this many bytes; None if it is missing or incomplete."""

    async def delete(self, name: str, keys: Sequence[str]) -> None:
        """Delete pictures; missing ones are ignored."""

    async def missing(self, name: str, keys: Sequence[str]) -> Sequence[str]:
        """Those of the keys under which there is no picture."""

    async def listed(self) -> Sequence[tuple[str, str]]:
        """Name and key of every picture, also of one whose `put` never ended, in any order."""


class VectorCache(Protocol):
    """Vectors by key, as bytes. May forget any of them at any time.

    Every method raises StoreAway when the store cannot answer.
    """

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """A value or None for each key, in order."""

    async def put_many(self, values: Mapping[str, bytes]) -> None:
        """Keep the values until their time to live has passed, longer if used is not promised."""


class RateLimits(Protocol):
    """Buckets of requests by key, shared by all who share the store. May forget any that is full.

    Raises StoreAway when the store cannot answer.
    """

    async def take(self, key: str, count: int, rate: float, burst: int) -> Grant:
        """Grant as many of `count` requests as the bucket holds.

        It fills by `rate` requests a second and holds `burst` of them.
        """


class Store(Protocol):
    """All four, with a life of their own."""

    labelsets: LabelSetStore
    pictures: PictureStore
    vectors: VectorCache
    rates: RateLimits

    async def open(self) -> None:
        """Connect and migrate.

        Raises:
            StoreUnusable: it can never work as configured.
            StoreAway: it may work later; the store may be used and keeps trying.
        """

    async def ping(self) -> None:
        """Nothing if the store answers, else StoreAway."""

    async def probe(self) -> None:
        """Write something expendable; StoreAway if writing is impossible now."""

    async def close(self) -> None:
        """Close connections and threads."""
