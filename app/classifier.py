"""The whole data flow: an image and labels in, ranked labels out. Knows nothing of HTTP."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from app import labels, scoring
from app.batching import Batcher
from app.ensemble import ClassVectors, Concept, Ensemble
from app.errors import UnknownTemplates
from app.images import Decoded, Decoder
from app.metrics import Stages
from prompts import TemplateSet

if TYPE_CHECKING:
    from models.encoder import Encoder

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

OWN_TEMPLATES: Final = "custom"
SHOWN_BY_DEFAULT: Final = 5

# texts that name no thing in particular: what a label is held against when it is scored alone
BACKGROUND: Final = ("something", "a thing", "an object")


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked of one image; `templates` is a set's name, own templates, or the default."""

    labels: tuple[str, ...]
    templates: str | tuple[str, ...] | None = None
    top_k: int | None = None
    threshold: float | None = None
    multi_label: bool = False


@dataclass(frozen=True, slots=True)
class Prediction:
    """A label with its score in 0..1 and the cosine similarity behind it."""

    label: str
    score: float
    similarity: float


@dataclass(frozen=True, slots=True)
class Classification:
    """The answer: predictions best first, and what they were made with."""

    model: str
    templates: str
    cached: int
    image: Decoded
    predictions: tuple[Prediction, ...]
    abstained: bool
    warnings: tuple[str, ...]


class Classifier:
    """Decode, batch, encode, ensemble and score, each in its own module, here in one view."""

    def __init__(
        self,
        encoder: "Encoder",
        decoder: Decoder,
        batcher: Batcher[Pixels, Floats],
        ensemble: Ensemble,
        template_sets: Mapping[str, TemplateSet],
    ) -> None:
        self._info = encoder.info
        self._decoder = decoder
        self._batcher = batcher
        self._ensemble = ensemble
        self._template_sets = template_sets

    async def classify(self, image: bytes, query: Query, stages: Stages) -> Classification:
        """Score every label of the query against the image.

        Raises: what decoding, batching and the ensemble raise; UnknownTemplates.
        """
        name, templates = self._templates(query.templates)
        try:
            async with asyncio.TaskGroup() as both:
                embedding = both.create_task(self._embed(image, stages))
                classes = both.create_task(self._classes(query, templates, stages))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        decoded, vector = embedding.result()
        with stages.stage("score"):
            cosines, scores = self._score(vector, classes.result().rows, query)
            order = scoring.rank(scores, query.top_k or SHOWN_BY_DEFAULT, query.threshold)
        return Classification(
            model=self._info.name,
            templates=name,
            cached=classes.result().cached,
            image=decoded,
            predictions=tuple(
                Prediction(query.labels[i], float(scores[i]), float(cosines[i])) for i in order
            ),
            abstained=not order,
            warnings=self._warnings(query.labels),
        )

    async def _embed(self, image: bytes, stages: Stages) -> tuple[Decoded, Floats]:
        with stages.stage("decode"):
            decoded = await self._decoder.decode(image)
        ran = await self._batcher.submit(decoded.pixels)
        stages.add("queue", ran.waited)
        stages.add("encode", ran.ran)
        return decoded, ran.value

    async def _classes(
        self, query: Query, templates: tuple[str, ...], stages: Stages
    ) -> ClassVectors:
        concepts = [Concept((label,), templates) for label in query.labels]
        with stages.stage("text"):
            classes = await self._ensemble.vectors(concepts)
            if not self._needs_background(query):
                return classes
            background = await self._ensemble.vectors([Concept(BACKGROUND, templates)])
        return ClassVectors(np.vstack([classes.rows, background.rows]), classes.cached)

    def _needs_background(self, query: Query) -> bool:
        return self._info.bias is None and (query.multi_label or len(query.labels) == 1)

    def _score(self, vector: Floats, rows: Floats, query: Query) -> tuple[Floats, Floats]:
        cosines, scale = scoring.similarities(vector, rows), self._info.scale
        if self._info.bias is not None:
            return cosines, scoring.sigmoid(cosines, scale, self._info.bias)
        if self._needs_background(query):
            cosines, background = cosines[:-1], float(cosines[-1])
            return cosines, scoring.against_background(cosines, background, scale)
        return cosines, scoring.softmax(cosines, scale)

    def _templates(self, asked: str | tuple[str, ...] | None) -> tuple[str, tuple[str, ...]]:
        if isinstance(asked, tuple):
            return OWN_TEMPLATES, asked
        name = asked or self._info.provenance.templates
        found = self._template_sets.get(name)
        if found is None:
            detail = f"no template set is called {labels.shown(name)}; GET /templates lists them"
            raise UnknownTemplates(detail, field="templates", value=labels.excerpt(name))
        return name, found.templates

    def _warnings(self, asked: Sequence[str]) -> tuple[str, ...]:
        unread = labels.unread(asked, self._info.provenance.languages)
        return tuple(
            f"label {label!r} is in a script that {self._info.name} was not trained to read; "
            "its score means little"
            for label in unread
        )
