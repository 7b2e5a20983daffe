"""The label sets of one store as one process sees them. Knows nothing of vectors or HTTP."""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from typing import Any, Final, TypeVar

from app.labelsets import definition
from app.labelsets.definition import Stored, from_body, memory_cost, unreadable
from app.labelsets.known import DEFAULT_BYTES, Known
from app.labelsets.preconditions import away, changed, exists, full, unknown
from app.stores.protocols import (
    Head,
    LabelSetRecord,
    LabelSetStore,
    PictureStore,
    Quota,
    StoreAway,
    StoreFull,
    VersionConflict,
)

log = logging.getLogger("openvocab.labelsets")

T = TypeVar("T")

# records fetched from the store at once for a list
PAGE: Final = 8

# bytes of a body, and labels of a definition, that are handled in a thread
LARGE: Final = 256_000
MANY: Final = 2_000

# seconds between two notes of when a set was last used
TOUCH_EVERY: Final = 60.0

# seconds between two looks for what the store has lost
PUBLISH_EVERY: Final = 60.0

# and between the label sets of one: ten thousand do not come at once
PAUSE: Final = 0.05


class Registry:
    """Reads the current version from the store at each use, so that others' changes are seen.

    While the store is away, what is known goes on from memory. What the store lost without a
    tombstone is published again, at the next use or within two minutes.
    """

    def __init__(
        self,
        store: LabelSetStore,
        pictures: PictureStore,
        most: int,
        memory_bytes: int = DEFAULT_BYTES,
    ) -> None:
        self._store = store
        self._pictures = pictures
        self._most = most
        self._known = Known(memory_bytes)
        self._touched: dict[str, float] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def current(self, name: str) -> Stored:
        """The current version. Raises UnknownLabelset; StoreUnavailable if nothing is known."""
        while True:
            known = self._known.get(name)
            try:
                current = await self._current(name, known)
            except StoreAway:
                if known is None:
                    raise away() from None
                return known
            if current is not None:
                return current
            if self._known.get(name) is known:
                if known is not None:
                    self._forget(known)
                raise unknown(name)
            # created here during the call to the store: its answer may be older

    async def _current(self, name: str, known: Stored | None) -> Stored | None:
        head = await self._head(name, known)
        if head is None:
            return None
        latest = self._known.get(name)
        if latest is not None and latest.version >= head.version:
            return latest
        record = await self._store.get(name)
        return None if record is None else await self._learn(record)

    async def fresh(self, name: str) -> Stored | None:
        """What the store has now, for a change that must not start from memory."""
        try:
            await self._head(name, self._known.get(name))
            record = await self._store.get(name)
        except StoreAway:
            raise away() from None
        return None if record is None else await self._learn(record, anew=True)

    async def delete(self, stored: Stored) -> None:
        """Leave a tombstone of this version. Raises PreconditionFailed, StoreUnavailable."""
        try:
            await self._store.delete(stored.name, stored.version, _least_version())
        except VersionConflict as conflict:
            raise changed(stored.name, conflict.current) from None
        except StoreAway:
            raise away() from None
        self._forget(stored)
        await self._drop(stored, frozenset())

    async def page(self, after: str, before: str, limit: int) -> Sequence[Stored]:
        """Up to `limit` sets with names strictly between the two, by name."""
        page: list[Stored] = []
        try:
            await self._look_for_lost()
            while len(page) < limit:
                # a few at a time: bodies can be large, and others wait for the store too
                records = await self._store.page(after, before, min(PAGE, limit - len(page)))
                page += [await self._learn(record) for record in records]
                if len(records) < PAGE:
                    break
                after = records[-1].name
        except StoreAway:
            raise away() from None
        return page

    async def recent(self) -> Sequence[str]:
        """All names, most recently used first. Raises StoreUnavailable."""
        try:
            return await self._store.recent()
        except StoreAway:
            raise away() from None

    async def write(self, stored: Stored, before: Stored | None, most: int | None = None) -> Stored:
        """Create (`before` None) or replace that version; the result has its new number.

        There may be `most` sets in the namespace of its name.

        Raises:
            LabelsetExists, PreconditionFailed, TooLarge, StoreUnavailable.
        """
        body = await _offload(len(stored.definition.entries) > MANY, stored.body)
        bounds = definition.namespace_bounds(definition.namespace_of(stored.name))
        quota = None if most is None else Quota(*bounds, most)
        expected = None if before is None else before.version
        try:
            record = await self._store.write(
                stored.name, body, expected, self._most, _least_version(), quota
            )
        except VersionConflict as conflict:
            if before is None:
                raise exists(stored.name) from None
            raise changed(stored.name, conflict.current) from None
        except StoreFull as error:
            raise full(error.limit, own=error.own) from None
        except StoreAway:
            raise away() from None
        written = replace(stored, version=record.version, cost=memory_cost(body))
        self._remember(written)
        if before is not None:
            await self._drop(before, stored.definition.keys())
        return written

    async def _drop(self, before: Stored, kept: frozenset[str]) -> None:
        """Forget the pictures that nothing names any more; where that fails they are swept later.

        `before` is the version that was replaced or deleted, whatever has come after it meanwhile:
        no key of a picture is used again. It needs none of them to serve: their vectors are known.
        """
        dropped = before.definition.keys() - kept
        if dropped:
            with contextlib.suppress(StoreAway):
                await self._pictures.delete(before.name, sorted(dropped))

    async def built(self, stored: Stored) -> None:
        """Note in the store that a version is complete and needs no older one to serve for it."""
        if not stored.version:
            return  # a shipped vocabulary is in no store
        known = self._known.get(stored.name)
        # none: there was no room to know it
        if known is None or (known.version == stored.version and not known.built):
            finished = replace(stored, built=True, previous=None)
            self._known.put(finished)
            with contextlib.suppress(StoreAway):
                await self._store.amend(stored.name, stored.version, finished.body())

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that the versions which are known may take."""
        return self._known.max_bytes

    def touch(self, name: str) -> None:
        """Note, once a minute and without waiting, that a name is in use."""
        now = time.monotonic()  # the other clock may be set back
        if now - self._touched.get(name, -inf) > TOUCH_EVERY:
            self._touched.pop(name, None)
            self._touched[name] = now
            # those that would be noted again anyway; of names deleted elsewhere none is left
            while now - self._touched[oldest := next(iter(self._touched))] > TOUCH_EVERY:
                del self._touched[oldest]
            task = asyncio.get_running_loop().create_task(self._note_use(name, time.time()))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def _note_use(self, name: str, now: float) -> None:
        with contextlib.suppress(StoreAway):
            await self._store.touch(name, now)

    async def close(self) -> None:
        """End what runs in the background."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def keep_publishing(self) -> None:
        """Publish at intervals, forever, what was lost: who knows it may end before it is used."""
        while True:
            await asyncio.sleep(PUBLISH_EVERY)
            with contextlib.suppress(StoreAway):
                await self.publish_lost(PAUSE)

    async def publish_lost(self, pause: float = 0.0) -> None:
        """Publish again what the store has lost, or an older version of; wait `pause` after each.

        What was deleted is forgotten, or it would come back if the store is lost. Raises StoreAway.
        """
        for known in self._known.all():
            if known not in self._known:  # deleted or replaced meanwhile
                continue
            if await self._head(known.name, known) is None:
                self._forget(known)
            await asyncio.sleep(pause)

    async def _look_for_lost(self) -> None:
        """Publish or list again what the store has lost of what is known, unless it was deleted."""
        listed = set(await self._store.recent())
        for known in [known for known in self._known.all() if known.name not in listed]:
            if await self._head(known.name, known) is None:
                self._forget(known)
            else:  # the store's lists may have lost the name alone: a use puts it there again
                await self._note_use(known.name, time.time())

    async def _head(self, name: str, known: Stored | None) -> Head | None:
        """The store's, where what it lost of what is known is published again; None if deleted."""
        head = await self._store.head(name)
        if known is not None and _went_back(head, known):
            head = await self._publish_again(known)
        return None if head is None or head.deleted else head

    async def _publish_again(self, known: Stored) -> Head | None:
        """Replace what the store lost, or rolled back, by what is known here."""
        name = known.name
        if known.unreadable:  # nothing is known that could be put there
            self._forget(known)
            return await self._store.head(name)
        if await self._store.restore(LabelSetRecord(name, known.version, known.body())):
            log.warning("the store had lost label set %s; it has been published again", name)
        else:
            head = await self._store.head(name)
            if head is not None and _went_back(head, known):
                expected = None if head.deleted else head.version
                with contextlib.suppress(VersionConflict, StoreFull):
                    await self._store.write(
                        name, known.body(), expected, self._most, least=known.version
                    )
        return await self._store.head(name)

    async def _learn(self, record: LabelSetRecord, *, anew: bool = False) -> Stored:
        """The contents of a record; read `anew` if another process may have amended it."""
        known = self._known.get(record.name)
        if known is not None and known.version == record.version and (known.built or not anew):
            return known
        try:
            stored = await _offload(
                len(record.body) > LARGE, from_body, record.name, record.version, record.body
            )
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            log.exception("label set %s cannot be read by this release", record.name)
            stored = unreadable(record.name, record.version)
        self._remember(stored)
        return stored

    def _remember(self, stored: Stored) -> None:
        """Know this version, unless a newer one is known: answers of the store overtake another."""
        known = self._known.get(stored.name)
        if known is None or known.version <= stored.version:
            self._known.put(stored)

    def _forget(self, stored: Stored) -> None:
        """Know nothing of a name any more, unless more than this version is known."""
        known = self._known.get(stored.name)
        if known is not None and known.version <= stored.version:
            self._known.pop(stored.name)
            self._touched.pop(stored.name, None)


