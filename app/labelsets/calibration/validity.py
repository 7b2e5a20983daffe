"""Which calibration holds for a label set here, and why one does not. Knows nothing of images."""

import asyncio
from collections import OrderedDict
from itertools import chain
from typing import Final

import numpy as np

from app.classify.scoring import Learned
from app.classify.templates import TemplateSets
from app.labelsets.calibration.value import Calibration, fitted_for
from app.labelsets.definition import Definition, Stored

# label sets whose calibrations are kept ready
KEPT: Final = 256


class Validity:
    """A calibration holds for the model and the vectors that it was fitted to, for no others."""

    def __init__(self, model: str, fingerprint: str, templates: TemplateSets) -> None:
        self._model = model
        self._fingerprint = fingerprint
        self._templates = templates
        # one fit at a time: each holds a matrix, and a core
        self.fitting = asyncio.Lock()
        self._known: OrderedDict[tuple[str, int, str], tuple[Learned | None, str | None]] = (
            OrderedDict()
        )

    def learned(self, stored: Stored) -> tuple[Learned | None, str | None]:
        """What a label set's calibration has learned, and why it is not used; None, None: none."""
        calibration = self.chosen(stored.definition)
        if calibration is None:
            return None, None
        key = (stored.name, stored.version, stored.digest)
        chosen = self._known.get(key)
        if chosen is None:
            stale = self.why_not(calibration, stored.written)
            chosen = None if stale else _learned(calibration, stored.definition.labels), stale
            self._known[key] = chosen
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return chosen

    def chosen(self, definition: Definition) -> Calibration | None:
        """The calibration of this model; else that of another one, which is stale; None: none."""
        known = definition.calibrations
        exact = (each for each in known if each.fingerprint == self._fingerprint)
        of_model = (each for each in known if each.model == self._model)
        return next(chain(exact, of_model, known), None)

    def stale(self, stored: Stored) -> str | None:
        """Why a label set's calibration is not used; None if it is, or if there is none."""
        return self.learned(stored)[1]

    def fitted_for(self, definition: Definition) -> str:
        """What a calibration fitted to the label set now is fitted for."""
        _, templates = self._templates.resolve(definition.templates)
        pictures = [f"{example.sha256} {example.label}" for example in definition.examples]
        return fitted_for(definition.labels, definition.concepts(templates), pictures)

    def why_not(self, calibration: Calibration, definition: Definition) -> str | None:
        """Why a calibration does not hold for a label set here; None where it does."""
        if calibration.fingerprint != self._fingerprint:
            return "it was fitted for another model or precision"
        if calibration.fitted_for != self.fitted_for(definition):
            return "it was fitted for other labels, texts, templates or examples, or another order"
        return None


def _learned(calibration: Calibration, labels: tuple[str, ...]) -> Learned:
    shifts = None
    if calibration.threshold is not None:
        common, own = calibration.threshold, calibration.thresholds
        shifts = np.array([own.get(label, common) for label in labels], np.float32)
    return Learned(
        scale=calibration.scale,
        bias=calibration.bias,
        floor=calibration.floor,
        margin=calibration.margin,
        shifts=shifts,
        conformal=calibration.conformal,
    )
