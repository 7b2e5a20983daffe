"""Calibrate a label set: from labelled images to what is stored. Knows nothing of HTTP."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from app.classify.bulk import Item, Outcome, every_outcome
from app.classify.embedding import ImageEmbedder
from app.classify.ensemble import Ensemble
from app.classify.query import Image
from app.errors import Invalid, LabelsetBuilding, Problem, TooLarge
from app.images.notes import of_many
from app.labelsets.builds import Serving
from app.labelsets.calibration.fit import Aim, Fitted, Labelled, Model, NotEnough, fit
from app.labelsets.calibration.value import Calibration
from app.labelsets.definition import Definition, Stored, without_namespace
from app.labelsets.preconditions import Match, overtaken
from app.labelsets.service import LabelSetService
from app.telemetry.spans import Stages
from models import EncoderInfo
from models.info import Floats

# what an image shows, by its number: places of labels, none of them, or why neither is known
Claims = Callable[[int], tuple[int, ...] | Problem]

# models of which a label set has calibrations at once
MOST_MODELS: Final = 16

# an image and its vector (D,)
Seen = tuple[Image, Floats]

# similarities that one calibration holds: images times labels
MOST_CELLS: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class LabelledVectors:
    """Images that could be used: `vectors` (N, D), the places of the labels that each shows, and
    what had to be guessed about them; and what became of the others.
    """

    vectors: Floats
    shown: tuple[tuple[int, ...], ...]
    warnings: list[str]
    failed: tuple[Outcome[Seen], ...]


@dataclass(frozen=True, slots=True)
class Calibrator:
    """`embedder` sees the images, `labelsets` keeps what comes of them."""

    info: EncoderInfo
    embedder: ImageEmbedder
    ensemble: Ensemble
    labelsets: LabelSetService

    async def current(self, name: str, match: Match, patience: float) -> Serving:
        """The label set, built. Raises PreconditionFailed, Invalid, and as `resolve`."""
        serving = await self.labelsets.resolve(name, patience)
        current = await self.labelsets.get(name)
        match.check(name, current)
        if serving.failed and serving.is_final:
            raise Invalid(f"{serving.failed}; calibrate a version that is built", field="labelset")
        if current.version != serving.stored.version:
            detail = f"a new version of {without_namespace(name)} is being built; calibrate it then"
            raise LabelsetBuilding(detail, field="labelset", retry_after=5)
        return serving

    async def seen(
        self, items: AsyncGenerator[Item, None], claims: Claims, definition: Definition
    ) -> LabelledVectors:
        """Every image's vector; `claims` knows what one shows once all items have been read.

        Of equal images only the first counts: a second one is no second witness.

        Raises: what the items raise.
        """
        examples = {example.sha256 for example in definition.examples}

        async def embedded(image: bytes) -> Seen:
            picture, vector = await self.embedder.embed(image, Stages())
            if picture.sha256 in examples:
                detail = "it is an example of this label set; use other pictures"
                raise Invalid(detail, field="image")
            return picture, vector

        outcomes = await every_outcome(items, embedded)
        return _joined(outcomes, claims, self.info.embedding_width)

    async def fitted(self, serving: Serving, pictures: LabelledVectors, aim: Aim) -> Calibration:
        """The calibration. Raises Invalid if it cannot be fitted, TooLarge."""
        definition, labels = serving.stored.definition, serving.stored.definition.labels
        cells = len(pictures.shown) * len(labels)
        if cells > MOST_CELLS:
            detail = f"{len(pictures.shown)} images and {len(labels)} labels have {cells} scores"
            raise TooLarge(detail, field="image", limit=MOST_CELLS, value=cells)
        background = await self.ensemble.background(self.labelsets.templates_of(definition))
        info = self.info
        model = Model(info.name, info.fingerprint, info.scale, info.bias)
        fits = self.labelsets.validity.fitted_for(serving.stored.written)

        def work() -> Fitted:
            cosines = pictures.vectors @ serving.rows.T
            if definition.alternatives is not None:
                cosines = definition.alternatives.best(cosines)
            truth = np.zeros(cosines.shape, np.bool_)
            for row, places in zip(truth, pictures.shown, strict=True):
                row[list(places)] = True
            behind = pictures.vectors @ background
            return fit(Labelled(labels, cosines, truth, behind), model, fits, aim)

        try:
            async with self.labelsets.validity.fitting:
                fitted = await asyncio.to_thread(work)
        except NotEnough as error:
            detail = str(error) + _unused(pictures.failed)
            raise Invalid(detail, field="image", limit=error.limit, value=error.value) from None
        if fitted.calibration is None:
            raise Invalid(str(fitted.why), field="risk", limit=aim.risk, value=fitted.least_risk)
        return fitted.calibration

    async def keep(
        self, name: str, calibration: Calibration, match: Match, *, fresh: bool = False
    ) -> Stored:
        """Store it with the label set, for its model; `fresh`: it was fitted to it just now.

        Raises: Invalid where it does not fit; TooLarge, PreconditionFailed, UnknownLabelset.
        """

        def learned(definition: Definition) -> Definition:
            why_not = self.labelsets.validity.why_not(calibration, definition)
            if why_not and fresh:
                raise overtaken(name)
            if why_not:
                detail = f"the calibration does not fit {without_namespace(name)}: {why_not}"
                raise Invalid(detail, field="fitted_for")
            changed = definition.calibrated(calibration)
            if len(changed.calibrations) > MOST_MODELS:
                known = ", ".join(each.model for each in definition.calibrations)
                detail = f"{without_namespace(name)} has calibrations of {MOST_MODELS} models "
                detail += f"({known}); delete one first"
                raise TooLarge(
                    detail, field="model", limit=MOST_MODELS, value=len(changed.calibrations)
                )
            return changed

        return await self.labelsets.change(name, match, learned)


def _joined(outcomes: Sequence[Outcome[Seen]], claims: Claims, width: int) -> LabelledVectors:
    """Images and what they show, which may arrive in any order; each image once."""
    vectors, shown, noticed, failed = [np.empty((0, width), np.float32)], [], [], []
    first: dict[str, int] = {}
    for outcome in outcomes:
        claim = claims(outcome.index)
        if isinstance(outcome.result, Problem):
            failed.append(outcome)
        elif isinstance(claim, Problem):
            failed.append(replace(outcome, result=claim))
        else:
            image, vector = outcome.result
            index = first.setdefault(image.sha256, outcome.index)
            if index != outcome.index:
                detail = f"it is the same picture as that of index {index}; each counts "
                detail += "once, with its first label"
                failed.append(replace(outcome, result=Invalid(detail, field="image")))
            else:
                vectors.append(vector[None])
                shown.append(claim)
                noticed.append((outcome.called, image.noticed))
    return LabelledVectors(np.concatenate(vectors), tuple(shown), of_many(noticed), tuple(failed))


def _unused(failed: Sequence[Outcome[Seen]]) -> str:
    """How many images could not be used, and why the first could not."""
    if not failed or not isinstance(failed[0].result, Problem):
        return ""
    first = f"the first has index {failed[0].index}: {failed[0].result.detail}"
    return f" ({len(failed)} images could not be used; {first})"
