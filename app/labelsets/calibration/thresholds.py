"""Where each label begins to count when labels are scored alone. Pure numpy; knows no names.

A value is a label's cosine above the background's; a threshold is chosen where F1 is largest.
"""

from typing import Final

import numpy as np

from app.arrays import Doubles, Truth
from app.labelsets.calibration.abstention import splits
from models.info import Floats

# pictures of a label that speak for the common threshold against its own: the best threshold of few
# pictures lets everything in (measured, docs/decisions.md)
PRIOR: Final = 5.0

# labels whose values are counted at once for the common threshold
TOGETHER: Final = 64


def thresholds(values: Floats, truth: Truth) -> tuple[float, Doubles]:
    """The common threshold, and each label's own (C,): NaN where it has no pictures.

    `values` and `truth` (N, C). The common one makes the F1 of all pairs together largest; a
    label's own lies the nearer to its best one the more pictures it has.
    """
    common = common_threshold(values, truth)
    own = np.full(values.shape[1], np.nan)
    counts = truth.sum(axis=0)
    for label in np.flatnonzero(counts):
        best = best_threshold(values[:, label], truth[:, label])
        own[label] = (counts[label] * best + PRIOR * common) / (counts[label] + PRIOR)
    return common, own


def best_threshold(values: Floats, positive: Truth) -> float:
    """The threshold with the largest F1 on `values` (N,), in the middle of its gap."""
    order = np.argsort(-values, kind="stable")
    ranked = values[order].astype(np.float64)
    hits = np.cumsum(positive[order])
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + positive.sum())
    last = np.append(np.diff(ranked) != 0, True)
    place = int(np.argmax(np.where(last, f1, -1)))
    if place + 1 == len(ranked):
        return float(ranked[place])
    return float((ranked[place] + ranked[place + 1]) / 2)


def common_threshold(values: Floats, truth: Truth) -> float:
    """The same for all labels together; the best cut is always at some picture's own label."""
    cuts = np.unique(values[truth]).astype(np.float64)
    hits, taken = np.zeros(len(cuts)), np.zeros(len(cuts))
    for at in range(0, values.shape[1], TOGETHER):
        some = values[:, at : at + TOGETHER].ravel()
        taken += _reaching(cuts, some)
        hits += _reaching(cuts, some[truth[:, at : at + TOGETHER].ravel()])
    place = int(np.argmax(2 * hits / (taken + truth.sum())))
    return float(cuts[place])


def answers_of(values: Floats, common: float, own: Doubles) -> Truth:
    """Which labels (N, C) reach their threshold."""
    return np.asarray(values >= np.where(np.isnan(own), common, own), np.bool_)


def f1(truth: Truth, answered: Truth) -> tuple[float, float]:
    """F1 over all pictures and labels together (micro), and the mean of each label's (macro).

    Labels without pictures count in the first alone; what nothing is said of has 0.
    """
    hits = (truth & answered).sum(axis=0)
    both = truth.sum(axis=0) + answered.sum(axis=0)
    known = truth.any(axis=0)
    each = 2 * hits[known] / both[known]
    return float(2 * hits.sum() / max(1, both.sum())), float(each.mean()) if known.any() else 0.0


def held_out(values: Floats, truth: Truth, seed: int) -> Truth:
    """Predictions (N, C) of each picture with thresholds fitted on others."""
    answers = np.zeros_like(truth)
    for train, test in splits(len(values), seed):
        if truth[train].any():
            answers[test] = answers_of(values[test], *thresholds(values[train], truth[train]))
    return answers


def _reaching(cuts: Doubles, values: Floats) -> Doubles:
    """How many values reach each cut."""
    below = np.searchsorted(cuts, values.astype(np.float64), side="right")
    # a value reaches as many cuts as lie at or below it
    counts = np.bincount(below, minlength=len(cuts) + 1)
    return np.asarray(counts[::-1].cumsum()[::-1][1:], np.float64)
