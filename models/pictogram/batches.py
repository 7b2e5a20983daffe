"""Draw training batches: concepts, one picture of each, one caption of each.

Knows the work folder's arrays; knows nothing of the model or the loss.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from augment import augment
from drawer import Drawer
from network import IMAGE_SIZE
from numpy.typing import NDArray
from texts import Tokens
from torch import Tensor

BARE = 0.5  # share of batches without templates; half as long, they take half the text time


@dataclass(frozen=True, slots=True)
class Draw:
    """One batch as numbers: the same in every process that draws with the same seed."""

    concepts: NDArray[np.int64]
    pictures: NDArray[np.int64]
    captions: NDArray[np.int64]
    bare: bool


def draw_batch(drawer: Drawer, size: int, one_colour_share: float) -> Draw:
    """Different concepts, one picture and one caption of each."""
    pictures = drawer.pictures(size, one_colour_share)
    concepts = drawer.concept[pictures]
    captions = np.array([drawer.caption(c) for c in concepts])
    return Draw(concepts, pictures, captions, bool(drawer.rng.random() < BARE))


class Loader:
    """The pixels and tokens of one part of a draw."""

    def __init__(self, work: Path, drawer: Drawer, seed: int) -> None:
        self.pixels: NDArray[np.uint8] = np.load(work / "train_pixels.npy", mmap_mode="r")
        self.drawer = drawer
        self.sided = np.array([bool(r["sided"]) for r in drawer.records])
        self.tokens = Tokens(seed)

    def load(self, draw: Draw, part: slice, strength: float) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures (n, 3, size, size) in -1..1, tokens (n, L), ends (n,)."""
        rows = draw.pictures[part]
        images = augment(
            torch.from_numpy(self.pixels[rows]),
            IMAGE_SIZE,
            torch.from_numpy(~self.sided[draw.concepts[part]]),
            torch.from_numpy(self.drawer.one_colour[rows]),
            strength,
        )
        texts = [self.drawer.texts[i] for i in draw.captions[part]]
        return images, *self.tokens.batch(texts, draw.bare)
