"""What the head is trained on: features of drawings, of photographs with labels and without, and
made up ones.

Knows the shards that views.py writes; knows nothing of texts.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from drawer import Drawer
from labelled import Album
from numpy.typing import NDArray
from torch import Tensor

Half = NDArray[np.float16]

SPREAD = 0.02  # added to standard deviations before they are divided
MIXED = 0.3  # share of the drawings that are mixed with another drawing of the same thing
RESTYLED = 0.7  # share of the drawings that are made more like photographs, more or less
LOOKED_BACK = 0.02  # weight of a step's drawings in the mean and spread of all
LAID = 0.5  # share of the drawings that are laid on a photograph, of which up to half is seen


class Shards:
    """Rows of several files as if they were one array; they stay on disk."""

    def __init__(self) -> None:
        self.parts: list[Half] = []
        self.starts = [0]

    def append(self, path: Path) -> None:
        self.parts.append(np.load(path, mmap_mode="r"))
        self.starts.append(self.starts[-1] + len(self.parts[-1]))

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, rows: NDArray[np.int64]) -> Tensor:
        """(N, ...) float32."""
        part = np.searchsorted(self.starts, rows, side="right") - 1
        result = np.empty((len(rows), *self.parts[0].shape[1:]), np.float32)
        for i in np.unique(part):
            inside = part == i
            result[inside] = self.parts[i][rows[inside] - self.starts[i]]
        return torch.from_numpy(result)


class Pool:
    """The views written so far; looks for new ones now and then. `kind` says what is drawn of
    them: "features" (1280), "maps" (208, 9, 9), which the last stages read, or "rows" (640) of the
    finished tower."""

    def __init__(
        self, folder: Path, drawer: Drawer, album: Album, seed: int, kind: str = "features"
    ) -> None:
        self.folder, self.drawer, self.album = folder, drawer, album
        self.rng, self.kind = np.random.default_rng(seed), kind
        self.known: set[Path] = set()
        self.drawings, self.labelled, self.scenes = Shards(), Shards(), Shards()
        self.features, self.logits = Shards(), Shards()  # what the classifier makes of the scenes
        self.concepts = np.zeros(0, np.int64)  # of the drawings
        self.labels = np.zeros(0, np.int64)  # of the labelled
        self.look()

    def look(self) -> None:
        fresh = sorted(set(self.folder.glob("*.features.npy")) - self.known)
        self.known.update(fresh)
        for path in fresh:
            shard = str(path).removesuffix("features.npy")
            if path.name.startswith("drawings"):
                self.drawings.append(Path(f"{shard}{self.kind}.npy"))
                pictures = np.load(f"{shard}pictures.npy")
                self.concepts = np.concatenate([self.concepts, self.drawer.concept[pictures]])
            elif path.name.startswith("labelled"):
                self.labelled.append(Path(f"{shard}{self.kind}.npy"))
                pictures = np.load(f"{shard}pictures.npy")
                self.labels = np.concatenate([self.labels, self.album.label[pictures]])
            else:
                self.scenes.append(Path(f"{shard}{self.kind}.npy"))
                self.features.append(path)
                self.logits.append(Path(f"{shard}logits.npy"))
        if fresh:
            order = np.argsort(self.concepts, kind="stable")
            self.ordered = order
            self.bounds = np.searchsorted(
                self.concepts[order], np.arange(len(self.drawer.records) + 1)
            )

    def draw(self, size: int) -> tuple[Tensor, NDArray[np.int64]]:
        """Drawings (size, ...) of different concepts, and the concepts."""
        sample = self.rng.permutation(len(self.concepts))[: 3 * size]
        _, first = np.unique(self.concepts[sample], return_index=True)
        rows = sample[self.rng.permutation(first)[:size]]
        concepts = self.concepts[rows]
        drawings = self.drawings[rows]
        mixed = np.flatnonzero(self.rng.random(len(rows)) < MIXED)
        low, high = self.bounds[concepts[mixed]], self.bounds[concepts[mixed] + 1]
        partners = self.ordered[low + (self.rng.random(len(mixed)) * (high - low)).astype(np.int64)]
        share = torch.from_numpy(self.rng.random(len(mixed), np.float32) * np.float32(0.5))
        share = share.reshape(-1, *[1] * (drawings.ndim - 1))
        drawings[mixed] = torch.lerp(drawings[mixed], self.drawings[partners], share)
        return drawings, concepts

    def draw_labelled(self, size: int) -> tuple[Tensor, NDArray[np.int64]]:
        """Photographs (up to `size`, ...) of different things, and their labels."""
        sample = self.rng.permutation(len(self.labels))[: 4 * size]
        _, first = np.unique(self.album.concept[self.labels[sample]], return_index=True)
        rows = sample[self.rng.permutation(first)[:size]]
        return self.labelled[rows], self.labels[rows]

    def draw_scenes(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Photographs (size, ...), their features as the classifier has them, and its logits."""
        rows = self.rng.integers(len(self.scenes), size=size)
        features = self.features[rows]
        scenes = features if self.kind == "features" else self.scenes[rows]
        return scenes, features, self.logits[rows]


class Imagined:
    """Features as photographs of any class would have them. A linear classifier's weights are those
    of discriminant analysis, covariance^-1 (mean of the class - mean), so the covariance times the
    weights leads from a photograph's features towards a class (Fisher 1936). That way the head
    meets all 1,000 classes, of which the photographs at hand show few."""

    def __init__(self, net: Any, scenes: Tensor, seed: int) -> None:
        self.weight, self.bias = net.classifier.weight, net.classifier.bias
        covariance = torch.cov(scenes.T)
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
    laid on a photograph, since pooling is a mean. So what a drawing teaches holds there, too.
    `photographs` are many rows; drawings are those of the last steps, since training moves them."""

    def __init__(self, photographs: Tensor, seed: int) -> None:
        self.goal, self.spread = photographs.mean(0), photographs.std(0)
        self.mean, self.square = torch.zeros(1280), torch.zeros(1280)
        self.steps = 0
        self.generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def _look(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and spread of the drawings, over the last steps."""
        self.steps += 1
        fresh = max(LOOKED_BACK, 1 / self.steps)
        self.mean.lerp_(rows.mean(0), fresh)
        self.square.lerp_(rows.square().mean(0), fresh)
        return self.mean.clone(), (self.square - self.mean.square()).clamp(min=0).sqrt()

    def _shares(self, rows: int, of: float) -> Tensor:
        g = self.generator
        return torch.rand(rows, 1, generator=g) * (torch.rand(rows, 1, generator=g) < of)

    def __call__(self, features: Tensor, scenes: Tensor) -> Tensor:
        """Drawings (B, 1280), and photographs (P, 1280) to lay them on."""
        mean, spread = self._look(features)
        like = (features - mean) * ((self.spread + SPREAD) / (spread + SPREAD)) + self.goal
        rows = torch.lerp(features, like, self._shares(len(features), RESTYLED)).clamp(min=0)
        ground = torch.randint(len(scenes), (len(features),), generator=self.generator)
        return torch.lerp(rows, scenes[ground], self._shares(len(features), LAID) / 2)
