"""How good predictions are: accuracies, average precision, calibration, confusions. Pure functions.

Knows neither pictures nor models. On the same predictions the numbers equal scikit-learn's.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Truth = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]

# of the standard normal distribution: 95 % lie within
Z95: Final = 1.959963984540054

# equal-width bins of confidence, as Guo et al. 2017 have them
BINS: Final = 15


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
class Calibration:
    """A reliability diagram: of each bin (B,) how many, mean confidence, share that was right.

    Empty bins have NaN for both. `error` is the expected calibration error, the mean gap weighted
    by the count (Guo et al. 2017, equation 3); `largest` is the largest gap of a bin.
    """

    count: Places
    confidence: Doubles
    accuracy: Doubles
    error: float
    largest: float
    mean_confidence: float


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
    """How many classes (N,) stand before the right one of `targets` (N,); 0 is a hit."""
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
    found = [
        Confusion(int(r), int(c), int(wrong[r, c]), float(wrong[r, c] / counts[r]))
        for r, c in zip(rows, columns, strict=True)
    ]
    return tuple(sorted(found, key=lambda pair: (-pair.count, -pair.share))[:most])


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
    """`truth`, `predicted` (N, C) bool: what is, and what was said; `scores` (N, C) rank."""
    count = truth.sum(axis=0, dtype=np.int64)
    said = predicted.sum(axis=0, dtype=np.int64)
    right = (truth & predicted).sum(axis=0, dtype=np.int64)
    precision = _shares(right, said, 0.0)
    recall = _shares(right, count, np.nan)
    both = (count + said).astype(np.float64)
    f1 = np.divide(2.0 * right, both, out=np.zeros(len(count)), where=both > 0)
    found = [average_precision(truth[:, c], scores[:, c]) for c in range(truth.shape[1])]
    return PerClass(count, said, right, recall, precision, f1, np.asarray(found, np.float64))


def calibration(confidence: Floats, right: Truth, bins: int = BINS) -> Calibration:
    """`confidence` (M,) in 0..1 of M claims, and whether each was `right`. Bins are (low, high]."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.searchsorted(edges[1:-1], confidence.astype(np.float64))
    count = np.bincount(place, minlength=bins).astype(np.int64)
    sums = np.bincount(place, weights=confidence, minlength=bins)
    hits = np.bincount(place, weights=right, minlength=bins)
    means = _shares(sums, count, np.nan)
    shares = _shares(hits, count, np.nan)
    gaps = np.abs(sums - hits)
    largest = float(np.nanmax(np.abs(means - shares))) if len(confidence) else 0.0
    total = max(1, len(confidence))
    return Calibration(
        count, means, shares, float(gaps.sum() / total), largest, float(sums.sum() / total)
    )


def _shares(part: npt.NDArray[np.generic], whole: Places, empty: float) -> Doubles:
    out = np.full(len(whole), empty)
    np.divide(part, whole, out=out, where=whole > 0)
    return out
