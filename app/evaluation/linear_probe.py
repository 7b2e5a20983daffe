"""A logistic regression on image vectors: the linear probe of the CLIP paper. Needs scikit-learn.

Knows nothing of shots or text. Radford et al. 2021, section A.3: L-BFGS, 1,000 iterations at most,
the L2 strength found by a sweep from 1e-6 to 1e6, coarse first and fine around the peak. Rows are
centred and scaled by the shots, all dimensions alike.
"""

import warnings
from typing import Final

import numpy as np
from threadpoolctl import threadpool_limits

from app.arrays import Doubles, Places
from app.classify import scoring
from models.info import Floats

INSTALL: Final = "--shots needs scikit-learn: pip install 'openvocab[eval]'"

# logarithms to base 10 of the strengths that are tried first; then the steps around the best
COARSE: Final = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)
STEPS: Final = (1.0, 0.5, 0.25, 0.125)

# where one picture a class leaves none to choose by
WITHOUT_CHOICE: Final = 0.0

ITERATIONS: Final = 1_000
FOLDS: Final = 4

# multiplications of an iteration: below, threads wait for each other; above, one fold has to do
SMALL: Final = 20_000_000
LARGE: Final = 500_000_000


class NoScikitLearn(RuntimeError):
    """scikit-learn is not installed; a line for a person."""


def available() -> None:
    """Raises NoScikitLearn."""
    try:
        import sklearn.linear_model  # noqa: F401
    except ImportError:
        raise NoScikitLearn(INSTALL) from None


def strength(rows: Floats, targets: Places) -> float:
    """The logarithm of the L2 strength that is most often right on shots held out of (N, D).

    Each fold holds out every FOLDS-th shot of each class, never the only one. Of equal strengths
    the one with the larger log-probability wins. WITHOUT_CHOICE where no class has two shots.
    """
    folds = _folds(targets)
    if not folds.any():
        return WITHOUT_CHOICE
    tried: dict[float, tuple[float, float]] = {}

    def best_of(powers: list[float]) -> float:
        for power in powers:
            if power not in tried and COARSE[0] <= power <= COARSE[-1]:
                tried[power] = _worth(rows, targets, folds, power)
        return max(tried, key=lambda power: (*tried[power], power))

    best = best_of(list(COARSE))
    for step in STEPS:
        best = best_of([best - step, best + step])
    return best


def predictions(rows: Floats, targets: Places, power: float, pictures: Floats) -> Places:
    """The class (M,) of each of `pictures` (M, D), by shots (N, D)."""
    if len(np.unique(targets)) == 1:
        return np.full(len(pictures), targets[0])
    probe = _Probe(rows, targets, power)
    return np.asarray(probe.classes[probe.logits(pictures).argmax(axis=1)], np.int64)


def _folds(targets: Places) -> Places:
    """The fold (N,) that holds a shot out: 1 to FOLDS; 0 for the only one of its class."""
    order = np.argsort(targets, kind="stable")
    counts = np.bincount(targets)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    folds = np.empty(len(targets), np.int64)
    folds[order] = (np.arange(len(targets)) - first) % FOLDS + 1
    return np.asarray(np.where(counts[targets] > 1, folds, 0), np.int64)


def _worth(rows: Floats, targets: Places, folds: Places, power: float) -> tuple[float, float]:
    """Held-out shots that are classified correctly, and their log-probability."""
    right, certainty = 0, 0.0
    used = np.unique(folds[folds > 0])
    for fold in used[:1] if rows.size * len(np.unique(targets)) > LARGE else used:
        held = folds == fold
        probe = _Probe(rows[~held], targets[~held], power)
        logits = probe.logits(rows[held])
        own = np.arange(len(logits)), np.searchsorted(probe.classes, targets[held])
        right += int((logits[own] == logits.max(axis=1)).sum())
        certainty += float(scoring.log_softmax(logits)[own].sum())
    return right, round(certainty, 6)


class _Probe:
    """A multinomial logistic regression of two `classes` (C,) or more."""

    def __init__(self, rows: Floats, targets: Places, power: float) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        wide = rows.astype(np.float64)
        # unit rows of one model are all alike: what they share is no help, and slows the search
        self._mean = wide.mean(axis=0)
        self._spread = float((wide - self._mean).std()) or 1.0
        threads = 1 if rows.size * len(np.unique(targets)) < SMALL else None
        model = LogisticRegression(C=10.0**-power, max_iter=ITERATIONS)
        with warnings.catch_warnings(), threadpool_limits(threads):
            # the weakest strengths do not end in time, the paper stops there, too; and one shot of
            # each of many classes is meant
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
            model.fit(self._scaled(rows), targets)
        self._model = model
        self.classes: Places = model.classes_

    def logits(self, pictures: Floats) -> Doubles:
        """(N, D) -> (N, C)."""
        logits_of_classes = np.asarray(
            self._model.decision_function(self._scaled(pictures)), np.float64
        )
        # scikit-learn has one column for two classes
        return (
            logits_of_classes
            if logits_of_classes.ndim == 2
            else np.stack([-logits_of_classes / 2, logits_of_classes / 2], axis=1)
        )

    def _scaled(self, rows: Floats) -> Doubles:
        return np.asarray((rows - self._mean) / self._spread, np.float64)
