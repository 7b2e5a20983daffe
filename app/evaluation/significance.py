"""Which difference between two candidates is real: p-values, their correction, what goes unseen.

Pure functions of counts and resampled figures; knows nothing of what is compared.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from app.evaluation.resampling import Figures

# the error that is accepted when a difference is called real
ALPHA: Final = 0.05

# normal quantiles of 97.5 % (two-sided 5 %) and 80 % (power)
_Z_ALPHA: Final = 1.959964
_Z_POWER: Final = 0.841621


def bootstrap_p(differences: Figures) -> float:
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


def detectable(spread: float, pictures: int) -> float:
    """The least true difference that this many pictures show in 4 of 5 trials, as a share.

    `spread` is the standard error of the difference. An exact test at 5 % needs at least 6
    pictures that differ, all in one direction, however small the spread.
    """
    return max((_Z_ALPHA + _Z_POWER) * spread, 6 / pictures)
