"""One vector for each label: an ensemble over prompts, computed once, then kept.

Knows neither images nor requests.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final

import numpy as np

from app.classify.concept import Block, Concept, blocks, ensemble_mean, keys_of, owners, split
from app.classify.tenancy import own
from app.classify.truncation import ROUNDS, Cut, TextTooLong, advised, cuts, few, together, without
from app.errors import Internal, Overloaded
from app.stores.lru import ByteLru
from app.stores.vectors import TwoLevels
from app.telemetry import spans
from models import PromptTooLong
from models.info import Floats

if TYPE_CHECKING:
    from models.info import AnyEncoder


log = logging.getLogger("openvocab.ensemble")


# texts that name nothing in particular: a label scored alone is compared with them
BACKGROUND: Final = ("something", "a thing", "an object")

# assembled matrices of labels that requests brought along, and of label sets in templates of theirs
LISTS_BYTES: Final = 64_000_000


# texts that were cut, whose cuts are remembered
MOST_CUT: Final = 1_000

# turns of the event loop until a caller that fails with a label has left: one to hear of it, one to
# go; the rest of a block is not encoded for nobody
TURNS_TO_LEAVE: Final = 2

# blocks of vectors on their way into the store, and how long the end of the process waits for them
MOST_KEEPING: Final = 16
KEEP_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Landed:
    vector: Floats
    encoded: bool


@dataclass(slots=True)
class _Flight:
    future: "asyncio.Future[_Landed]"
    waiting: int = 0
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class ClassVectors:
    """`rows` (C, D) float32 of unit length, `cached` of which needed no encoding."""

    rows: Floats
    cached: int


@dataclass(frozen=True, slots=True)
class Fitted:
    """`vectors` of `concepts` as the model reads them, and by their places what was `cut` of them.

    The rows of those that are `too_long` are zeros.
    """

    vectors: ClassVectors
    concepts: list[Concept]
    cut: dict[int, list[Cut]]
    too_long: dict[int, TextTooLong]

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """All that was cut, in the order of the concepts."""
        return tuple(cut for cuts in self.cut.values() for cut in cuts)

    def warnings(self) -> tuple[str, ...]:
        """The warnings about texts that were cut."""
        return few([cut.warning() for cut in self.cuts])


class Ensemble:
    """Class vectors by the published recipe, one computation per concept at a time.

    At most `max_pending` prompts wait to be encoded; what nobody waits for any more is dropped
    before it is encoded. `encoded` is told of each batch: its prompts, and the seconds it took.
    """

    def __init__(
        self,
        encoder: "AnyEncoder",
        cache: TwoLevels,
        max_pending: int,
        encoded: Callable[[int, float], None] = lambda _count, _seconds: None,
    ) -> None:
        self._encoder = encoder
        self._cache = cache
        self._max_pending = max_pending
        self._encoded = encoded
        self.computed = 0  # vectors
        self.pending = 0  # prompts that wait, but for those of label sets
        self._flights: dict[str, _Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept: set[asyncio.Task[None]] = set()
        self._cuts: dict[tuple[str, Concept], tuple[Concept, dict[str, TextTooLong]]] = {}
        self.model = encoder.info.name
        self.lists = ByteLru(min(LISTS_BYTES, cache.memory.max_bytes))

    @property
    def oldest(self) -> float | None:
        """When the vector that has been awaited longest was requested, by `time.monotonic()`."""
        return min((flight.since for flight in list(self._flights.values())), default=None)

    async def vectors(self, concepts: Sequence[Concept]) -> ClassVectors:
        """One row for each concept, in order.

        Raises:
            TextTooLong: a prompt has more tokens than the model reads; before the rest is done.
            Overloaded: too many prompts wait already.
        """
        return (await self._some(concepts, counted=True, alone=False))[0]

    async def fitted(
        self, concepts: Sequence[Concept], *, truncate: bool = False, counted: bool = True
    ) -> Fitted:
        """The same, where a text that is too long fails alone; `truncate`: it is cut until it fits.

        Not `counted` is what bounds itself, as builds do.

        Raises: Overloaded; TextTooLong for a template that is too long without any text.
        """
        fingerprint = own(self._encoder.info.fingerprint)
        fitting = list(concepts)
        problems: dict[int, dict[str, TextTooLong]] = {}
        if truncate and self._cuts:
            for place, concept in enumerate(concepts):
                if (cached := self._cuts.get((fingerprint, concept))) is not None:
                    fitting[place], problems[place] = cached
        for _ in range(ROUNDS):
            vectors, too_long = await self._some(fitting, counted=counted, alone=True)
            if not (truncate and too_long):
                break
            for place, problem in too_long.items():
                fitting[place] = without(fitting[place], problem)
                problems.setdefault(place, {}).setdefault(problem.text, problem)
        for place, of_texts in problems.items():
            self._cuts[fingerprint, concepts[place]] = fitting[place], of_texts
        while len(self._cuts) > MOST_CUT:
            del self._cuts[next(iter(self._cuts))]
        cut = {place: cuts(concepts[place], fitting[place], p) for place, p in problems.items()}
        return Fitted(vectors, fitting, cut, too_long)

    async def read(self, concepts: Sequence[Concept], *, truncate: bool) -> Fitted:
        """As `fitted`, where no text may be too long.

        Raises TextTooLong, which names all of them; Overloaded.
        """
        fitted = await self.fitted(concepts, truncate=truncate)
        if fitted.too_long:
            problem = together(list(fitted.too_long.values()))
            raise problem if truncate else advised(problem)
        return fitted

    async def _some(
        self, concepts: Sequence[Concept], *, counted: bool, alone: bool
    ) -> tuple[ClassVectors, dict[int, TextTooLong]]:
        """A row for each concept; `alone`: zeros for those that are too long, and why.

        Else the first of them is raised.
        """
        keys = keys_of(concepts, own(self._encoder.info.fingerprint))
        vectors = self._cache.in_memory(dict.fromkeys(keys))
        missing = {k: c for k, c in zip(keys, concepts, strict=True) if k not in vectors}
        encoded: set[str] = set()
        too_long: dict[str, TextTooLong] = {}
        if missing:
            for key, landed in (await self._missing(missing, counted, alone)).items():
                if isinstance(landed, TextTooLong):
                    too_long[key] = landed
                    vectors[key] = np.zeros(self._encoder.info.embedding_width, np.float32)
                    continue
                vectors[key] = landed.vector
                if landed.encoded:
                    encoded.add(key)
        cached = sum(key not in encoded and key not in too_long for key in keys)
        rows = np.stack([vectors[key] for key in keys])
        problems = {place: too_long[key] for place, key in enumerate(keys) if key in too_long}
        return ClassVectors(rows, cached), problems

    async def matrix(self, labels: tuple[str, ...], templates: tuple[str, ...]) -> ClassVectors:
        """Of labels that are sent along, each one text; such lists come again and again.

        Raises what `vectors` raises.
        """
        name = (templates, labels)
        rows = self.list_of(name)
        if rows is not None:
            return ClassVectors(rows, len(labels))
        vectors = await self.vectors([Concept((label,), templates) for label in labels])
        self.keep_list(name, vectors.rows)
        return vectors

    def list_of(self, name: object) -> Floats | None:
        """The rows that are kept by a name, which says all that they are made of."""
        return self.lists.get(self._list_key(name))

    def keep_list(self, name: object, rows: Floats) -> None:
        """Keep the rows of a whole list, as it comes again and again."""
        self.lists.put(self._list_key(name), rows)

    def _list_key(self, name: object) -> str:
        named = repr((own(self._encoder.info.fingerprint), name))
        return hashlib.sha256(named.encode()).hexdigest()

    async def background(self, templates: tuple[str, ...]) -> Floats:
        """The unit row (D,) of a text that names no thing in particular, in these templates."""
        vectors = await self.vectors([Concept(BACKGROUND, templates)])
        return np.asarray(vectors.rows[0], np.float32)

    async def known(self, concepts: Sequence[Concept]) -> Floats | None:
        """The rows (C, D) if memory and store have every one of them; nothing is encoded."""
        keys = keys_of(concepts, own(self._encoder.info.fingerprint))
        vectors = await self._cache.known(dict.fromkeys(keys))
        if any(key not in vectors for key in keys):
            return None
        return np.stack([vectors[key] for key in keys])

    async def close(self) -> None:
        """Cancel running work."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._kept:
            _, late = await asyncio.wait(self._kept, timeout=KEEP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _missing(
        self, concepts: dict[str, Concept], counted: bool, alone: bool
    ) -> dict[str, "_Landed | TextTooLong"]:
        mine = {key: concept for key, concept in concepts.items() if key not in self._flights}
        self._take_off(mine, counted)
        flights = {key: self._flights[key] for key in concepts}
        for flight in flights.values():
            flight.waiting += 1
        try:
            # wait, unlike gather, leaves the futures alone when this caller is cancelled
            waiting = {flight.future for flight in flights.values()}
            while waiting:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
                for future in [flight.future for flight in flights.values()]:
                    if future.done() and not (alone and _is_too_long(future)):
                        future.result()  # the first failure, if there is one
        finally:
            for flight in flights.values():
                flight.waiting -= 1
        return {key: _outcome(flight.future) for key, flight in flights.items()}

    def _take_off(self, concepts: dict[str, Concept], counted: bool) -> None:
        if not concepts:
            return
        prompts = sum(concept.count for concept in concepts.values()) if counted else 0
        if counted and self.pending and self.pending + prompts > self._max_pending:
            detail = (
                f"{self.pending} prompts are already waiting to be encoded (the limit, "
                f"{self._max_pending}); try again later"
            )
            raise Overloaded(
                detail, limit=self._max_pending, value=self.pending + prompts, retry_after=5
            )
        self.pending += prompts
        loop = asyncio.get_running_loop()
        for key in concepts:
            self._flights[key] = _Flight(loop.create_future())
        task = loop.create_task(self._build(concepts, prompts, counted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _build(self, concepts: dict[str, Concept], prompts: int, counted: bool) -> None:
        flights = {key: self._flights[key] for key in concepts}
        try:
            for key, vector in (await self._cache.fetch(list(concepts))).items():
                self._land(key, _Landed(vector, encoded=False))
            missing = {key: c for key, c in concepts.items() if key in self._flights}
            left = missing
            while left:
                # what others wait for as well goes first: they did not ask for all the rest
                shared = {key: c for key, c in left.items() if self._flights[key].waiting > 1}
                block = next(blocks(shared or left))
                left = {key: c for key, c in left.items() if key not in block}
                await self._build_block(self._still_awaited(block), missing, counted)
        except BaseException as error:
            for key, flight in flights.items():
                if self._flights.get(key) is flight:  # not one that began after ours was dropped
                    self._land(key, error)
            if not isinstance(error, Exception):
                raise
        finally:
            self.pending -= prompts

    def _still_awaited(self, block: Block) -> Block:
        """The part of a block that is still awaited; the rest is dropped."""
        for key in [key for key in block if not self._flights[key].waiting]:
            self._flights.pop(key).future.cancel()
            del block[key]
        return block

    async def _build_block(self, block: Block, concepts: dict[str, Concept], counted: bool) -> None:
        while block:
            prompts = list(chain.from_iterable(block.values()))
            begun = time.perf_counter()
            try:
                with spans.span("encode texts", prompts=len(prompts), model=self.model):
                    rows = await asyncio.wrap_future(self._encoder.submit_texts(prompts))
            except PromptTooLong as error:
                # the labels at fault fail alone: others may wait for their neighbours
                of_prompts = owners(block)
                for prompt in error.all:
                    guilty, index = of_prompts[prompt.index]
                    if block.pop(guilty, None) is not None:
                        text = concepts[guilty].text_of(index)
                        problem = TextTooLong.of(text, prompt.prompt, prompt.tokens, prompt.limit)
                        self._land(guilty, problem)
                for _ in range(TURNS_TO_LEAVE):
                    await asyncio.sleep(0)
                self._still_awaited(block)
                continue
            self._encoded(len(prompts), time.perf_counter() - begun)
            self.computed += len(block)
            vectors = {
                key: ensemble_mean(part)
                for key, part in zip(block, split(rows, block), strict=True)
            }
            for key in [key for key, vector in vectors.items() if not np.isfinite(vector).all()]:
                log.error("the model returned numbers that are not finite for a label")
                self._land(key, Internal("the model returned numbers that are not finite"))
                del vectors[key]
            for key, vector in vectors.items():
                self._cache.memory.put(key, vector)
                self._land(key, _Landed(vector, encoded=True))
            await self._keep(vectors, counted)
            return

    async def _keep(self, vectors: dict[str, Floats], counted: bool) -> None:
        """Write to the store: a build waits for it, a request does not."""
        if not counted:
            await self._cache.keep(vectors)
        elif len(self._kept) < MOST_KEEPING:
            task = asyncio.get_running_loop().create_task(self._cache.keep(vectors))
            self._kept.add(task)
            task.add_done_callback(self._kept.discard)
        else:
            log.info("the store is busy; %d vectors are kept in memory only", len(vectors))

    def _land(self, key: str, outcome: "_Landed | BaseException") -> None:
        flight = self._flights.pop(key, None)
        if flight is None or flight.future.done():
            return
        if isinstance(outcome, BaseException):
            flight.future.set_exception(outcome)
            flight.future.exception()  # counts as seen, even if every caller has left
        else:
            flight.future.set_result(outcome)


def _is_too_long(future: "asyncio.Future[_Landed]") -> bool:
    return isinstance(future.exception(), TextTooLong)


def _outcome(future: "asyncio.Future[_Landed]") -> _Landed | TextTooLong:
    error = future.exception()
    return error if isinstance(error, TextTooLong) else future.result()
