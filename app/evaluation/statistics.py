"""Figures of several candidates in paired bootstrap resamples of the same pictures. Pure functions.

Knows neither templates nor models: a candidate is a column.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from app.arrays import Doubles, Places, Truth
from models.info import Floats

RESAMPLES: Final = 10_000

# numbers that are held at once while resampling
BLOCK: Final = 4_000_000

# numbers that all resamples of a figure may be made of: 10 s or so; fewer resamples beyond it
DRAWN: Final = 30_000_000
RANKED: Final = 1_000_000_000
FEWEST: Final = 1_000


@dataclass(frozen=True, slots=True)
class Resampled:
    """A figure of K candidates: `observed` (K,), and in R resamples `draws` (R, K), 0..1."""

    observed: Doubles
    draws: Doubles

    def interval(self, column: int, other: int | None = None) -> tuple[float, float]:
        """The middle 95 % of a candidate's draws, or of its lead over another."""
        draws = self.draws[:, column]
        if other is not None:
            draws = draws - self.draws[:, other]
        low, high = np.quantile(draws, (0.025, 0.975))
        return float(low), float(high)


@dataclass(frozen=True, slots=True)
class _Groups:
    """Pictures that no figure can tell apart: the same class (G,), right for the same candidates.

    How often each group is drawn has the same distribution as the sum over its pictures, so
    resampling groups is resampling pictures.
    """

    right: Truth
    starts: Places
    sizes: Places


def top1(right: Truth, resamples: int, seed: int) -> Resampled:
    """Share of pictures that K candidates have `right` (N, K)."""
    groups = _grouped(right, np.zeros(len(right), np.int64))
    return _over_groups(_shares, groups, resamples, seed)


