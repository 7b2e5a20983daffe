"""What the sentence encoder says of texts, as lessons for the text tower.

Knows the work folder's texts and the teacher's rows; knows nothing of pictures.
"""

import json
from pathlib import Path

import numpy as np
import torch
from bridge import in_space
from numpy.typing import NDArray
from texts import Tokens
from torch import Tensor
from vocabulary import forms

# shares of the texts in a batch
GROUPS = {"captions": 0.32, "imagenet": 0.13, "nouns": 0.35, "tokens": 0.20}
BARE = 0.4  # share of the batches without templates


class WordLesson:
    """Texts and where the teacher puts them, centred."""

    def __init__(self, work: Path, seed: int) -> None:
        groups = json.loads((work / "texts.json").read_text())
        self.texts: list[str] = [text for group in groups.values() for text in group]
        weight = [np.full(len(t), GROUPS.get(g, 0.0) / len(t)) for g, t in groups.items()]
        self.bounds = np.cumsum(np.concatenate(weight))
        rows = torch.from_numpy(np.load(work / "teacher.npy")).float()
        bare, photo = rows[: len(self.texts)], rows[len(self.texts) :]
        self.mean = bare.mean(0)
        bare = bare - self.mean
        # of captions the mean of the word alone and the word in "a photo of a"
        bare[: len(photo)] += photo - photo.mean(0)
        self.targets = in_space(bare)
        self.row = {text: i for i, text in enumerate(self.texts)}
        self.tokens = Tokens(seed, forms())

    def draw(self, size: int) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
        """Tokens (B, L) of texts, all bare or each in a template, where each ends (B,), and the
        texts' numbers (B,)."""
        rng = self.tokens.rng
        rows = np.searchsorted(self.bounds, rng.random(size) * self.bounds[-1])
        rows = np.minimum(rows, len(self.texts) - 1)
        bare = bool(rng.random() < BARE)
        return *self.tokens.batch([self.texts[i] for i in rows], bare), rows

    def of(self, texts: list[str]) -> Tensor:
        """Where the teacher puts these texts, unit rows."""
        return self.targets[[self.row[text] for text in texts]]
