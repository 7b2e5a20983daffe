"""Accuracy and calibration of a similarity matrix. Pure numpy: no model, no files, no clock."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Rows = NDArray[np.int64]

# equal-width bins of confidence
BINS = 15


def ranking(similarity: Array, truth: Rows) -> dict[str, float]:
    """Share of pictures whose own label (column `truth`) is first, or among the first five."""
    of_label = similarity[np.arange(len(truth)), truth][:, None]
    ahead = (similarity > of_label).sum(1)
    return {f"top{k}": round(float((ahead < k).mean()), 4) for k in (1, 5)}


def draws(truth: Rows, pool: Rows, ways: int, rounds: int, seed: int) -> Rows:
    """(pictures, rounds, ways) label columns: the own label first, then others out of `pool`."""
    rng = np.random.default_rng(seed)
    result = np.empty((len(truth), rounds, ways), np.int64)
    for i, label in enumerate(truth):
        others = pool[pool != label]
        for r in range(rounds):
            result[i, r] = [label, *rng.choice(others, ways - 1, replace=False)]
    return result


def choices(similarity: Array, columns: Rows) -> float:
    """Share of `draws` in which the own label beats all others."""
    chosen = np.take_along_axis(similarity[:, None, :], columns, axis=2)
    return round(float((chosen[..., :1] > chosen[..., 1:]).all(-1).mean()), 4)


def softmax(logits: Array) -> Array:
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    result: Array = odds / odds.sum(-1, keepdims=True)
    return result


def calibration_error(confidence: Array, right: NDArray[np.bool_]) -> float:
    """Expected calibration error: the gap between confidence and accuracy in equal-width bins of
    confidence, weighted by how many answers fall in each (Guo et al. 2017, arXiv 1706.04599,
    equation 3)."""
    at = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    total = np.bincount(at, minlength=BINS)
    sure = np.bincount(at, weights=confidence, minlength=BINS)
    hits = np.bincount(at, weights=right, minlength=BINS)
    return round(float(np.abs(hits - sure).sum() / total.sum()), 4)


def calibration(
    similarity: Array, truth: Rows, columns: Rows, scale: np.float32
) -> dict[str, float]:
    """Calibration error and mean confidence by a softmax of `scale` x similarity: over all labels,
    and over the `columns` (pictures, ways) of one round of `draws`."""
    ten = np.take_along_axis(similarity, columns, axis=1)
    result = {}
    for name, part, own in (
        ("all_labels", similarity, truth),
        ("ten_way", ten, np.zeros_like(truth)),
    ):
        logits: Array = part * scale
        odds = softmax(logits)
        result[name] = calibration_error(odds.max(1), odds.argmax(1) == own)
        result[f"{name}_mean_confidence"] = round(float(odds.max(1).mean()), 4)
    return result


def difference(
    right: NDArray[np.bool_], baseline: NDArray[np.bool_], seed: int
) -> dict[str, float]:
    """Share of `right` less that of `baseline` on the same pictures, with its 95 % interval over
    pictures drawn anew (paired bootstrap)."""
    gain = right.astype(np.float64) - baseline
    rng = np.random.default_rng(seed)
    means = gain[rng.integers(0, len(gain), (2000, len(gain)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {n: round(float(v), 4) for n, v in (("mean", gain.mean()), ("low", low), ("high", high))}
