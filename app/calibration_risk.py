"""The risk of answering: how large it may be after what was counted, and its curve over coverage.

Pure numpy; knows nothing of what is answered.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Truth = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Curve:
    """Risk among the answered (M,) for each coverage (M,); `area` (AURC) is the mean risk.

    Coverage and risk are of all pictures, most confident first; equals come together.
    """

    coverage: Doubles
    risk: Doubles
    area: float


def fewest_answers(risk: float, confidence: float) -> int:
    """How many answers, all of them right, show that the risk is `risk` at most."""
    if risk >= 1:
        return 0
    return math.ceil(math.log(1 - confidence) / math.log1p(-risk)) if risk else 10**9


def at_most(wrong: int, answered: int, confidence: float) -> float:
    """The largest risk that such a count leaves possible (Clopper and Pearson 1934, one-sided)."""
    if wrong >= answered:
        return 1.0
    low, high = wrong / answered, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if _below(wrong, answered, middle) > 1 - confidence else (low, middle)
        )
    return high


def risk_coverage(confidence: Doubles, right: Truth) -> Curve:
    """What answering only the most confident gives: `confidence` (N,), whether it was `right`."""
    order = np.argsort(-confidence, kind="stable")
    count = np.arange(1, len(order) + 1)
    risk = np.cumsum(~right[order]) / count
    last = np.append(np.diff(confidence[order]) != 0, True)
    # within equals the order is chance: each has the risk of all of them
    risk = risk[last][np.searchsorted(count[last], count)]
    return Curve(count[last] / len(order), risk[last], float(risk.mean()))


def _below(wrong: int, answered: int, risk: float) -> float:
    """The chance of `wrong` wrong answers or fewer out of `answered`, each wrong at `risk`."""
    if risk >= 1:
        return 0.0
    k = np.arange(wrong + 1)
    choose_k = np.concatenate([[0.0], np.cumsum(np.log((answered - k[:-1]) / (k[:-1] + 1)))])
    logs = choose_k + k * math.log(max(risk, 1e-300)) + (answered - k) * math.log1p(-risk)
    return float(np.exp(logs).sum())
