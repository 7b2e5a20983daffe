"""From vectors to scores, and from scores to all figures of an evaluation. Pure functions.

Knows nothing of files, terminals or reports; the formulas are in app.figures.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from app import figures, scoring
from app.evaluation.data import ClassRows, Encoded, Floats, ModelInfo, Places, Scores, Truth
from app.figures import Calibration, Confusion, PerClass, Share

# a label counts as said where several may be true
THRESHOLD: Final = 0.5

MOST_CONFUSED: Final = 50

# worst mistakes of one kind: a hundred of the same would hide the others
OF_A_KIND: Final = 3
DIGITS: Final = 6

# pictures scored at once
BLOCK: Final = 4_096


@dataclass(frozen=True, slots=True)
class Mistake:
    """A picture and the claim about it that was furthest off, by places.

    `predicted` is what it was taken for, None where a true label was missed; `truth` what it is,
    None where it has no such label. `score` is of the claim, `own` of the true label (0 without).
    """

    picture: int
    truth: int | None
    predicted: int | None
    score: float
    own: float


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of one set of class rows.

    `top1`, `top5`, `matrix` (C, C) and `confused` exist for a single label only. `predicted`
    (N, C) bool is what was said.
    """

    top1: Share | None
    top5: Share | None
    classes: PerClass
    calibration: Calibration
    matrix: Places | None
    confused: tuple[Confusion, ...]
    predicted: Truth

    def json(self) -> dict[str, Any]:
        """The figures of the whole data, as report.json has them."""
        found: dict[str, Any] = {}
        if self.top1 is not None and self.top5 is not None:
            found = {"top1": share_json(self.top1), "top5": share_json(self.top5)}
        return found | {
            "mean_per_class": number(self.classes.mean_recall),
            "macro_f1": number(self.classes.macro_f1),
            "map": number(self.classes.mean_average_precision),
            "ece": number(self.calibration.error),
            "mean_confidence": number(self.calibration.mean_confidence),
        }


def scored(encoded: Encoded, classes: ClassRows) -> Scores:
    """The scores that /classify gives, `multi_label` as the data is."""
    return scores_of(encoded.rows, classes, encoded.info, multi_label=encoded.dataset.multi_label)


def scores_of(rows: Floats, classes: ClassRows, info: ModelInfo, *, multi_label: bool) -> Scores:
    """`rows` (N, D) against `classes`. Raises ValueError where a background is needed and missing.

    As app.classifier: softmax, or for several labels each against a background; a sigmoid of its
    own for models trained so.
    """
    cosines = np.empty((len(rows), len(classes.rows)), np.float32)
    found = np.empty_like(cosines)
    for start in range(0, len(rows), BLOCK):
        some = slice(start, start + BLOCK)
        cosines[some] = rows[some] @ classes.rows.T
        if info.bias is not None:
            found[some] = scoring.sigmoid(cosines[some], info.scale, info.bias)
        elif not multi_label:
            found[some] = softmax_rows(cosines[some], info.scale)
        else:
            if classes.background is None:
                raise ValueError("several labels need background rows. This is a bug.")
            background = (rows[some] @ classes.background)[:, None]
            found[some] = scoring.sigmoid(cosines[some] - background, info.scale, 0.0)
    return Scores(cosines, found)


def softmax_rows(cosines: Floats, scale: float) -> Floats:
    """`cosines` (N, C) -> softmax(scale x cosine) (N, C), each row as `scoring.softmax`."""
    logits = np.float32(scale) * cosines
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def figures_of(truth: Truth, scores: Scores, *, multi_label: bool) -> Figures:
    """All figures of `truth` (N, C) and its scores. Ranks are of cosines, finer than scores."""
    classes = truth.shape[1]
    if multi_label:
        said = scores.probabilities >= THRESHOLD
        table = figures.per_class(truth, said, scores.probabilities)
        calibration = figures.calibration(scores.probabilities.ravel(), truth.ravel())
        return Figures(None, None, table, calibration, None, (), said)
    targets = np.asarray(truth.argmax(axis=1), np.int64)
    best = figures.predictions(scores.cosines)
    said = np.zeros_like(truth)
    said[np.arange(len(best)), best] = True
    confidence = scores.probabilities[np.arange(len(best)), best]
    matrix = figures.confusion(targets, best, classes)
    return Figures(
        figures.top(scores.cosines, targets, 1),
        figures.top(scores.cosines, targets, min(5, classes)),
        figures.per_class(truth, said, scores.probabilities),
        figures.calibration(confidence, best == targets),
        matrix,
        figures.most_confused(matrix, MOST_CONFUSED),
        said,
    )


def mistakes(truth: Truth, found: Figures, scores: Scores, most: int) -> list[Mistake]:
    """Up to `most` pictures with the claims that were furthest off, worst first; one claim each.

    Of one true label and one claim there are OF_A_KIND at most.
    """
    if found.matrix is None:
        gap = np.abs(scores.probabilities - truth) * (found.predicted != truth)
        claim = gap.argmax(axis=1)
        worth = gap[np.arange(len(gap)), claim]
    else:
        claim = found.predicted.argmax(axis=1)
        wrong = ~truth[np.arange(len(truth)), claim]
        worth = scores.probabilities[np.arange(len(truth)), claim] * wrong
    shown: list[Mistake] = []
    kinds: Counter[tuple[int | None, int | None]] = Counter()
    for place in np.argsort(-worth, kind="stable")[: int((worth > 0).sum())]:
        one = _mistake(int(place), int(claim[place]), truth[place], scores.probabilities[place])
        kinds[one.truth, one.predicted] += 1
        if kinds[one.truth, one.predicted] <= OF_A_KIND:
            shown.append(one)
        if len(shown) == most:
            break
    return shown


def _mistake(picture: int, claim: int, truth: Truth, scores: Floats) -> Mistake:
    own = np.flatnonzero(truth)
    if truth[claim]:
        return Mistake(picture, claim, None, float(scores[claim]), float(scores[claim]))
    best = int(own[scores[own].argmax()]) if len(own) else None
    score = 0.0 if best is None else float(scores[best])
    return Mistake(picture, best, claim, float(scores[claim]), score)


def share_json(share: Share) -> dict[str, Any]:
    """A share with what it was made of."""
    low, high = share.interval
    return {
        "value": number(share.value),
        "interval95": [number(low), number(high)],
        "hits": share.hits,
        "count": share.count,
    }


def number(value: float | np.floating[npt.NBitBase]) -> float | None:
    """A figure as JSON has it: rounded, and null for NaN."""
    return None if np.isnan(value) else round(float(value), DIGITS)
