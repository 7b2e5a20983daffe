"""How far confidence can be trusted: reliability in bins. Pure functions of arrays."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from app.arrays import Doubles, Places, Truth
from models.info import Floats

# equal-width bins of confidence, as Guo et al. 2017 have them
BINS: Final = 15


@dataclass(frozen=True, slots=True)
class Reliability:
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


def reliability(confidence: Floats, right: Truth) -> Reliability:
    """`confidence` (M,) in 0..1 of M claims, and whether each was `right`. Bins are (low, high]."""
    edges = np.linspace(0.0, 1.0, BINS + 1)
    place = np.searchsorted(edges[1:-1], confidence.astype(np.float64))
    count = np.bincount(place, minlength=BINS).astype(np.int64)
    sums = np.bincount(place, weights=confidence, minlength=BINS)
    hits = np.bincount(place, weights=right, minlength=BINS)
    means = shares_of(sums, count, np.nan)
    accuracy = shares_of(hits, count, np.nan)
    gaps = np.abs(sums - hits)
    largest = float(np.nanmax(np.abs(means - accuracy))) if len(confidence) else 0.0
    total = max(1, len(confidence))
    return Reliability(
        count=count,
        confidence=means,
        accuracy=accuracy,
        error=float(gaps.sum() / total),
        largest=largest,
        mean_confidence=float(sums.sum() / total),
    )


def shares_of(part: npt.NDArray[np.generic], whole: Places, empty: float) -> Doubles:
    """`part` of `whole`, both (B,); `empty` where the whole is 0."""
    out = np.full(len(whole), empty)
    np.divide(part, whole, out=out, where=whole > 0)
    return out
