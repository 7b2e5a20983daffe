"""The label sets of one store as one process sees them. Knows nothing of vectors or HTTP."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.definitions import Stored, from_body
from app.errors import (
    LabelsetExists,
    PreconditionFailed,
    StoreUnavailable,
    TooLarge,
    UnknownLabelset,
)
from app.stores.protocols import LabelSets, Record, StoreAway, StoreFull, VersionConflict

log = logging.getLogger("openvocab.labelsets")

# seconds between two notes of when a set was last used
TOUCH_EVERY: Final = 60.0


class Registry:
    """Asks the store for the current version at each use, so that others' changes are seen at once.

    While the store is away, what is known goes on from memory. What the store lost without a
    tombstone is published again.
    """

    def __init__(self, store: LabelSets, most: int) -> None:
        self._store = store
        self._most = most
        self._known: dict[str, Stored] = {}
        self._touched: dict[str, float] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def current(self, name: str) -> Stored:
        """The current version. Raises UnknownLabelset; StoreUnavailable if nothing is known."""
        known = self._known.get(name)
        try:
            head = await self._store.head(name)
            if head is None and known is not None:
                # no tombstone: the store lost it, and whoever knows it publishes it again
                log.warning("the store lost label set %s; it is published again", name)
                await self._store.restore(Record(name, known.version, known.body()))
                head = await self._store.head(name)
            if head is None or head.deleted:
                self._forget(name)
                raise unknown(name)
            if known is None or known.version != head.version:
                record = await self._store.get(name)
                if record is None:  # deleted between the two calls
                    self._forget(name)
                    raise unknown(name)
                return self._learn(record)
        except StoreAway:
            if known is None:
                raise _away() from None
        return known

    async def fresh(self, name: str) -> Stored | None:
        """What the store has now, for a change that must not start from memory."""
        try:
            await self._republish(name)
            record = await self._store.get(name)
        except StoreAway:
            raise _away() from None
        return None if record is None else self._learn(record)

    async def delete(self, name: str, version: int) -> None:
        """Leave a tombstone. Raises PreconditionFailed, StoreUnavailable."""
        try:
            await self._store.delete(name, version)
        except VersionConflict as conflict:
            raise _changed(name, conflict.current) from None
        except StoreAway:
            raise _away() from None
        self._forget(name)

    async def page(self, after: str, limit: int) -> Sequence[Stored]:
        """Up to `limit` sets with names greater than `after`, by name."""
        try:
            return [self._learn(record) for record in await self._store.page(after, limit)]
        except StoreAway:
            raise _away() from None

    async def recent(self) -> Sequence[str]:
        """All names, most recently used first. Raises StoreUnavailable."""
        try:
            return await self._store.recent()
        except StoreAway:
            raise _away() from None

    async def write(self, stored: Stored, expected: int | None) -> Stored:
        """Create (`expected` None) or replace a version; the result has its new number.

        Raises:
            LabelsetExists, PreconditionFailed, TooLarge, StoreUnavailable.
        """
        try:
            record = await self._store.write(stored.name, stored.body(), expected, self._most)
        except VersionConflict as conflict:
            if expected is None:
                detail = (
                    f"the label set {stored.name} exists; PUT /labelsets/{stored.name} replaces it"
                )
                raise LabelsetExists(detail, field="name", value=stored.name) from None
            raise _changed(stored.name, conflict.current) from None
        except StoreFull as full:
            detail = f"{full.limit} label sets are stored, the limit of max_labelsets; delete one"
            raise TooLarge(detail, field="name", limit=full.limit, value=full.limit + 1) from None
        except StoreAway:
            raise _away() from None
        written = replace(stored, version=record.version)
        self._known[stored.name] = written
        return written

    async def built(self, stored: Stored) -> None:
        """Note in the store that a version is complete and needs no older one to serve for it."""
        if self._known.get(stored.name) == stored and not stored.built:
            done = replace(stored, built=True, previous=None)
            self._known[stored.name] = done
            with contextlib.suppress(StoreAway):
                await self._store.amend(stored.name, stored.version, done.body())

    def touch(self, name: str) -> None:
        """Note, once a minute and without waiting, that a name is in use."""
        now = time.time()
        if now - self._touched.get(name, 0) > TOUCH_EVERY:
            self._touched[name] = now
            task = asyncio.get_running_loop().create_task(self._note_use(name, now))
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

    async def _republish(self, name: str) -> None:
        known = self._known.get(name)
        if known is not None and await self._store.head(name) is None:
            await self._store.restore(Record(name, known.version, known.body()))

    def _learn(self, record: Record) -> Stored:
        known = self._known.get(record.name)
        if known is not None and known.version == record.version and known.built:
            return known
        stored = from_body(record.name, record.version, record.body)
        self._known[record.name] = stored
        return stored

    def _forget(self, name: str) -> None:
        self._known.pop(name, None)


@dataclass(frozen=True, slots=True)
class Match:
    """If-Match and If-None-Match of a change: versions it expects, or whether the name exists."""

    versions: frozenset[int] | None = None
    exists: bool | None = None

    def check(self, name: str, current: Stored | None) -> None:
        """Nothing if the change may go on. Raises PreconditionFailed."""
        if self.exists is True and current is None:
            raise PreconditionFailed(f"there is no label set {name}", field="If-Match")
        if self.exists is False and current is not None:
            raise PreconditionFailed(f"the label set {name} exists", field="If-None-Match")
        if self.versions is not None and (current is None or current.version not in self.versions):
            raise _changed(name, None if current is None else current.version)


def unknown(name: str) -> UnknownLabelset:
    """The problem of a name that is in no store."""
    return UnknownLabelset(f"no label set is called {name}", field="labelset", value=name)


def _changed(name: str, current: int | None) -> PreconditionFailed:
    at = "it does not exist" if current is None else f"it is at version {current}"
    return PreconditionFailed(f"the label set {name} has changed: {at}", field="If-Match", value=at)


def _away() -> StoreUnavailable:
    detail = "the store of label sets is away; label sets that are known go on"
    return StoreUnavailable(detail, retry_after=1)
