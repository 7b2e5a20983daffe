"""Blend a label set's text rows with its example pictures. Knows neither HTTP nor what is written.

The vectors of pictures are in the cache of vectors, under the model's fingerprint; one that is not
there is made anew from the stored picture. So a changed model, an evicted vector and a restart are
one path.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from app.classify.embedding import ImageEmbedder
from app.classify.tenancy import own
from app.errors import Internal, Overloaded, Problem
from app.labelsets.definition import Example, Stored
from app.labelsets.preconditions import away
from app.labelsets.prototypes import Blend, Choice, around, blend, blended, means
from app.stores.protocols import PictureStore, StoreAway
from app.stores.vectors import TwoLevels
from app.telemetry.spans import Stages
from models.info import Floats

log = logging.getLogger("openvocab.labelsets")

# pictures that one build encodes at once: requests go first
AT_ONCE: Final = 4
PAUSE: Final = 0.1

# label sets whose figures are kept
KEPT: Final = 1_000


@dataclass(frozen=True, slots=True)
class Blended:
    """How a label set's examples are used; `lost` have neither vector nor picture any more."""

    choice: Choice
    lost: int


class Blending:
    """`embedder` makes the row of a picture; `scale` is what cosines are multiplied with."""

    def __init__(
        self,
        cache: TwoLevels,
        pictures: PictureStore,
        embedder: ImageEmbedder,
        fingerprint: str,
        scale: float,
    ) -> None:
        self._cache = cache
        self._pictures = pictures
        self._embedder = embedder
        self._fingerprint = fingerprint
        self._scale = scale
        self._found: OrderedDict[str, Blended] = OrderedDict()

    def found(self, stored: Stored) -> Blended | None:
        """How a version's examples are used; None before its rows were made here."""
        return self._found.get(stored.key)

    async def keep(self, vectors: Mapping[str, Floats]) -> None:
        """Keep the vectors of pictures, by the SHA-256 of their files."""
        keyed = {self._key(sha256): vector for sha256, vector in vectors.items()}
        for key, vector in keyed.items():
            self._cache.memory.put(key, vector)
        await self._cache.keep(keyed)

    async def known(self, stored: Stored, text: Floats) -> Floats | None:
        """The rows (C, D), if no picture has to be read for them; `text` (C, D) are unit rows."""
        examples = stored.definition.examples
        if not examples:
            return text
        vectors = await self._cached_rows(examples)
        return await self._blended(stored, text, vectors) if len(vectors) == len(examples) else None

    async def rows(self, stored: Stored, text: Floats) -> Floats:
        """The same, from stored pictures where need be. Raises StoreUnavailable."""
        examples = stored.definition.examples
        if not examples:
            return text
        vectors = await self._cached_rows(examples)
        missing = [example for example in examples if example.sha256 not in vectors]
        for start in range(0, len(missing), AT_ONCE):
            some = missing[start : start + AT_ONCE]
            embedded = await asyncio.gather(
                *(self._embed(stored.name, example) for example in some)
            )
            fresh = {e.sha256: v for e, v in zip(some, embedded, strict=True) if v is not None}
            await self.keep(fresh)
            vectors |= fresh
        return await self._blended(stored, text, vectors)

    async def _cached_rows(self, examples: Sequence[Example]) -> dict[str, Floats]:
        keys = {self._key(example.sha256): example.sha256 for example in examples}
        vectors = await self._cache.known(keys)
        return {keys[key]: vector for key, vector in vectors.items()}

    async def _embed(self, name: str, example: Example) -> Floats | None:
        """The vector of a stored picture; None where it is lost, or cannot be read any more."""
        try:
            data = await self._pictures.get(name, example.key, example.size)
        except StoreAway:
            raise away() from None
        if data is None or hashlib.sha256(data).hexdigest() != example.sha256:
            log.warning("label set %s: the picture of an example is lost", name)
            return None
        while True:
            try:
                return (await self._embedder.embed(data, Stages()))[1]
            except Overloaded:
                await asyncio.sleep(PAUSE)
            except Problem as problem:
                if problem.status >= Internal.status:
                    raise
                log.warning("label set %s: an example was rejected: %s", name, problem.code)
                return None

    async def _blended(self, stored: Stored, text: Floats, vectors: Mapping[str, Floats]) -> Floats:
        alternatives = stored.definition.alternatives
        if alternatives is None:
            return (await self._blend(stored, text, vectors)).rows
        middles = means(text, alternatives.starts)
        mixed = await self._blend(stored, middles, vectors)
        return around(mixed.rows, middles, text, alternatives.starts, mixed.choice.weight)

    async def _blend(self, stored: Stored, text: Floats, vectors: Mapping[str, Floats]) -> Blend:
        places = {label: place for place, label in enumerate(stored.definition.labels)}
        used = [e for e in stored.definition.examples if e.sha256 in vectors]
        owners = np.array([places[example.label] for example in used], np.int64)
        rows = np.stack([vectors[example.sha256] for example in used]) if used else text[:0]
        lost = len(stored.definition.examples) - len(used)
        known = self._found.get(stored.key)
        if known is not None and known.lost == lost:
            # chosen with the set's own templates; others of a request change nothing of it
            choice = known.choice
            as_before = await asyncio.to_thread(
                blended, text, rows, owners, choice.weight, choice.offset
            )
            return Blend(as_before, choice)
        mixed = await asyncio.to_thread(blend, text, rows, owners, self._scale)
        self._found[stored.key] = Blended(mixed.choice, lost)
        while len(self._found) > KEPT:
            self._found.popitem(last=False)
        return mixed

    def _key(self, sha256: str) -> str:
        return hashlib.sha256(f"{own(self._fingerprint)}\0image\0{sha256}".encode()).hexdigest()
