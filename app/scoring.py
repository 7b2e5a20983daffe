"""From vectors to scores: cosine similarity, temperature, softmax, sigmoid. Pure functions."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def similarities(image: Floats, classes: Floats) -> Floats:
    """Cosines of `image` (D,) with `classes` (C, D), all unit rows, float32 -> (C,)."""
    return classes @ image


def softmax(cosines: Floats, scale: float) -> Floats:
    """Probabilities (C,) that sum to 1: softmax(scale x cosine), float32.

    `scale` is the learned temperature exp(logit_scale) of Radford et al. 2021, section 2.3.
    """
    logits = np.float32(scale) * cosines
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum(), np.float32)


def sigmoid(cosines: Floats, scale: float, bias: float) -> Floats:
    """Independent probabilities (C,): sigmoid(scale x cosine + bias), Zhai et al. 2023 (SigLIP)."""
    logits = np.float32(scale) * cosines + np.float32(bias)
    # tanh does not overflow where exp would
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)), np.float32)


def against_background(cosines: Floats, background: float, scale: float) -> Floats:
    """Independent scores (C,) of a softmax-trained model: each label alone against a background.

    The two-way softmax of the label and a text that names no thing in particular, which is
    sigmoid(scale x (cosine - background)). Such a model has no offset of its own, so 0.5 means "as
    near as no label at all", not a calibrated probability.
    """
    return sigmoid(cosines, scale, -scale * background)


def rank(scores: Floats, top_k: int, threshold: float | None) -> tuple[int, ...]:
    """Places of the `top_k` best of `scores` (C,) that reach `threshold`, best first.

    Equal scores keep the order of their labels.
    """
    order = np.argsort(-scores, kind="stable")[:top_k]
    if threshold is not None:
        order = order[scores[order] >= threshold]
    return tuple(int(place) for place in order)
