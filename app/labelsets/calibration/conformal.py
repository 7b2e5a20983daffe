"""How large a set of labels must be to hold the right one as often as is promised. Pure numpy.

Split conformal prediction with the score 1 - softmax (Angelopoulos and Bates 2021, arXiv
2107.07511, section 1; Sadinle et al. 2019). The model's own scale is used, since one that was
fitted to the same pictures would void the promise.
"""

import math
from typing import Final

import numpy as np

from app.arrays import Places
from app.classify.scoring import log_softmax
from models.info import Floats

# coverages in percent that have a bound: 1 to 99
PERCENTS: Final = range(1, 100)


def bounds(cosines: Floats, own: Places, scale: float) -> tuple[float, ...]:
    """Of N pictures, cosines (N, C) and the right label of each (N,): for 1 to 99 % how small a
    label's softmax may be, as 1 - softmax, to be in the set still.

    The promise is over pictures like these. Where they are too few for a coverage it is 1: a set
    of all labels.
    """
    shares = np.exp(log_softmax(scale * cosines.astype(np.float64))[np.arange(len(own)), own])
    scores = np.sort(1 - shares)
    ranks = [math.ceil((len(own) + 1) * percent / 100) for percent in PERCENTS]
    return tuple(float(scores[rank - 1]) if rank <= len(own) else 1.0 for rank in ranks)
