"""A whole calibration from labelled pictures: scale, bounds, thresholds, and what they are worth.

Pure numpy; knows neither where pictures come from nor where a calibration goes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from app.arrays import Places, Truth
from app.labelsets.calibration import conformal, temperature, thresholds
from app.labelsets.calibration.abstention import (
    AbstentionBounds,
    Curve,
    ScoredPictures,
    Unreachable,
    at_most,
    cautious,
    counts,
    promise,
    risk_coverage,
    splits,
)
from app.labelsets.calibration.reliability import Reliability, reliability
from app.labelsets.calibration.value import F1, Answered, Calibration, HeldOutFigures
from models.info import Floats

MIN_PICTURES: Final = 10
MIN_LABELS: Final = 2

# of the bound of the risk that is told
USUAL_CONFIDENCE: Final = 0.95


class NotEnough(ValueError):
    """Too few pictures, or of too few labels."""

    def __init__(self, detail: str, limit: int, value: int) -> None:
        super().__init__(detail)
        self.limit = limit
        self.value = value


@dataclass(frozen=True, slots=True)
class Aim:
    """The wanted share of wrong answers: observed, or promised with a `confidence`."""

    risk: float = 0.05
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """Whose cosines they are; `bias` None: softmax-trained."""

    name: str
    fingerprint: str
    scale: float
    bias: float | None


@dataclass(frozen=True, slots=True)
class Labelled:
    """Pictures as a model sees them: `cosines` (N, C) with each label and the `truth` (N, C).

    A picture may show several of the labels, or none. `background` (N,) is the cosine with a text
    that names no thing in particular; without it softmax-trained models get no thresholds of labels
    alone.
    """

    labels: Sequence[str]
    cosines: Floats
    truth: Truth
    background: Floats | None = None


@dataclass(frozen=True, slots=True)
class Fitted:
    """`calibration` is None if the target risk cannot be reached; `why` says so.

    `curve` is of answering by lead, with the floor; `none` without one.
    """

    calibration: Calibration | None
    why: str | None
    scale: float
    bias: float | None
    before: Reliability
    after: Reliability
    curve: Curve
    nll: tuple[float, float]
    least_risk: float | None = None


def fit(data: Labelled, model: Model, fitted_for: str, aim: Aim, seed: int = 0) -> Fitted:
    """Fit all there is to fit. Raises NotEnough."""
    inside = np.asarray(data.truth.any(axis=1), np.bool_)
    _check(data.truth[inside])
    cosines, own = data.cosines[inside], _own(data)[inside]
    scale, bias = _scale(data, model, np.ones(len(data.truth), np.bool_))
    before_nll, before = _measured(cosines, own, model.scale, model.bias)
    after_nll, after = _held_out_scores(data, model, inside, own, seed)
    outcome = partial(
        Fitted, scale=scale, bias=bias, before=before, after=after, nll=(before_nll, after_nll)
    )
    scored = _scored(data)
    try:
        bounds, held_out = _bounds(scored, aim, seed)
    except Unreachable as error:
        curve = risk_coverage(scored.lead, scored.right)
        return outcome(calibration=None, why=str(error), curve=curve, least_risk=error.least)
    accuracy = float((cosines.argmax(axis=1) == own).mean())
    common, named, f1 = _alone(data, model, seed)
    fitted = Calibration(
        model=model.name,
        fingerprint=model.fingerprint,
        fitted_for=fitted_for,
        model_scale=model.scale,
        scale=scale,
        bias=bias,
        floor=bounds.floor,
        margin=bounds.margin,
        threshold=common,
        thresholds=named,
        pictures=int(inside.sum()),
        others=int((~inside).sum()),
        risk=aim.risk,
        confidence=aim.confidence,
        before=HeldOutFigures(before_nll, before.error, accuracy),
        after=HeldOutFigures(after_nll, after.error, accuracy),
        held_out=held_out,
        f1=f1,
        conformal=conformal.bounds(cosines, own, model.scale),
    )
    # what the floor holds back is answered last
    order = np.where(scored.similarity >= bounds.floor, scored.lead, -1.0)
    return outcome(calibration=fitted, why=None, curve=risk_coverage(order, scored.right))


def _check(truth: Truth) -> None:
    if len(truth) < MIN_PICTURES:
        pictures = "1 picture shows" if len(truth) == 1 else f"{len(truth)} pictures show"
        detail = f"{pictures} a label; a calibration needs {MIN_PICTURES}"
        raise NotEnough(detail, MIN_PICTURES, len(truth))
    shown = int(truth.any(axis=0).sum())
    if shown < MIN_LABELS:
        detail = f"the pictures show {shown} of the labels; a calibration needs {MIN_LABELS}"
        raise NotEnough(detail, MIN_LABELS, shown)


def _scale(data: Labelled, model: Model, chosen: Truth) -> tuple[float, float | None]:
    if model.bias is not None:
        return temperature.fit_sigmoid(
            data.cosines[chosen], data.truth[chosen], model.scale, model.bias
        )
    chosen = chosen & data.truth.any(axis=1)
    return temperature.fit_scale(data.cosines[chosen], _own(data)[chosen], model.scale), None


def _measured(
    cosines: Floats, own: Places, scale: float, bias: float | None
) -> tuple[float, Reliability]:
    nll = float(-temperature.log_likelihoods(cosines, own, scale, bias).mean())
    best = temperature.best_scores(cosines, scale, bias)
    return nll, reliability(best.astype(np.float32), cosines.argmax(axis=1) == own)


def _held_out_scores(
    data: Labelled, model: Model, inside: Truth, own: Places, seed: int
) -> tuple[float, Reliability]:
    """The same, each fold scored by what the others say."""
    places = np.flatnonzero(inside)
    best, nll = np.empty(len(own)), np.empty(len(own))
    for _, test in splits(len(own), seed):
        chosen = np.ones(len(inside), np.bool_)
        chosen[places[test]] = False
        scale, bias = _scale(data, model, chosen)
        part = data.cosines[places[test]]
        best[test] = temperature.best_scores(part, scale, bias)
        nll[test] = -temperature.log_likelihoods(part, own[test], scale, bias)
    right = data.cosines[inside].argmax(axis=1) == own
    return float(nll.mean()), reliability(best.astype(np.float32), right)


def _own(data: Labelled) -> Places:
    """The label (N,) of each picture; of several the one that it is most similar to."""
    shown = np.where(data.truth, data.cosines, np.float32(-2))
    return np.asarray(shown.argmax(axis=1), np.int64)


def _scored(data: Labelled) -> ScoredPictures:
    """What decides on abstaining."""
    cosines, truth = data.cosines, data.truth
    best = cosines.argmax(axis=1)
    two = np.sort(np.partition(cosines, -2, axis=1)[:, -2:], axis=1).astype(np.float64)
    right = np.take_along_axis(truth, best[:, None], axis=1)[:, 0]
    inside = truth.sum(axis=1) > 0
    return ScoredPictures(two[:, 1], two[:, 1] - two[:, 0], right, inside)


def _bounds(scored: ScoredPictures, aim: Aim, seed: int) -> tuple[AbstentionBounds, Answered]:
    if aim.confidence is not None:
        bounds, tested = promise(scored, aim.risk, aim.confidence, seed)
        return bounds, _answered(tested, bounds.answer(tested), aim.confidence)
    bounds, answers = cautious(scored, aim.risk, seed)
    return bounds, _answered(scored, answers, USUAL_CONFIDENCE)


def _answered(scored: ScoredPictures, answers: Truth, confidence: float) -> Answered:
    wrong, count = counts(scored, answers)
    outside = ~scored.inside
    return Answered(
        coverage=float(answers[scored.inside].mean()) if scored.inside.any() else 0.0,
        risk=wrong / count if count else 0.0,
        risk_at_most=at_most(wrong, count, confidence),
        refused=float((~answers[outside]).mean()) if outside.any() else None,
    )


def _alone(
    data: Labelled, model: Model, seed: int
) -> tuple[float | None, dict[str, float], F1 | None]:
    """Thresholds of labels scored alone; empty if they cannot be fitted."""
    if model.bias is None:
        if data.background is None:
            return None, {}, None
        values, usual = data.cosines - data.background[:, None], 0.0
    else:
        values, usual = data.cosines, -model.bias / model.scale
    common, own = thresholds.thresholds(values, data.truth)
    before = thresholds.f1(data.truth, values >= usual)
    f1 = F1(*before, *thresholds.f1(data.truth, thresholds.held_out(values, data.truth, seed)))
    named = {label: float(t) for label, t in zip(data.labels, own, strict=True) if not np.isnan(t)}
    return common, named, f1
