"""Examples of label sets: add pictures to labels, list and remove them. Knows nothing of HTTP.

A picture is written before the definition that names it, so that no definition names one that was
never there.
"""

import contextlib
import itertools
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Final

from app import errors
from app.classify.bulk import Item, Outcome, every_outcome
from app.classify.embedding import ImageEmbedder, digest
from app.errors import (
    ExampleElsewhere,
    Invalid,
    NotFound,
    Overloaded,
    Problem,
    StoreUnavailable,
    TooLarge,
)
from app.images.notes import Noticed, of_many
from app.labelsets.blending import Blended, Blending
from app.labelsets.definition import (
    Definition,
    Example,
    Stored,
    unreadable_problem,
    without_namespace,
)
from app.labelsets.preconditions import Match, away, overtaken
from app.labelsets.service import LabelSetService
from app.stores.protocols import PicturesFull, PictureStore, StoreAway
from app.telemetry.spans import Stages

LABEL: Final = "label"

# labels that an error offers in place of an unknown one, problems of a request that offer any, and
# how many characters are compared for that: those of the label times those of all that are known
NEAR: Final = 3
OFFERED: Final = 3
COMPARED: Final = 300_000


@dataclass(frozen=True, slots=True)
class StoredPicture:
    """A picture that was read; `key` is where it was stored, "" if it already was."""

    sha256: str
    width: int
    height: int
    size: int
    key: str
    noticed: tuple[Noticed, ...] = ()


def checked_label(label: str, known: Collection[str], *, offers: bool = True) -> str:
    """The label, if it is one of those. Raises Invalid, which offers near ones if they are few."""
    if label in known:
        return label
    if label.strip() in known:
        return label.strip()
    few = offers and len(label) * sum(map(len, known)) <= COMPARED
    near = get_close_matches(label, known, NEAR) if few else []
    offer = f"; near are {', '.join(map(repr, near))}" if near else ""
    detail = f"{errors.shown(label)} is not a label in this label set{offer}"
    raise Invalid(detail, field=LABEL, value=errors.excerpt(label))


def no_example(sha256: str) -> NotFound:
    """The problem of an id that no example has."""
    return NotFound("example not found", field="id", value=errors.excerpt(sha256))


def sorted_out(
    outcomes: Sequence[Outcome[StoredPicture]],
    claims: Callable[[int], str | Problem],
    definition: Definition,
) -> tuple[list[tuple[StoredPicture, str]], tuple[Outcome[StoredPicture], ...]]:
    """Pictures with their labels, and those that cannot be taken."""
    kept: list[tuple[StoredPicture, str]] = []
    failed: list[Outcome[StoredPicture]] = []
    known = dict.fromkeys(definition.labels)  # in their order, and looked up at once
    for outcome in outcomes:
        try:
            if isinstance(outcome.result, Problem):
                raise outcome.result
            label = claims(outcome.index)
            if isinstance(label, Problem):
                raise label
            offers = len(failed) < OFFERED
            kept.append((outcome.result, checked_label(label, known, offers=offers)))
        except Problem as problem:
            failed.append(replace(outcome, result=problem))
    return kept, tuple(failed)


def first_problem(failed: Sequence[Outcome[StoredPicture]]) -> Problem:
    problem = failed[0].result if failed else Invalid("no image was sent", field="image")
    assert isinstance(problem, Problem)
    return problem


def with_pictures(
    definition: Definition, kept: Sequence[tuple[StoredPicture, str]], name: str
) -> Definition:
    """The definition with these pictures. Raises Invalid, ExampleElsewhere, PreconditionFailed."""
    by_sha256 = {example.sha256: example for example in definition.examples}
    known = dict.fromkeys(definition.labels)
    for picture, label in kept:
        checked_label(label, known)
        there = by_sha256.get(picture.sha256)
        if there is not None and there.label != label:
            detail = f"the picture {picture.sha256[:12]}… is an example of {there.label!r} in "
            detail += f"{without_namespace(name)}; remove it there to make it one of {label!r}"
            raise ExampleElsewhere(detail, field=LABEL, value=there.label)
        if picture.key and (there is None or there.key not in {k.key for k, _ in kept}):
            by_sha256[picture.sha256] = Example(
                picture.sha256, label, picture.width, picture.height, picture.size, picture.key
            )
        elif there is None:
            raise overtaken(name)
    return replace(definition, examples=tuple(by_sha256.values()))


