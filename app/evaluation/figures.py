"""From vectors to scores, and from scores to all figures of an evaluation. Pure functions.

Knows nothing of files, terminals or reports; nor where probabilities come from.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from app.arrays import Doubles, Places, Truth
from app.classify import scoring
from app.evaluation.data import ClassRows, Encoded, ModelInfo, Scores
from app.labelsets.calibration.reliability import Reliability, reliability, shares_of
from models.info import Floats

# of the standard normal distribution: 95 % lie within
Z95: Final = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `count`, with the Wilson score interval (Wilson 1927) at 95 %."""

    hits: int
    count: int

    @property
    def value(self) -> float:
        """0..1; 0 where there is nothing to count."""
        return self.hits / self.count if self.count else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Where the true share lies, in 95 of 100 cases."""
        if not self.count:
            return 0.0, 1.0
        n, z2 = self.count, Z95 * Z95
        centre = (self.value + z2 / (2 * n)) / (1 + z2 / n)
        half = Z95 / (1 + z2 / n) * np.sqrt(self.value * (1 - self.value) / n + z2 / (4 * n * n))
        # rounding must not leave the share itself outside
        low, high = float(centre - half), float(centre + half)
        return max(0.0, min(low, self.value)), min(1.0, max(high, self.value))


@dataclass(frozen=True, slots=True)
class PerClass:
    """Of each class (C,): pictures, pictures taken for it, those rightly; F1; average precision.

    `precision` and `f1` are 0 where nothing was taken for the class, as scikit-learn's are with
    zero_division=0. `recall` (for a single label: the accuracy of the class) and
    `average_precision` are NaN where no picture shows it.
    """

    count: Places
    predicted: Places
    right: Places
    recall: Doubles
    precision: Doubles
    f1: Doubles
    average_precision: Doubles

    @property
    def mean_recall(self) -> float:
        """Over classes with pictures: mean per-class accuracy (balanced_accuracy_score)."""
        return mean(self.recall)

    @property
    def mean_average_precision(self) -> float:
        """Over classes with pictures (average_precision_score, macro)."""
        return mean(self.average_precision)

    @property
    def macro_f1(self) -> float:
        """Over classes with pictures."""
        return mean(self.f1[self.count > 0])


@dataclass(frozen=True, slots=True)
class Confusion:
    """Pictures of class `truth` that were taken for `predicted`: `count`, a `share` of the class.

    Classes by their places.
    """

    truth: int
    predicted: int
    count: int
    share: float


def mean(values: Doubles) -> float:
    """The mean of what is not NaN; NaN where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def predictions(scores: Floats) -> Places:
    """`scores` (N, C) -> the place (N,) of each best; of equal ones the first, as /classify."""
    return np.asarray(scores.argmax(axis=1), np.int64)


def ranks(scores: Floats, targets: Places) -> Places:
    """How many classes (N,) rank above the right one in `targets` (N,); 0 is a hit."""
    own = np.take_along_axis(scores, targets[:, None], axis=1)
    before = np.arange(scores.shape[1])[None, :] < targets[:, None]
    return np.asarray(((scores > own) | ((scores == own) & before)).sum(axis=1), np.int64)


def top(scores: Floats, targets: Places, k: int) -> Share:
    """How often the right class is among the best `k` (top_k_accuracy_score)."""
    hits = ranks(scores, targets) < k
    return Share(int(hits.sum()), len(targets))


def confusion(targets: Places, predicted: Places, classes: int) -> Places:
    """(C, C): row the true class, column what it was taken for (confusion_matrix)."""
    cells = np.bincount(targets * classes + predicted, minlength=classes * classes)
    return np.asarray(cells.reshape(classes, classes), np.int64)