def mean_per_class(right: Truth, targets: Places, resamples: int, seed: int) -> Resampled:
    """Mean over classes of the share of their pictures that K candidates have `right` (N, K).

    A class of which a resample has no picture is left out there. At least FEWEST resamples, but no
    more than DRAWN allows.
    """
    groups = _grouped(right, targets)
    allowed = max(FEWEST, DRAWN // len(groups.sizes))
    return _over_groups(_shares_per_class, groups, min(resamples, allowed), seed)


def mean_average_precision(
    scores: Sequence[Floats], truth: Truth, resamples: int, seed: int
) -> Resampled:
    """Mean over classes of the average precision of K candidates' scores (N, C) for `truth` (N, C).

    A class without a picture of its own (in a resample: there) is left out, and so is a resample
    without a picture of any. At least FEWEST resamples, but no more than RANKED allows.

    Raises ValueError: no picture has a label.
    """
    if not truth.any():
        raise ValueError("none of the pictures has a label, so there is nothing to rank")
    pictures = len(truth)
    allowed = max(FEWEST, RANKED // max(1, truth.size * len(scores)))
    sizes = np.ones(pictures, np.int64)
    rankings = [
        [_Ranking.of(score_matrix[:, place], truth[:, place]) for place in range(truth.shape[1])]
        for score_matrix in scores
    ]
    observed = _average_precisions(sizes[None, :], rankings)
    drawn = _counts(sizes, min(resamples, allowed), seed)
    draws = np.concatenate([_average_precisions(counts, rankings) for counts in drawn])
    return Resampled(observed[0], draws[~np.isnan(draws[:, 0])])


def crossed(values: Doubles, resamples: int, seed: int) -> Doubles:
    """Means (R,) of `values` (S, N) with both rows and columns resampled (Owen 2007).

    For an average over draws of shots and over pictures: it strays with either.
    """
    columns, sizes = np.unique(values, axis=1, return_counts=True)
    dice = np.random.default_rng((seed, len(values)))
    even = np.full(len(values), 1 / len(values))
    parts = []
    for counts in _counts(sizes, resamples, seed):
        rows = dice.multinomial(len(values), even, size=len(counts)) / len(values)
        parts.append(((counts @ columns.T) * rows).sum(axis=1) / values.shape[1])
    return np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class _Ranking:
    """Pictures (N,) best first, which of them are of the class, and where equal scores end."""

    order: Places
    own: Truth
    ends: Places

    @classmethod
    def of(cls, scores: Floats, own: Truth) -> "_Ranking":
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        # equal scores share a threshold, so precision is that at the last of them
        ends = np.searchsorted(-ranked, -ranked, side="right") - 1
        return cls(order, own[order], ends[own[order]])


def _average_precisions(counts: Places, rankings: list[list[_Ranking]]) -> Doubles:
    """(R, N) -> (R, K): the mean over classes for each candidate; NaN without any label."""
    weights = np.ascontiguousarray(counts.T, np.float32)
    means = []
    for classes in rankings:
        each = np.stack([_average_precision(weights, ranking) for ranking in classes])
        with np.errstate(invalid="ignore"):
            means.append(np.nansum(each, axis=0) / (~np.isnan(each)).sum(axis=0))
    return np.stack(means, axis=1)


def _average_precision(weights: Floats, ranking: _Ranking) -> Doubles:
    """(N, R) -> (R,): sum of precision x gain in recall; NaN without a picture of the class."""
    ranked = weights[ranking.order]
    above = np.cumsum(ranked, axis=0, dtype=np.float32)[ranking.ends]
    own = np.where(ranking.own[:, None], ranked, np.float32(0))
    right = np.cumsum(own, axis=0, dtype=np.float32)[ranking.ends]
    gains = ranked[ranking.own]
    total = gains.sum(axis=0, dtype=np.float64)
    precision = right / np.maximum(above, 1)
    summed = (gains * precision).sum(axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(summed / total, np.float64)


def _grouped(right: Truth, targets: Places) -> _Groups:
    keys = np.column_stack([targets, right.astype(np.int64)])
    patterns, sizes = np.unique(keys, axis=0, return_counts=True)
    starts = np.flatnonzero(np.r_[True, np.diff(patterns[:, 0]) != 0])
    return _Groups(patterns[:, 1:] > 0, starts, sizes)


def _counts(sizes: Places, resamples: int, seed: int) -> Iterator[Places]:
    """How often each group is drawn, (at most BLOCK / G, G) at a time."""
    dice = np.random.default_rng(seed)
    pictures, step = int(sizes.sum()), max(1, BLOCK // len(sizes))
    for start in range(0, resamples, step):
        draws = min(step, resamples - start)
        yield dice.multinomial(pictures, sizes / pictures, size=draws)


def _over_groups(
    figure: Callable[[Places, _Groups], Doubles], groups: _Groups, resamples: int, seed: int
) -> Resampled:
    drawn = [figure(counts, groups) for counts in _counts(groups.sizes, resamples, seed)]
    return Resampled(figure(groups.sizes[None, :], groups)[0], np.concatenate(drawn))


def _shares(counts: Places, groups: _Groups) -> Doubles:
    """(R, G) -> (R, K)."""
    hits = counts @ groups.right.astype(np.float64)
    return np.asarray(hits / counts.sum(axis=1, keepdims=True), np.float64)


def _shares_per_class(counts: Places, groups: _Groups) -> Doubles:
    """(R, G) -> (R, K)."""
    of_class = np.add.reduceat(counts, groups.starts, axis=1)
    drawn = (of_class > 0).sum(axis=1)
    columns = []
    for right in groups.right.T:
        hits = np.add.reduceat(np.where(right, counts, 0), groups.starts, axis=1)
        columns.append((hits / np.maximum(of_class, 1)).sum(axis=1) / drawn)
    return np.stack(columns, axis=1)


# the error that is accepted when a difference is called real
ALPHA: Final = 0.05

# how often a difference is to be seen that is called detectable
POWER: Final = 0.8


def bootstrap_p(differences: Doubles) -> float:
    """Two-sided, from resampled differences (R,): how often they lie on the other side of 0."""
    # sums over classes that differ in their order alone are no difference
    rounded = np.round(differences, 12)
    below, above = int((rounded <= 0).sum()), int((rounded >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (len(differences) + 1))


def mcnemar_p(only_one: int, only_other: int) -> float:
    """McNemar's exact test: of the pictures on which two disagree, each is right on half.

    The bootstrap is too sure where few pictures differ; this counts them exactly.
    """
    disagreed, fewer = only_one + only_other, min(only_one, only_other)
    if only_one == only_other:
        return 1.0
    step = np.arange(fewer, dtype=np.float64)
    # logarithms of binomial coefficients, which themselves overflow
    ways = np.r_[0.0, np.cumsum(np.log(disagreed - step) - np.log(step + 1))]
    tail = math.fsum(np.exp(ways - disagreed * math.log(2)))
    return min(1.0, 2 * tail)


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected for their number, in their order: real at 5 % if at most ALPHA (Holm 1979)."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - rank)))
        corrected[place] = largest
    return corrected


def detectable(spread: float, pictures: int, compared: int, *, exact: bool) -> float:
    """The least true difference that this many pictures show in 4 of 5 trials, as a share.

    `spread` is the standard error of the difference, `compared` the number of comparisons that it
    is corrected for, by the strictest of Holm's steps. An `exact` test needs so many pictures that
    differ, all in one direction, however small the spread; how many differ is Poisson distributed.
    """
    level = ALPHA / compared
    normal = NormalDist().inv_cdf
    seen = (normal(1 - level / 2) + normal(POWER)) * spread
    if not exact:
        return seen
    fewest = math.ceil(math.log2(2 / level))
    return min(1.0, max(seen, _expected(fewest) / pictures))


def _expected(fewest: int) -> float:
    """The mean of a Poisson distribution that is `fewest` or more with a chance of POWER."""
    low, high = 0.0, 2.0 * fewest + 4
    for _ in range(50):
        mean = (low + high) / 2
        terms = (mean**count / math.factorial(count) for count in range(fewest))
        enough = 1 - math.exp(-mean) * math.fsum(terms) >= POWER
        low, high = (low, mean) if enough else (mean, high)
    return high