@dataclass(frozen=True, slots=True)
class ExampleLimits:
    """Pictures of one label set, their bytes, and the bytes of all pictures in a store."""

    count: int
    bytes: int
    all_bytes: int


@dataclass(frozen=True, slots=True)
class Added:
    """What became of pictures that were sent; `failed` ones were not taken.

    `warnings` are what had to be guessed about the others.
    """

    stored: Stored
    added: int
    unchanged: int
    failed: tuple[Outcome[StoredPicture], ...]
    warnings: list[str]


class FewShot:
    """`embedder` sees pictures, `labelsets` says which count, `pictures` keeps their bytes."""

    def __init__(
        self,
        embedder: ImageEmbedder,
        labelsets: LabelSetService,
        blending: Blending,
        pictures: PictureStore,
        limits: ExampleLimits,
    ) -> None:
        self._embedder = embedder
        self._labelsets = labelsets
        self._blending = blending
        self._pictures = pictures
        self._limits = limits

    def blended(self, stored: Stored) -> Blended | None:
        """How the examples of a version are used; None if there are none, or not yet."""
        return self._blending.found(stored) if stored.definition.examples else None

    async def current(self, name: str, match: Match) -> Stored:
        """The label set that is to be changed. Raises UnknownLabelset, PreconditionFailed."""
        stored = await self._labelsets.get(name)
        match.check(name, stored)
        if stored.unreadable:
            raise unreadable_problem(name)
        return stored

    async def add(
        self,
        current: Stored,
        match: Match,
        items: AsyncGenerator[Item, None],
        claims: Callable[[int], str | Problem],
    ) -> Added:
        """Add the items' pictures; `claims` knows an item's label once all items have been read.

        Where none can be taken, raises why not the first. Also raises what the items raise,
        TooLarge, ExampleElsewhere, PreconditionFailed, UnknownLabelset, StoreUnavailable.
        """
        name, written = current.name, list[str]()
        try:
            outcomes = await self._written(current, items, written)
            kept, failed = sorted_out(outcomes, claims, current.definition)
            if not kept:
                raise first_problem(failed)
            await self._check_still_there(name, written)
            count = 0

            def make(definition: Definition) -> Definition:
                nonlocal count
                changed = with_pictures(definition, kept, name)
                self._check(changed)
                count = len(changed.keys() - definition.keys())
                return changed

            stored = await self._labelsets.change(name, match, make)
        except Problem as problem:
            # it is unknown what a store that went away has written: then they are swept later
            if problem.status < Problem.status or isinstance(problem, Overloaded):
                await self._forget(name, written)
            raise
        await self._forget(name, set(written) - stored.definition.keys())
        lost = {outcome.index for outcome in failed}
        noticed = [
            (outcome.called, outcome.result.noticed)
            for outcome in outcomes
            if isinstance(outcome.result, StoredPicture) and outcome.index not in lost
        ]
        return Added(stored, count, len(kept) - count, failed, of_many(noticed))

    async def remove(
        self, name: str, match: Match, *, label: str | None = None, sha256: str | None = None
    ) -> tuple[Stored, int]:
        """Remove one example, those of a label, or all; and how many they were.

        Raises NotFound, Invalid, PreconditionFailed, UnknownLabelset, StoreUnavailable.
        """
        count = 0

        def make(definition: Definition) -> Definition:
            nonlocal count
            wanted_label = None if label is None else checked_label(label, definition.labels)
            left = tuple(
                example
                for example in definition.examples
                if (sha256 is not None and example.sha256 != sha256)
                or (wanted_label is not None and example.label != wanted_label)
            )
            count = len(definition.examples) - len(left)
            if sha256 is not None and not count:
                raise no_example(sha256)
            return replace(definition, examples=left)

        return await self._labelsets.change(name, match, make), count

    async def picture(self, name: str, sha256: str) -> bytes:
        """The file of an example. Raises NotFound, UnknownLabelset, StoreUnavailable."""
        stored = await self._labelsets.get(name)
        for example in stored.definition.examples:
            if example.sha256 == sha256:
                data = await self._read(name, example)
                if data is None:
                    detail = "the store has lost the picture; send it again"
                    raise NotFound(detail, field="id", value=sha256)
                return data
        raise no_example(sha256)

    async def _written(
        self, current: Stored, items: AsyncGenerator[Item, None], written: list[str]
    ) -> list[Outcome[StoredPicture]]:
        """Each item's picture embedded and written; a problem where that cannot be."""
        there = {example.sha256: example for example in current.definition.examples}
        room = self._limits.bytes - sum(example.size for example in there.values())
        numbers = itertools.count()
        # clocks are set back, and those of machines differ
        newest = 1 + max((int(example.key[:12], 16) for example in there.values()), default=-1)

        async def keep(image: bytes) -> StoredPicture:
            nonlocal room, newest
            # before anything that takes time: pictures begin in their order, and end in any
            newest = max(time.time_ns() // 1_000_000, newest)
            begun = f"{newest:012x}{next(numbers):06x}"
            picture, vector = await self._embedder.embed(image, Stages())
            await self._blending.keep({picture.sha256: vector})
            known, key = there.get(picture.sha256), ""
            # also one that the store has lost is written again
            if known is None or await self._read(current.name, known) is None:
                room -= len(image)
                if room < 0 or len(there) + len(written) >= self._limits.count:
                    raise self._too_many(len(there) + len(written) + 1, self._limits.bytes - room)
                key = f"{begun}{secrets.token_hex(5)}"
                written.append(key)
                await self._put(current.name, key, image)
            size = picture.width, picture.height, len(image)
            return StoredPicture(picture.sha256, *size, key, picture.noticed)

        return await every_outcome(items, keep)

    async def _put(self, name: str, key: str, image: bytes) -> None:
        try:
            await self._pictures.put(name, key, image, self._limits.all_bytes)
        except PicturesFull as full:
            detail = f"all pictures together would have {full.value} bytes; the limit of "
            detail += f"example_store_bytes is {full.limit}"
            raise TooLarge(detail, field="image", limit=full.limit, value=full.value) from None
        except StoreAway:
            raise away() from None

    async def _read(self, name: str, example: Example) -> bytes | None:
        """Its picture; None if the store lost or damaged it."""
        try:
            data = await self._pictures.get(name, example.key, example.size)
        except StoreAway:
            raise away() from None
        return data if data is not None and await digest(data) == example.sha256 else None

    async def _check_still_there(self, name: str, keys: Sequence[str]) -> None:
        """Nothing unless the store was cleaned up during an upload that took hours."""
        try:
            missing = await self._pictures.missing(name, keys)
        except StoreAway:
            raise away() from None
        if missing:
            detail = f"{len(missing)} pictures left the store during this upload; send them again"
            raise StoreUnavailable(detail, retry_after=1)

    async def _forget(self, name: str, keys: Iterable[str]) -> None:
        with contextlib.suppress(StoreAway):
            await self._pictures.delete(name, sorted(keys))

    def _check(self, definition: Definition) -> None:
        size = sum(example.size for example in definition.examples)
        if len(definition.examples) > self._limits.count or size > self._limits.bytes:
            raise self._too_many(len(definition.examples), size)

    def _too_many(self, count: int, size: int) -> TooLarge:
        if count > self._limits.count:
            detail = f"the label set would have {count} examples, the limit of max_examples is "
            detail += str(self._limits.count)
            return TooLarge(detail, field="image", limit=self._limits.count, value=count)
        detail = f"the label set's examples would have {size} bytes, the limit of "
        detail += f"max_example_bytes is {self._limits.bytes}; smaller pictures do as well"
        return TooLarge(detail, field="image", limit=self._limits.bytes, value=size)
