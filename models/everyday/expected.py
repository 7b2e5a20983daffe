"""Where pictures of a word would lie that no picture of the training shows.

A kernel ridge regression from the sentence encoder's rows to places of pictures: words of like
meaning have like pictures. Texts go to the pictures, not pictures to the texts: then fewer texts
are nearest to many wrong pictures (Shigeto et al. 2015, arXiv 1507.00825). Knows tensors only, no
files.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

SHARPNESS = 8.0  # of the likeness of two words
NOISE = 0.5  # added to the kernel's diagonal, which is 1
GENERAL = 8  # things at most that a text says something of: "animal" has no place of its own


def text_places(
    rows: Tensor, concepts: NDArray[np.int64], true_of: NDArray[np.bool_]
) -> tuple[Tensor, NDArray[np.int64]]:
    """Unit rows of pictures (N, D), the thing that each shows, and of which things each text is
    true (T, C) -> the mean places (P, D) of the texts' things against those of all things, and
    the numbers (P,) of the texts. A thing counts once, however many pictures it has."""
    things = torch.zeros(true_of.shape[1], rows.shape[1])
    things.index_add_(0, torch.from_numpy(concepts), rows)
    count = torch.bincount(torch.from_numpy(concepts), minlength=len(things))
    shown = count > 0
    things[shown] /= count[shown][:, None]
    things[shown] -= things[shown].mean(0)
    true = torch.from_numpy(true_of) & shown
    use = (true.sum(1) > 0) & (true.sum(1) <= GENERAL)
    weight = true[use].float()
    return (weight / weight.sum(1, keepdim=True)) @ things, use.nonzero()[:, 0].numpy()


class Expected:
    """Learnt from texts (N, E), unit rows of the sentence encoder, and their places (N, D): the
    weights are (K + NOISE I)^-1 places, where K = exp(SHARPNESS (cosine - 1))."""

    def __init__(self, texts: Tensor, places: Tensor) -> None:
        self.texts = texts
        kernel = self._likeness(texts)
        kernel.diagonal().add_(NOISE)
        self.weights = torch.cholesky_solve(places, torch.linalg.cholesky(kernel))

    def _likeness(self, texts: Tensor) -> Tensor:
        return torch.exp(SHARPNESS * (texts @ self.texts.T - 1))

    def __call__(self, texts: Tensor) -> Tensor:
        """(B, E), unit rows of the sentence encoder -> directions (B, D), unit rows."""
        return functional.normalize(self._likeness(texts) @ self.weights, dim=1)
