"""Fit the scale of a label set's scores to labelled pictures. Pure numpy; knows no label's name.

Temperature scaling (Guo et al. 2017, arXiv 1706.04599): one number, so that a score says how often
it is right; for sigmoid-trained models scale and bias (Platt 1999). The likelihood alone would make
scores certain where every picture is right, so PRIOR pictures are added that came out as the model
itself expects: the optimum is finite, and few pictures move the model's own scale little.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from app.arrays import Doubles, Places, Truth
from app.classify.scoring import log_softmax
from models.info import Floats

PRIOR: Final = 10.0

# the fitted scale is within this factor of the model's own
WIDEST: Final = 50.0

# numbers of the matrix that are worked on at once, in float64
CELLS: Final = 1 << 20

STEPS: Final = 60
CLOSE: Final = 1e-7

# logits of a sigmoid are moved by so much at once: where it is flat, Newton's step goes far too far
LONGEST: Final = 4.0


def fit_scale(cosines: Floats, own: Places, scale: float) -> float:
    """The scale that makes softmax(scale x cosine) (N, C) most likely for the labels `own` (N,).

    The loss is convex in the scale, so its slope has one zero: Newton's steps, bisection where they
    leave the bracket.
    """
    weight = PRIOR / len(own)
    expected = _moments(cosines, scale)[0].sum()
    reached = np.take_along_axis(cosines, own[:, None], axis=1).sum(dtype=np.float64)
    target = reached + weight * expected
    low, high, at = scale / WIDEST, scale * WIDEST, scale
    for _ in range(STEPS):
        mean, variance = _moments(cosines, at)
        slope = (1 + weight) * mean.sum() - target
        curve = (1 + weight) * variance.sum()
        low, high = (low, at) if slope > 0 else (at, high)
        step = at - slope / curve if curve > 0 else -1.0
        new = step if low < step < high else float(np.sqrt(low * high))
        if abs(new - at) <= CLOSE * at:
            return float(new)
        at = new
    return float(at)


def fit_sigmoid(cosines: Floats, truth: Truth, scale: float, bias: float) -> tuple[float, float]:
    """The same for sigmoid(scale x cosine + bias), each picture with each label a case of its own.

    `truth` (N, C) may hold any number of labels a picture. Newton's method, steps cut to LONGEST
    and halved until the loss falls; the bias alone moves where the scale is at an end of its range.
    """
    low, high, most = scale / WIDEST, scale * WIDEST, float(np.abs(cosines).max(initial=0))
    weight = PRIOR / max(1, len(cosines))
    start = np.array([scale, bias])
    at = start
    loss = _pairs_loss(cosines, truth, start, at, weight)
    for _ in range(STEPS):
        slope, curve = _pairs_slope(cosines, truth, start, at, weight)
        ridge = 1e-12 * (1 + np.trace(curve))
        step = np.linalg.solve(curve + ridge * np.eye(2), slope)
        if (at[0] <= low and step[0] > 0) or (at[0] >= high and step[0] < 0):
            step = np.array([0.0, slope[1] / (curve[1, 1] + ridge)])
        step *= LONGEST / max(LONGEST, abs(step[0]) * most + abs(step[1]))
        for halving in range(30):
            new = at - step / 2**halving
            new[0] = min(max(new[0], low), high)
            new_loss = _pairs_loss(cosines, truth, start, new, weight)
            if new_loss <= loss:
                break
        else:
            break
        converged = bool(np.all(np.abs(new - at) <= CLOSE * np.abs(at) + CLOSE))
        at, loss = new, new_loss
        if converged:
            break
    return float(at[0]), float(at[1])


def log_likelihoods(
    cosines: Floats, own: Places, scale: float, bias: float | None = None
) -> Doubles:
    """The log likelihood (N,) of each picture's own label under softmax(scale x cosine).

    With a bias: of all its labels under their sigmoids.
    """
    likelihoods = np.empty(len(own))
    for rows in _blocks(cosines):
        logits = scale * cosines[rows].astype(np.float64) + (bias or 0.0)
        if bias is None:
            shares = log_softmax(logits)
            likelihoods[rows] = np.take_along_axis(shares, own[rows, None], axis=1)[:, 0]
        else:
            reached = np.take_along_axis(logits, own[rows, None], axis=1)[:, 0]
            likelihoods[rows] = reached - np.logaddexp(0, logits).sum(axis=1)
    return likelihoods


def best_scores(cosines: Floats, scale: float, bias: float | None = None) -> Doubles:
    """The score (N,) of each picture's best label: softmax, or with a bias sigmoid."""
    scores = np.empty(len(cosines))
    for rows in _blocks(cosines):
        logits = scale * cosines[rows].astype(np.float64)
        if bias is None:
            scores[rows] = np.exp(log_softmax(logits).max(axis=1))
        else:
            scores[rows] = _sigmoid(logits.max(axis=1) + bias)
    return scores


def _moments(cosines: Floats, scale: float) -> tuple[Doubles, Doubles]:
    """Mean and variance (N,) of each row's cosines under softmax(scale x cosine)."""
    mean, variance = np.empty(len(cosines)), np.empty(len(cosines))
    for rows in _blocks(cosines):
        block = cosines[rows].astype(np.float64)
        powers = np.exp(log_softmax(scale * block))
        mean[rows] = (powers * block).sum(axis=1)
        variance[rows] = (powers * (block - mean[rows, None]) ** 2).sum(axis=1)
    return mean, variance


def _pairs_loss(cosines: Floats, truth: Truth, start: Doubles, at: Doubles, weight: float) -> float:
    total = 0.0
    for block, targets, all_of in _pairs(cosines, truth, start, weight):
        logits = at[0] * block + at[1]
        total += float((all_of * np.logaddexp(0, logits) - targets * logits).sum())
    return total


def _pairs_slope(
    cosines: Floats, truth: Truth, start: Doubles, at: Doubles, weight: float
) -> tuple[Doubles, Doubles]:
    slope, curve = np.zeros(2), np.zeros((2, 2))
    for block, targets, all_of in _pairs(cosines, truth, start, weight):
        share = _sigmoid(at[0] * block + at[1])
        off = all_of * share - targets
        bent = all_of * share * (1 - share)
        slope += (off * block).sum(), off.sum()
        cross = (bent * block).sum()
        curve += [[(bent * block**2).sum(), cross], [cross, bent.sum()]]
    return slope, curve


def _pairs(
    cosines: Floats, truth: Truth, start: Doubles, weight: float
) -> Iterator[tuple[Doubles, Doubles, float]]:
    """Cosines, how much says yes for each, and how much there is of each: 1 and the prior."""
    for rows in _blocks(cosines):
        block = cosines[rows].astype(np.float64)
        expected = _sigmoid(start[0] * block + start[1])
        yield block, truth[rows] + weight * expected, 1 + weight


def _sigmoid(logits: Doubles) -> Doubles:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), np.float64)


def _blocks(cosines: Floats) -> Iterator[slice]:
    step = max(1, CELLS // cosines.shape[1])
    return (slice(at, at + step) for at in range(0, len(cosines), step))
