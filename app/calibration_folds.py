"""Fifths of the pictures, so that figures are of pictures that nothing was fitted to. Pure numpy.

Knows nothing of what is fitted.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]

FOLDS: Final = 5


def splits(count: int, seed: int) -> Iterator[tuple[Places, Places]]:
    """Where to fit and where to measure, each of `count` pictures measured once."""
    fold = np.random.default_rng(seed).permutation(np.arange(count) % FOLDS)
    for one in range(FOLDS):
        yield np.flatnonzero(fold != one), np.flatnonzero(fold == one)