def most_confused(matrix: Places, most: int) -> tuple[Confusion, ...]:
    """The `most` pairs with most pictures; of equal ones those of the smaller class."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    counts = matrix.sum(axis=1)
    rows, columns = np.nonzero(wrong)
    confusions = [
        Confusion(int(r), int(c), int(wrong[r, c]), float(wrong[r, c] / counts[r]))
        for r, c in zip(rows, columns, strict=True)
    ]
    return tuple(sorted(confusions, key=lambda pair: (-pair.count, -pair.share))[:most])


def average_precision(truth: Truth, scores: Floats) -> float:
    """The sum of (R_n - R_n-1) P_n over thresholds n, not interpolated; NaN without a positive.

    `truth` (N,), `scores` (N,). Pictures of equal score enter together.
    """
    positives = int(truth.sum())
    if not positives:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    precision = hits[ends] / (ends + 1)
    gained = np.diff(hits[ends], prepend=0) / positives
    return float((gained * precision).sum())


def per_class(truth: Truth, predicted: Truth, scores: Floats) -> PerClass:
    """`truth`, `predicted` (N, C) bool: the labels and the predictions; `scores` (N, C) rank."""
    count = truth.sum(axis=0, dtype=np.int64)
    answer_counts = predicted.sum(axis=0, dtype=np.int64)
    right = (truth & predicted).sum(axis=0, dtype=np.int64)
    precision = shares_of(right, answer_counts, 0.0)
    recall = shares_of(right, count, np.nan)
    both = (count + answer_counts).astype(np.float64)
    f1 = np.divide(2.0 * right, both, out=np.zeros(len(count)), where=both > 0)
    precisions = [average_precision(truth[:, c], scores[:, c]) for c in range(truth.shape[1])]
    return PerClass(
        count, answer_counts, right, recall, precision, f1, np.asarray(precisions, np.float64)
    )


# a label counts as said where several may be true
THRESHOLD: Final = 0.5

MOST_CONFUSED: Final = 50

# labels among which the right one is looked for beside the best
WIDE: Final = 5

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
    calibration: Reliability
    matrix: Places | None
    confused: tuple[Confusion, ...]
    predicted: Truth

    def tops(self) -> list[tuple[str, Share]]:
        """Top-1 and top-5 with their names; among five classes or fewer top-5 says nothing."""
        tops = [("top-1", self.top1), ("top-5", self.top5)]
        tops = tops if len(self.classes.count) > WIDE else tops[:1]
        return [(name, share) for name, share in tops if share is not None]

    def json(self) -> dict[str, Any]:
        """The figures of the whole data, as report.json has them."""
        accuracy: dict[str, Any] = {}
        if self.top1 is not None and self.top5 is not None:
            accuracy = {"top1": share_json(self.top1), "top5": share_json(self.top5)}
        return accuracy | {
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

    As the service scores: softmax, or for several labels each against a background; the
    model's own sigmoid where it was trained with one.
    """
    cosines = np.empty((len(rows), len(classes.starts)), np.float32)
    probabilities = np.empty_like(cosines)
    for start in range(0, len(rows), BLOCK):
        some = slice(start, start + BLOCK)
        cosines[some] = classes.cosines(rows[some])
        if info.bias is not None:
            probabilities[some] = scoring.sigmoid(cosines[some], info.scale, info.bias)
        elif not multi_label:
            probabilities[some] = scoring.softmax(cosines[some], info.scale)
        else:
            if classes.background is None:
                raise ValueError("several labels need background rows. This is a bug.")
            background = (rows[some] @ classes.background)[:, None]
            probabilities[some] = scoring.sigmoid(cosines[some] - background, info.scale, 0.0)
    return Scores(cosines, probabilities)


def figures_of(truth: Truth, scores: Scores, *, multi_label: bool) -> Figures:
    """All figures of `truth` (N, C) and its scores. Ranks are of cosines, finer than scores."""
    classes = truth.shape[1]
    if multi_label:
        answered = scores.probabilities >= THRESHOLD
        table = per_class(truth, answered, scores.probabilities)
        calibration = reliability(scores.probabilities.ravel(), truth.ravel())
        return Figures(None, None, table, calibration, None, (), answered)
    targets = np.asarray(truth.argmax(axis=1), np.int64)
    best = predictions(scores.cosines)
    answered = np.zeros_like(truth)
    answered[np.arange(len(best)), best] = True
    confidence = scores.probabilities[np.arange(len(best)), best]
    right = best == targets
    matrix = confusion(targets, best, classes)
    return Figures(
        Share(int(right.sum()), len(right)),
        top(scores.cosines, targets, min(5, classes)),
        per_class(truth, answered, scores.probabilities),
        reliability(confidence, right),
        matrix,
        most_confused(matrix, MOST_CONFUSED),
        answered,
    )


def mistakes(truth: Truth, figures: Figures, scores: Scores, most: int) -> list[Mistake]:
    """Up to `most` pictures with the claims that were furthest off, worst first; one claim each.

    Of one true label and one claim there are OF_A_KIND at most.
    """
    if figures.matrix is None:
        gap = np.abs(scores.probabilities - truth) * (figures.predicted != truth)
        claim = gap.argmax(axis=1)
        worth = gap[np.arange(len(gap)), claim]
    else:
        claim = figures.predicted.argmax(axis=1)
        wrong = ~truth[np.arange(len(truth)), claim]
        worth = scores.probabilities[np.arange(len(truth)), claim] * wrong
    shown: list[Mistake] = []
    kinds: Counter[tuple[int | None, int | None]] = Counter()
    for place in np.argsort(-worth, kind="stable")[: int((worth > 0).sum())]:
        mistake = _mistake(int(place), int(claim[place]), truth[place], scores.probabilities[place])
        kinds[mistake.truth, mistake.predicted] += 1
        if kinds[mistake.truth, mistake.predicted] <= OF_A_KIND:
            shown.append(mistake)
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