def _went_back(head: Head | None, known: Stored) -> bool:
    """Whether the store has nothing of the name, or less than is known, as a tombstone or not."""
    return head is None or head.version < known.version


def _least_version() -> int:
    """As large as the time: a version never comes back, even if the store was lost."""
    return int(1000 * time.time())


async def _offload(large: bool, function: Callable[..., T], *values: Any) -> T:
    """Large definitions are handled in a thread, so that other requests do not wait."""
    return await asyncio.to_thread(function, *values) if large else function(*values)


# seconds that a picture is kept which nothing names: its definition may still be to be written
GRACE: Final = 3_600.0

# seconds between two sweeps, and until the first
EVERY: Final = 3_600.0
FIRST: Final = 60.0


class Sweeper:
    """Forgets pictures that no label set has named for GRACE seconds.

    What counts is how long this process has seen them unnamed: clocks of machines differ.
    """

    def __init__(
        self,
        labelsets: LabelSetStore,
        pictures: PictureStore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._labelsets = labelsets
        self._pictures = pictures
        self._clock = clock
        self._unnamed: dict[tuple[str, str], float] = {}

    async def keep_sweeping(self) -> None:
        """Sweep at intervals, forever."""
        await asyncio.sleep(FIRST)
        while True:
            with contextlib.suppress(StoreAway):
                count = await self.sweep()
                if count:
                    log.info("removed %d pictures that no label set refers to", count)
            await asyncio.sleep(EVERY)

    async def sweep(self) -> int:
        """Forget those that have been seen unnamed for long enough; how many. Raises StoreAway."""
        listed: defaultdict[str, list[str]] = defaultdict(list)
        for name, key in await self._pictures.listed():
            listed[name].append(key)
        unnamed_before, self._unnamed = self._unnamed, {}
        count = 0
        for name, keys in listed.items():
            named = await _referenced(self._labelsets, name)
            if named is None:
                continue
            now = self._clock()
            old = []
            for key in keys:
                if key not in named:
                    since = self._unnamed[name, key] = unnamed_before.get((name, key), now)
                    if now - since >= GRACE:
                        old.append(key)
            await self._pictures.delete(name, old)
            count += len(old)
        return count


async def _referenced(labelsets: LabelSetStore, name: str) -> frozenset[str] | None:
    """The keys that a label set refers to; None if that is unknown."""
    head = await labelsets.head(name)
    if head is None:
        return None  # lost, not deleted: whoever knows the definition publishes it again
    if head.deleted:
        return frozenset()
    record = await labelsets.get(name)
    if record is None:
        return None
    try:
        stored = from_body(name, record.version, record.body)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None  # of a newer release, which may need them
    before = stored.previous.definition.keys() if stored.previous else frozenset()
    return stored.definition.keys() | before
