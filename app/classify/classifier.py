"""The whole data flow: an image and labels in, ranked labels out. Knows nothing of HTTP."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from app.classify import heatmap, labels, scoring
from app.classify.batching import Batcher
from app.classify.concept import Concept
from app.classify.embedding import Embedded, ImageCache, digest
from app.classify.ensemble import Ensemble
from app.classify.query import Classes, Classification, Image, Prediction, Query
from app.classify.scoring import Decision, Learned, Scale, Wanted, decide
from app.classify.templates import Asked, TemplateSets
from app.errors import TooLarge
from app.images.decode import Decoder
from app.labelsets import definition
from app.labelsets.calibration.validity import Calibrations
from app.labelsets.service import LabelSetService
from app.telemetry.spans import Stages
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
    calibrations: Calibrations = field(init=False)

    def __post_init__(self) -> None:
        known = Calibrations(self.info.fingerprint, self.templates)
        object.__setattr__(self, "calibrations", known)

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
            decision = self._decide(vector, cosines, classes, query)
        maps: dict[int, str] = {}
        if query.explain:
            with stages.stage("explain"):
                chosen = decision.order[:MOST_EXPLAINED]
                maps = await self._explain(image, classes.rows, cosines, chosen)

        def predictions(places: Sequence[int]) -> tuple[Prediction, ...]:
            scores = decision.scores
            return tuple(
                Prediction(classes.labels[i], float(scores[i]), float(cosines[i]), maps.get(i))
                for i in places
            )

        answered, withheld = predictions(decision.order), predictions(decision.withheld)
        shown = [one.label for one in answered or withheld]
        return Classification(
            model=self.info.name,
            templates=classes.templates,
            labelset=query.labelset,
            labelset_version=classes.version,
            cached=classes.cached,
            image=seen,
            predictions=answered,
            abstained=decision.reason is not None,
            # of a label set, which may be large, only what is answered
            warnings=self._warnings(query.labels or shown, classes),
            calibrated=classes.learned is not None,
            reason=decision.reason,
            withheld=withheld,
        )

    async def _explain(
        self, image: bytes, rows: Floats, cosines: Floats, chosen: Sequence[int]
    ) -> dict[int, str]:
        """A heat map for each chosen label, by its number."""
        if not chosen:
            return {}
        decoded = await self.decoder.decode(image)
        found: list[Floats] = []
        copies = await asyncio.to_thread(heatmap.covered, decoded.pixels)
        # some at a time: other requests want their turn
        for start in range(0, len(copies), EXPLAINED_AT_ONCE):
            some = copies[start : start + EXPLAINED_AT_ONCE]
            ran = await asyncio.gather(*(self.batcher.submit(copy) for copy in some))
            found += [one.value for one in ran]
        wanted = list(chosen)
        without = np.stack([scoring.similarities(vector, rows[wanted]) for vector in found])
        maps = heatmap.heat(cosines[wanted], without)
        shape = (decoded.width, decoded.height, self.info.image)
        return {i: heatmap.png(cells, *shape) for i, cells in zip(wanted, maps, strict=True)}

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
        stages.ran(ran.waited, ran.ran, ran.size, ran.span)
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
            definition.in_namespace(query.namespace, labelset), query.patience
        )
        stored = serving.stored.definition
        name, templates = self.templates.resolve(query.templates or stored.templates)
        rows, cached = serving.rows, len(serving.rows)
        if query.templates is not None:
            concepts = stored.concepts(templates)
            prompts = sum(concept.count for concept in concepts)
            if prompts > self.max_prompts:
                detail = f"{labelset} in these templates makes {prompts} prompts; register it so"
                raise TooLarge(detail, field="templates", limit=self.max_prompts, value=prompts)
            found = await self.ensemble.vectors(concepts)
            rows = await self.labelsets.blending.rows(serving.stored, found.rows)
            cached = found.cached
        own = self.templates.resolve(stored.templates)[1]
        learned = self.calibrations.learned(serving.stored) if templates == own else None
        warning = self.calibrations.stale(serving.stored)
        if stored.calibration is not None and templates != own:
            warning = "it was fitted with the label set's own templates"
        background = await self._background(query, stored.labels, templates, learned)
        version = serving.stored.version
        return Classes(stored.labels, rows, background, cached, name, version, learned, warning)

    async def _background(
        self,
        query: Query,
        asked: Sequence[str],
        templates: tuple[str, ...],
        learned: Learned | None = None,
    ) -> Floats | None:
        alone = self.info.bias is None and (query.multi_label or len(asked) == 1)
        if not alone and (learned is not None or not query.abstain):
            return None
        return await self.background(templates)

    async def background(self, asked: Asked) -> Floats:
        """The unit row (D,) of a text that names no thing in particular, in these templates."""
        concept = Concept(BACKGROUND, self.templates.resolve(asked)[1])
        found = await self.ensemble.vectors([concept])
        return np.asarray(found.rows[0], np.float32)

    def _decide(self, vector: Floats, cosines: Floats, classes: Classes, query: Query) -> Decision:
        background = None if classes.background is None else float(vector @ classes.background)
        alone = query.multi_label or len(classes.labels) == 1
        top_k = query.top_k or SHOWN_BY_DEFAULT
        wanted = Wanted(top_k, query.threshold, alone, query.abstain)
        model = Scale(self.info.scale, self.info.bias)
        return decide(cosines, background, model, classes.learned, wanted)

    def _warnings(self, asked: Sequence[str], classes: Classes) -> tuple[str, ...]:
        found = [f"the calibration is not used: {classes.warning}"] if classes.warning else []
        unread = labels.unread(asked, self.info.provenance.languages)
        if unread:
            named = ", ".join(repr(label) for label in unread[:WARNED])
            more = f" and {len(unread) - WARNED} more" if len(unread) > WARNED else ""
            text = f"{self.info.name} was not trained to read the script of {named}{more}"
            found.append(f"{text}; such scores mean little")
        return tuple(found)
