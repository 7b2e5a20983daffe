"""Draw training batches: concepts, one picture of each, one caption of each.

Knows the work folder's arrays; knows nothing of the model or the loss.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from augment import augment
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


class Drawer:
    """Concepts without replacement; a share of the batch comes from the one-colour sets. A concept
    outside the emoji is drawn `others` times as often as an emoji."""

    def __init__(self, work: Path, seed: int, others: float) -> None:
        self.rng = np.random.default_rng(seed)
        self.concept: NDArray[np.int64] = np.load(work / "train_concept.npy")
        self.weight: NDArray[np.float32] = np.load(work / "train_weight.npy")
        self.one_colour: NDArray[np.bool_] = np.load(work / "train_one_colour.npy")
        self.records: list[dict[str, Any]] = json.loads((work / "concepts.json").read_text())
        self.shares, self.rows = [], []
        for mono in (False, True):
            rows = self._rows(self.one_colour == mono)
            weight = np.array([1.0 if r["emoji"] else others for r in self.records])
            weight[[i for i, (found, _) in enumerate(rows) if len(found) == 0]] = 0
            self.shares.append(weight / weight.sum())
            self.rows.append(rows)
        self.texts = sorted({t for r in self.records for t, _ in r["captions"]})
        number = {t: i for i, t in enumerate(self.texts)}
        self.true_of = np.zeros((len(self.texts), len(self.records)), bool)
        self.captions = []
        for i, r in enumerate(self.records):
            of = np.array([number[t] for t, _ in r["captions"]])
            self.captions.append((of, np.cumsum([w for _, w in r["captions"]])))
            self.true_of[of, i] = True

    def _rows(self, use: NDArray[np.bool_]) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Every concept's pictures among `use`, with their cumulative weights."""
        order = np.flatnonzero(use)[np.argsort(self.concept[use], kind="stable")]
        bounds = np.searchsorted(self.concept[order], np.arange(len(self.records) + 1))
        parts = [order[bounds[i] : bounds[i + 1]] for i in range(len(self.records))]
        return [(p, np.cumsum(self.weight[p], dtype=np.float64)) for p in parts]

    def _pick(self, rows: NDArray[np.int64], cumulative: NDArray[np.float64]) -> int:
        at = np.searchsorted(cumulative, self.rng.random() * cumulative[-1])
        return int(rows[min(at, len(rows) - 1)])

    def draw(self, size: int, one_colour_share: float) -> Draw:
        mono = int(self.rng.binomial(size, one_colour_share))
        first = self.rng.choice(len(self.records), size - mono, replace=False, p=self.shares[0])
        rest = self.shares[1].copy()
        rest[first] = 0
        second = self.rng.choice(len(rest), mono, replace=False, p=rest / rest.sum())
        pictures = [self._pick(*self.rows[0][c]) for c in first]
        pictures += [self._pick(*self.rows[1][c]) for c in second]
        concepts = np.concatenate([first, second])
        captions = [self._pick(*self.captions[c]) for c in concepts]
        mixed = self.rng.permutation(size)  # each process takes a part; all parts shall be alike
        bare = bool(self.rng.random() < BARE)
        return Draw(concepts[mixed], np.array(pictures)[mixed], np.array(captions)[mixed], bare)


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
