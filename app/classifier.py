"""The whole data flow: an image and labels in, ranked labels out. Knows nothing of HTTP."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from app import explain, labels, namespaces, scoring
from app.batching import Batcher
from app.concepts import Concept
from app.ensemble import Ensemble
from app.errors import TooLarge
from app.image_cache import Embedded, ImageCache, digest
from app.images import Decoder
from app.labelsets import LabelSetService
from app.metrics import Stages
from app.templates import Asked, TemplateSets
from models import EncoderInfo

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

SHOWN_BY_DEFAULT: Final = 5

# labels that get a heat map, and covered copies of a picture that are encoded at once for them
MOST_EXPLAINED: Final = 10
EXPLAINED_AT_ONCE: Final = 12

# labels that one warning names
WARNED: Final = 5

# texts that name no thing in particular: what a label is held against when it is scored alone
BACKGROUND: Final = ("something", "a thing", "an object")


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked of one image: `labels`, or those of a `labelset` in the caller's `namespace`.

    The request waits `patience` seconds for that one's first build.
    """

    labels: tuple[str, ...]
    labelset: str | None = None
    templates: Asked = None
    top_k: int | None = None
    threshold: float | None = None
    multi_label: bool = False
    explain: bool = False
    namespace: str = ""
    patience: float = 0.0


@dataclass(frozen=True, slots=True)
class Prediction:
    """A label with its score in 0..1 and the cosine similarity behind it.

    `heatmap` is where the image agrees with it (app/explain.py), if that was asked.
    """

    label: str
    score: float
    similarity: float
    heatmap: str | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """The image that was classified; `cached` where its embedding was known."""

    width: int
    height: int
    sha256: str
    cached: bool


@dataclass(frozen=True, slots=True)
class Classes:
    """What an image is compared with: `rows` (C, D), and `background` (D,) where it is needed."""

    labels: tuple[str, ...]
    rows: Floats
    background: Floats | None
    cached: int
    templates: str
    version: int | None


