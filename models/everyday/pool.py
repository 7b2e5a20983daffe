"""What the head is trained on: features of drawings, of photographs, and made up ones.

Knows the shards that views.py writes; knows nothing of texts.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from drawer import Drawer
from numpy.typing import NDArray
from torch import Tensor

SPREAD = 0.02  # added to standard deviations before they are divided
MIXED = 0.3  # share of the drawings that are mixed with another drawing of the same thing
RESTYLED = 0.7  # share of the drawings that are made more like photographs, more or less
LAID = 0.5  # share of the drawings that are laid on a photograph, of which up to half is seen


class Pool:
    """The views written so far; looks for new ones now and then."""

    def __init__(self, folder: Path, drawer: Drawer, seed: int) -> None:
        self.folder, self.drawer, self.rng = folder, drawer, np.random.default_rng(seed)
        self.known: set[Path] = set()
        self.features = np.zeros((0, 1280), np.float16)
        self.concepts = np.zeros(0, np.int64)
        self.scenes = np.zeros((0, 1280), np.float16)
        self.logits = np.zeros((0, 1000), np.float16)
        self.look()

    def look(self) -> None:
        fresh = sorted(set(self.folder.glob("*.features.npy")) - self.known)
        self.known.update(fresh)
        for path in fresh:
            rows = np.load(path)
            if path.name.startswith("drawings"):
                pictures = np.load(str(path).replace(".features.", ".pictures."))
                self.features = np.concatenate([self.features, rows])
                self.concepts = np.concatenate([self.concepts, self.drawer.concept[pictures]])
            else:
                self.scenes = np.concatenate([self.scenes, rows])
                logits = np.load(str(path).replace(".features.", ".logits."))
                self.logits = np.concatenate([self.logits, logits])
        if fresh:
            order = np.argsort(self.concepts, kind="stable")
            self.ordered = order
            self.bounds = np.searchsorted(
                self.concepts[order], np.arange(len(self.drawer.records) + 1)
            )

    def draw(self, size: int) -> tuple[Tensor, NDArray[np.int64]]:
        """Features (size, 1280) of different concepts, and the concepts."""
        some = self.rng.permutation(len(self.concepts))[: 3 * size]
        _, first = np.unique(self.concepts[some], return_index=True)
        rows = some[self.rng.permutation(first)[:size]]
        concepts = self.concepts[rows]
        features = self.features[rows].astype(np.float32)
        low, high = self.bounds[concepts], self.bounds[concepts + 1]
        other = self.ordered[low + (self.rng.random(len(rows)) * (high - low)).astype(np.int64)]
        share = self.rng.random(len(rows)) * 0.5 * (self.rng.random(len(rows)) < MIXED)
        weight = share[:, None].astype(np.float32)
        mixed = features * (1 - weight) + self.features[other].astype(np.float32) * weight
        return torch.from_numpy(mixed), concepts

    def draw_scenes(self, size: int) -> tuple[Tensor, Tensor]:
        """Features of photographs and the classifier's logits."""
        some = self.rng.integers(len(self.scenes), size=size)
        features, logits = self.scenes[some], self.logits[some]
        return torch.from_numpy(features).float(), torch.from_numpy(logits).float()


class Imagined:
    """Features as photographs of any class would have them. A linear classifier's weights are those
    of discriminant analysis, covariance^-1 (mean of the class - mean), so the covariance times the
    weights leads from a photograph's features towards a class (Fisher 1936). That way the head
    meets all 1,000 classes, of which the photographs at hand show few."""

    def __init__(self, net: Any, scenes: NDArray[np.float16], seed: int) -> None:
        self.weight, self.bias = net.classifier.weight, net.classifier.bias
        rows = torch.from_numpy(scenes.astype(np.float32))
        covariance = torch.cov(rows.T)
        towards = (self.weight - self.weight.mean(0)) @ covariance
        # of a length that raises the class's own logit by one
        self.towards = towards / (towards * self.weight).sum(1, keepdim=True)
        self.generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def draw(self, scenes: Tensor) -> tuple[Tensor, Tensor]:
        """Photographs' features (B, 1280) turned into others', and the classifier's logits."""
        n, g = len(scenes), self.generator
        first = torch.randint(1000, (n,), generator=g)
        second = torch.randint(1000, (n,), generator=g)
        strength = torch.rand(n, 1, generator=g) * 8 + 6
        less = strength * torch.rand(n, 1, generator=g) * (torch.rand(n, 1, generator=g) < 0.4)
        rows = 0.6 * scenes + strength * self.towards[first] + less * self.towards[second]
        rows = rows.clamp(min=0)  # they come out of a rectifier
        return rows, rows @ self.weight.T + self.bias


class Photographic:
    """Drawings' features as a photograph of the thing would have them, more or less: with mean and
    spread of photographs' features (the diagonal of CORAL, Sun et al. 2016, arXiv 1511.05547), and
    laid on a photograph, since pooling is a mean. So what a drawing teaches holds there, too."""

    def __init__(self, drawings: NDArray[np.float16], photographs: Tensor, seed: int) -> None:
        rows = torch.from_numpy(drawings.astype(np.float32))
        self.mean, self.goal = rows.mean(0), photographs.mean(0)
        self.ratio = (photographs.std(0) + SPREAD) / (rows.std(0) + SPREAD)
        self.generator = torch.Generator().manual_seed(seed)

    def _shares(self, rows: int, of: float) -> Tensor:
        g = self.generator
        return torch.rand(rows, 1, generator=g) * (torch.rand(rows, 1, generator=g) < of)

    def __call__(self, features: Tensor, scenes: Tensor) -> Tensor:
        """Both (B, 1280)."""
        like = (features - self.mean) * self.ratio + self.goal
        rows = torch.lerp(features, like, self._shares(len(features), RESTYLED)).clamp(min=0)
        return torch.lerp(rows, scenes, self._shares(len(features), LAID) / 2)
