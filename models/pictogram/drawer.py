"""Draw concepts, one picture of each, one caption of each. Knows the work folder's arrays only."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


class Drawer:
    """Concepts without replacement; a share of a draw comes from the one-colour sets. A concept
    outside the emoji is drawn `others` times as often as an emoji."""

    def __init__(self, work: Path, seed: int, others: float) -> None:
        self.rng = np.random.default_rng(seed)
        self.concept: Rows = np.load(work / "train_concept.npy")
        self.weight: NDArray[np.float32] = np.load(work / "train_weight.npy")
        self.one_colour: NDArray[np.bool_] = np.load(work / "train_one_colour.npy")
        self.records: list[dict[str, Any]] = json.loads((work / "concepts.json").read_text())
        self.shares, self.rows = [], []
        for mono in (False, True):
            rows = self._rows(self.one_colour == mono)
            weight = np.array([1.0 if r["emoji"] else others for r in self.records])
            weight[[i for i, (pictures, _) in enumerate(rows) if len(pictures) == 0]] = 0
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

    def _rows(self, use: NDArray[np.bool_]) -> list[tuple[Rows, NDArray[np.float64]]]:
        """Every concept's pictures among `use`, with their cumulative weights."""
        order = np.flatnonzero(use)[np.argsort(self.concept[use], kind="stable")]
        bounds = np.searchsorted(self.concept[order], np.arange(len(self.records) + 1))
        parts = [order[bounds[i] : bounds[i + 1]] for i in range(len(self.records))]
        return [(p, np.cumsum(self.weight[p], dtype=np.float64)) for p in parts]

    def _pick(self, rows: Rows, cumulative: NDArray[np.float64]) -> int:
        at = np.searchsorted(cumulative, self.rng.random() * cumulative[-1])
        return int(rows[min(at, len(rows) - 1)])

    def pictures(self, size: int, one_colour_share: float) -> Rows:
        """Pictures of `size` different concepts."""
        mono = int(self.rng.binomial(size, one_colour_share))
        first = self.rng.choice(len(self.records), size - mono, replace=False, p=self.shares[0])
        rest = self.shares[1].copy()
        rest[first] = 0
        second = self.rng.choice(len(rest), mono, replace=False, p=rest / rest.sum())
        pictures = [self._pick(*self.rows[0][c]) for c in first]
        pictures += [self._pick(*self.rows[1][c]) for c in second]
        return self.rng.permutation(np.array(pictures))

    def caption(self, concept: int) -> int:
        return self._pick(*self.captions[concept])
