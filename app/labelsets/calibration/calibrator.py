"""Calibrate a label set: from labelled images to what is stored. Knows nothing of HTTP."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from app.api.labelled_images import Shown
from app.classify.bulk import Item, Outcome, every_outcome
from app.classify.classifier import Classifier
from app.errors import Invalid, LabelsetBuilding, Problem, TooLarge
from app.labelsets.calibration.fit import Aim, Fitted, Labelled, Model, NotEnough, fit
from app.labelsets.calibration.value import Calibration
from app.labelsets.definition import Definition, Stored, without_namespace
from app.labelsets.preconditions import Match, overtaken
from app.labelsets.service import LabelSetService, Serving
from app.telemetry.spans import Stages

Floats = npt.NDArray[np.float32]

# similarities that one calibration holds: images times labels
MOST_CELLS: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Pictures:
    """Images that could be used: `vectors` (N, D), the places of the labels that each shows; and
    what became of the others.
    """

    vectors: Floats
    shown: tuple[tuple[int, ...], ...]
    failed: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Calibrator:
    """`classifier` sees the images, `labelsets` keeps what comes of them."""

    classifier: Classifier
    labelsets: LabelSetService

    async def current(self, name: str, match: Match, patience: float) -> Serving:
        """The label set, built. Raises PreconditionFailed, and as `LabelSetService.resolve`."""
        serving = await self.labelsets.resolve(name, patience)
        current = await self.labelsets.get(name)
        match.check(name, current)
        if current.version != serving.stored.version:
            detail = f"a new version of {without_namespace(name)} is being built; calibrate it then"
            raise LabelsetBuilding(detail, field="labelset", retry_after=5)
        return serving

    async def seen(
        self, items: AsyncGenerator[Item, None], told: Shown, definition: Definition
    ) -> Pictures:
        """Every image's vector. Raises what the items raise."""
        examples = {example.sha256 for example in definition.examples}

        async def embedded(image: bytes) -> bytes:
            picture, vector = await self.classifier.embed(image, Stages())
            if picture.sha256 in examples:
                detail = "it is an example of the label set, which knows it; use other pictures"
                raise Invalid(detail, field="image")
            return vector.tobytes()

        found = await every_outcome(items, embedded)
        return _joined(found, told, self.classifier.info.embedding_width)

    async def fitted(self, serving: Serving, pictures: Pictures, aim: Aim) -> Calibration:
        """The calibration. Raises Invalid where it cannot be had, TooLarge."""
        definition, labels = serving.stored.definition, serving.stored.definition.labels
        cells = len(pictures.shown) * len(labels)
        if cells > MOST_CELLS:
            detail = f"{len(pictures.shown)} images and {len(labels)} labels have {cells} scores"
            raise TooLarge(detail, field="image", limit=MOST_CELLS, value=cells)
        background = await self.classifier.background(definition.templates)
        info = self.classifier.info
        model = Model(info.name, info.fingerprint, info.scale, info.bias)
        fits = self.classifier.calibrations.fitted_for(definition)

        def work() -> Fitted:
            cosines = pictures.vectors @ serving.rows.T
            truth = np.zeros(cosines.shape, np.bool_)
            for row, places in zip(truth, pictures.shown, strict=True):
                row[list(places)] = True
            behind = pictures.vectors @ background
            return fit(Labelled(labels, cosines, truth, behind), model, fits, aim)

        try:
            async with self.classifier.calibrations.fitting:
                found = await asyncio.to_thread(work)
        except NotEnough as error:
            raise Invalid(str(error), field="image", limit=error.limit, value=error.value) from None
        if found.calibration is None:
            raise Invalid(str(found.why), field="risk", limit=aim.risk, value=found.least_risk)
        return found.calibration

    async def keep(
        self, name: str, calibration: Calibration | None, match: Match, *, fresh: bool = False
    ) -> Stored:
        """Store it with the label set, or none at all; `fresh`: it was fitted to it just now.

        Raises: Invalid where it does not fit; PreconditionFailed, UnknownLabelset.
        """

        def learned(definition: Definition) -> Definition:
            why_not = calibration and self.classifier.calibrations.why_not(calibration, definition)
            if why_not and fresh:
                raise overtaken(name)
            if why_not:
                detail = f"the calibration does not fit {without_namespace(name)}: {why_not}"
                raise Invalid(detail, field="fitted_for")
            return replace(definition, calibration=calibration)

        return await self.labelsets.change(name, match, learned)


def _joined(found: Sequence[Outcome], told: Shown, width: int) -> Pictures:
    """Images and what they show, which may arrive in any order."""
    vectors, shown, failed = [np.empty((0, width), np.float32)], [], []
    for outcome in found:
        claim = told.claims[outcome.index]
        if isinstance(outcome.found, Problem):
            failed.append(outcome)
        elif isinstance(claim, Problem):
            failed.append(replace(outcome, found=claim))
        else:
            vectors.append(np.frombuffer(outcome.found, np.float32)[None])
            shown.append(claim)
    return Pictures(np.concatenate(vectors), tuple(shown), tuple(failed))
