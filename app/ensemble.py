"""One vector for each label: an ensemble over prompts, computed once, kept in memory.

Knows neither images nor requests.
"""

import asyncio
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from app.errors import TooLarge
from app.labels import shown
from app.stores.lru import ByteLru
from models import PromptTooLong
from prompts import expand

if TYPE_CHECKING:
    from models.encoder import Encoder

Floats = npt.NDArray[np.float32]

# prompts handed to the encoder at once: bounds memory, not the batch of a forward pass
PROMPTS_PER_BLOCK: Final = 4096
KEYS_KEPT: Final = 65_536


@dataclass(frozen=True, slots=True)
class Concept:
    """What one vector stands for: the texts of a label (itself, synonyms) in every template."""

    texts: tuple[str, ...]
    templates: tuple[str, ...]

    def prompts(self) -> tuple[str, ...]:
        """All prompts, text by text."""
        return tuple(chain.from_iterable(expand(self.templates, text) for text in self.texts))


@dataclass(frozen=True, slots=True)
class ClassVectors:
    """`rows` (C, D) float32 of unit length, `cached` of which needed no encoding."""

    rows: Floats
    cached: int


class Ensemble:
    """Class vectors by the published recipe, one computation per concept at a time."""

    def __init__(self, encoder: "Encoder", cache: ByteLru) -> None:
        self._encoder = encoder
        self._cache = cache
        self._flights: dict[str, asyncio.Future[Floats]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._key = lru_cache(KEYS_KEPT)(self._digest)

    async def vectors(self, concepts: Sequence[Concept]) -> ClassVectors:
        """One row for each concept, in order.

        A caller that is cancelled leaves the computation running for the others and for the cache.

        Raises:
            TooLarge: a prompt has more tokens than the model reads.
        """
        keys = [self._key(concept) for concept in concepts]
        found: dict[str, Floats] = {}
        for key in dict.fromkeys(keys):
            vector = self._cache.get(key)
            if vector is not None:
                found[key] = vector
        cached = sum(key in found for key in keys)
        if cached < len(keys):
            found |= await self._missing(
                {k: c for k, c in zip(keys, concepts, strict=True) if k not in found}
            )
        return ClassVectors(np.stack([found[key] for key in keys]), cached)

    async def _missing(self, concepts: dict[str, Concept]) -> dict[str, Floats]:
        loop = asyncio.get_running_loop()
        mine = {key: concept for key, concept in concepts.items() if key not in self._flights}
        for key in mine:
            self._flights[key] = loop.create_future()
        flights = {key: self._flights[key] for key in concepts}
        if mine:
            task = loop.create_task(self._build(mine))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        # wait, unlike gather, leaves the futures alone when this caller is cancelled
        await asyncio.wait(flights.values())
        return {key: flight.result() for key, flight in flights.items()}

    async def _build(self, concepts: dict[str, Concept]) -> None:
        try:
            for block in _blocks(concepts):
                await self._build_block(block)
        except BaseException as error:
            for key in concepts:
                self._land(key, error)
            if not isinstance(error, Exception):
                raise

    async def _build_block(self, block: dict[str, tuple[str, ...]]) -> None:
        while block:
            prompts = list(chain.from_iterable(block.values()))
            try:
                rows = await asyncio.wrap_future(self._encoder.submit_texts(prompts))
            except PromptTooLong as error:
                # the label at fault fails alone: others may wait for its neighbours
                guilty = _owner(block, error.index)
                self._land(guilty, _too_long(error))
                del block[guilty]
                continue
            for key, part in zip(block, _split(rows, block), strict=True):
                vector = ensemble_mean(part)
                self._cache.put(key, vector)
                self._land(key, vector)
            return

    def _land(self, key: str, outcome: Floats | BaseException) -> None:
        flight = self._flights.pop(key, None)
        if flight is None or flight.done():
            return
        if isinstance(outcome, BaseException):
            flight.set_exception(outcome)
            flight.exception()  # counts as seen, even if every caller has left
        else:
            flight.set_result(outcome)

    def _digest(self, concept: Concept) -> str:
        # fingerprint, templates and texts decide every prompt and every vector, so neither a
        # changed model nor a changed template can be served an old one
        named = [
            self._encoder.info.fingerprint,
            _templates_digest(concept.templates),
            concept.texts,
        ]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def ensemble_mean(rows: Floats) -> Floats:
    """Unit rows (P, D) of one label's prompts -> its vector (D,): their mean, of unit length.

    Radford et al. 2021, section 3.1.4: the ensemble is over the embeddings, not the probabilities.
    """
    mean = rows.mean(axis=0, dtype=np.float32)
    return np.asarray(mean / np.linalg.norm(mean), np.float32)


@lru_cache(1024)
def _templates_digest(templates: tuple[str, ...]) -> str:
    return hashlib.sha256(json.dumps(templates).encode()).hexdigest()


def _blocks(concepts: dict[str, Concept]) -> Iterator[dict[str, tuple[str, ...]]]:
    block: dict[str, tuple[str, ...]] = {}
    held = 0
    for key, concept in concepts.items():
        prompts = concept.prompts()
        if block and held + len(prompts) > PROMPTS_PER_BLOCK:
            yield block
            block, held = {}, 0
        block[key] = prompts
        held += len(prompts)
    yield block


def _split(rows: Floats, block: dict[str, tuple[str, ...]]) -> list[Any]:
    ends = np.cumsum([len(prompts) for prompts in block.values()])[:-1]
    return list(np.split(rows, ends))


def _owner(block: dict[str, tuple[str, ...]], index: int) -> str:
    for key, prompts in block.items():
        if index < len(prompts):
            return key
        index -= len(prompts)
    raise IndexError("the encoder named a prompt that it was not given. This is a bug.")


def _too_long(error: PromptTooLong) -> TooLarge:
    detail = (
        f"the prompt {shown(error.prompt)} has {error.tokens} tokens, the model reads {error.limit}"
    )
    return TooLarge(detail, field="labels", limit=error.limit, value=error.tokens)
