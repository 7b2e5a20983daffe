"""Cut labelled pictures into two halves, each class in half. Knows nothing of their use."""

import numpy as np

from app.evaluation.data import Places, Truth


def halves(truth: Truth, seed: int) -> tuple[Places, Places]:
    """Two sorted, disjoint sets of the N places of `truth` (N, C), equal but for one picture.

    A picture of several classes counts for its rarest, one of none for a class of such. Of a class
    with an odd number of pictures one half gets one more, turn by turn.
    """
    dice = np.random.default_rng(seed)
    kinds = kinds_of(truth)
    order = dice.permutation(len(kinds))
    order = order[np.argsort(kinds[order], kind="stable")]
    # every other picture of a row ordered by class: no class is off by more than one
    return np.sort(order[0::2]), np.sort(order[1::2])


def kinds_of(truth: Truth) -> Places:
    """The class (N,) that a picture counts for: its rarest; C for one without any."""
    counts = truth.sum(axis=0)
    rarity = np.where(truth, counts, np.iinfo(np.int64).max)
    return np.asarray(np.where(truth.any(axis=1), rarity.argmin(axis=1), truth.shape[1]), np.int64)