@dataclass(frozen=True, slots=True)
class Classification:
    """The answer: predictions best first, and what they were made with."""

    model: str
    templates: str
    labelset: str | None
    labelset_version: int | None
    cached: int
    image: Image
    predictions: tuple[Prediction, ...]
    abstained: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Classifier:
    """Decode, batch, encode, ensemble and score, each in its own module, here in one view.

    A request may make `max_prompts` prompts of a label set in other templates than its own.
    """

    info: EncoderInfo
    decoder: Decoder
    batcher: Batcher[Pixels, Floats]
    images: ImageCache
    ensemble: Ensemble
    labelsets: LabelSetService
    templates: TemplateSets
    max_prompts: int

    async def classify(self, image: bytes, query: Query, stages: Stages) -> Classification:
        """Score every label of the query against the image.

        Raises: what decoding, batching, the ensemble and the label sets raise.
        """
        try:
            async with asyncio.TaskGroup() as both:
                embedding = both.create_task(self.embed(image, stages))
                text = both.create_task(self._classes(query, stages))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        (seen, vector), classes = embedding.result(), text.result()
        with stages.stage("score"):
            cosines = scoring.similarities(vector, classes.rows)
            scores = self._scores(vector, cosines, classes)
            order = scoring.rank(scores, query.top_k or SHOWN_BY_DEFAULT, query.threshold)
        maps: dict[int, str] = {}
        if query.explain:
            with stages.stage("explain"):
                maps = await self._explain(image, classes.rows, cosines, order[:MOST_EXPLAINED])
        return Classification(
            model=self.info.name,
            templates=classes.templates,
            labelset=query.labelset,
            labelset_version=classes.version,
            cached=classes.cached,
            image=seen,
            predictions=tuple(
                Prediction(classes.labels[i], float(scores[i]), float(cosines[i]), maps.get(i))
                for i in order
            ),
            abstained=not order,
            # of a label set, which may be large, only what is answered
            warnings=self._warnings(query.labels or [classes.labels[i] for i in order]),
        )

    async def _explain(
        self, image: bytes, rows: Floats, cosines: Floats, chosen: Sequence[int]
    ) -> dict[int, str]:
        """A heat map for each chosen label, by its number."""
        if not chosen:
            return {}
        decoded = await self.decoder.decode(image)
        found: list[Floats] = []
        copies = await asyncio.to_thread(explain.covered, decoded.pixels)
        # some at a time: other requests want their turn
        for start in range(0, len(copies), EXPLAINED_AT_ONCE):
            some = copies[start : start + EXPLAINED_AT_ONCE]
            ran = await asyncio.gather(*(self.batcher.submit(copy) for copy in some))
            found += [one.value for one in ran]
        wanted = list(chosen)
        without = np.stack([scoring.similarities(vector, rows[wanted]) for vector in found])
        maps = explain.heat(cosines[wanted], without)
        shape = (decoded.width, decoded.height, self.info.image)
        return {i: explain.png(cells, *shape) for i, cells in zip(wanted, maps, strict=True)}

    async def prepare(self, query: Query) -> None:
        """Make sure that labels and templates can be answered for, before many images are."""
        await self._classes(query, Stages())

    async def embed(self, data: bytes, stages: Stages) -> tuple[Image, Floats]:
        """An image file to its unit row (D,) float32; raises what decoding and batching raise."""
        sha256 = await digest(data)
        known = self.images.get(sha256)
        if known is not None:
            return Image(known.width, known.height, sha256, cached=True), known.vector
        with stages.stage("decode"):
            decoded = await self.decoder.decode(data)
        ran = await self.batcher.submit(decoded.pixels)
        stages.add("queue", ran.waited)
        stages.add("encode", ran.ran)
        self.images.put(sha256, Embedded(ran.value, decoded.width, decoded.height))
        return Image(decoded.width, decoded.height, sha256, cached=False), ran.value

    async def _classes(self, query: Query, stages: Stages) -> Classes:
        with stages.stage("text"):
            if query.labelset is None:
                return await self._asked_for(query)
            return await self._registered(query, query.labelset)

    async def _asked_for(self, query: Query) -> Classes:
        name, templates = self.templates.resolve(query.templates)
        found = await self.ensemble.matrix(query.labels, templates)
        background = await self._background(query, query.labels, templates)
        return Classes(query.labels, found.rows, background, found.cached, name, None)

    async def _registered(self, query: Query, labelset: str) -> Classes:
        serving = await self.labelsets.resolve(
            namespaces.inside(query.namespace, labelset), query.patience
        )
        definition = serving.stored.definition
        name, templates = self.templates.resolve(query.templates or definition.templates)
        rows, cached = serving.rows, len(serving.rows)
        if query.templates is not None:
            concepts = definition.concepts(templates)
            prompts = sum(concept.count for concept in concepts)
            if prompts > self.max_prompts:
                detail = f"{labelset} in these templates makes {prompts} prompts; register it so"
                raise TooLarge(detail, field="templates", limit=self.max_prompts, value=prompts)
            found = await self.ensemble.vectors(concepts)
            rows, cached = found.rows, found.cached
        background = await self._background(query, definition.labels, templates)
        return Classes(definition.labels, rows, background, cached, name, serving.stored.version)

    async def _background(
        self, query: Query, asked: Sequence[str], templates: tuple[str, ...]
    ) -> Floats | None:
        if self.info.bias is not None or not (query.multi_label or len(asked) == 1):
            return None
        found = await self.ensemble.vectors([Concept(BACKGROUND, templates)])
        return np.asarray(found.rows[0], np.float32)

    def _scores(self, vector: Floats, cosines: Floats, classes: Classes) -> Floats:
        if self.info.bias is not None:
            return scoring.sigmoid(cosines, self.info.scale, self.info.bias)
        if classes.background is not None:
            background = float(vector @ classes.background)
            return scoring.against_background(cosines, background, self.info.scale)
        return scoring.softmax(cosines, self.info.scale)

    def _warnings(self, asked: Sequence[str]) -> tuple[str, ...]:
        unread = labels.unread(asked, self.info.provenance.languages)
        if not unread:
            return ()
        named = ", ".join(repr(label) for label in unread[:WARNED])
        more = f" and {len(unread) - WARNED} more" if len(unread) > WARNED else ""
        text = f"{self.info.name} was not trained to read the script of {named}{more}"
        return (f"{text}; such scores mean little",)
