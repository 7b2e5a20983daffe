"""Draw training batches: concepts, one picture of each, one caption of each in a template.

Knows the work folder's arrays and the tokenizer; knows nothing of the model or the loss.
"""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from augment import augment
from network import CONTEXT, IMAGE_SIZE
from numpy.typing import NDArray
from open_clip.tokenizer import SimpleTokenizer
from sources import ICON_SETS

ONE_COLOUR = {"fluent-emoji-high-contrast", "emojione-monotone", "game-icons"}
TEMPLATES = Path(__file__).parents[2] / "prompts" / "sets" / "pictogram.toml"
BARE = 0.5  # share of batches without templates; half as long, they take half the text time


@dataclass(frozen=True, slots=True)
class Batch:
    """`false_negative[i, j]`: caption j is also true of picture i, so it is no negative for it."""

    images: torch.Tensor
    tokens: torch.Tensor
    ends: torch.Tensor
    false_negative: torch.Tensor


def templates() -> list[str]:
    return list(tomllib.loads(TEMPLATES.read_text("utf-8"))["templates"])


class Sampler:
    """Everything in memory; captions and templates tokenized once."""

    def __init__(self, work: Path, seed: int, strength: float) -> None:
        self.strength = strength
        self.rng = np.random.default_rng(seed)
        self.pixels: NDArray[np.uint8] = np.load(work / "train_pixels.npy")
        concept: NDArray[np.int64] = np.load(work / "train_concept.npy")
        weight: NDArray[np.float32] = np.load(work / "train_weight.npy")
        sources = [line.split(",", 1)[0] for line in (work / "manifest.csv").open()][1:]
        assert len(sources) == len(concept), "an author's name holds a line break"
        self.one_colour = np.array([s in ONE_COLOUR for s in sources])
        records: list[dict[str, Any]] = json.loads((work / "concepts.json").read_text())
        self.sided = np.array([bool(r["sided"]) for r in records])
        share = np.array([float(r["weight"]) for r in records])
        self.share = share / share.sum()
        order = np.argsort(concept, kind="stable")
        bounds = np.searchsorted(concept[order], np.arange(len(records) + 1))
        self.pictures = []
        for i in range(len(records)):
            rows = order[bounds[i] : bounds[i + 1]]
            self.pictures.append((rows, np.cumsum(weight[rows] / weight[rows].sum())))
        texts = sorted({t for r in records for t, _ in r["captions"]})
        number = {t: i for i, t in enumerate(texts)}
        self.captions = []
        self.true_of = np.zeros((len(texts), len(records)), bool)
        for i, r in enumerate(records):
            rows = np.array([number[t] for t, _ in r["captions"]])
            self.captions.append((rows, np.cumsum([w for _, w in r["captions"]])))
            self.true_of[rows, i] = True
        tokenizer = SimpleTokenizer(context_length=CONTEXT)
        self.start, self.end = tokenizer.sot_token_id, tokenizer.eot_token_id
        self.words = [tokenizer.encode(t) for t in texts]
        self.frames = [
            tuple(tokenizer.encode(part.strip()) for part in t.split("{}")) for t in templates()
        ]
        print(
            f"{len(self.pixels)} pictures, {len(records)} concepts, {len(texts)} captions, "
            f"{len(self.frames)} templates, {len(ICON_SETS) + 1} sources"
        )

    def _pick(self, rows: NDArray[np.int64], cumulative: NDArray[np.float64]) -> int:
        at = np.searchsorted(cumulative, self.rng.random() * cumulative[-1])
        return int(rows[min(at, len(rows) - 1)])

    def _tokens(self, text: int, bare: bool) -> list[int]:
        words = self.words[text]
        if not bare:
            before, after = self.frames[self.rng.integers(len(self.frames))]
            words = [*before, *words, *after]
        return [self.start, *words[: CONTEXT - 2], self.end]

    def draw(self, size: int) -> Batch:
        """Concepts are drawn without replacement: no batch holds one twice."""
        chosen = self.rng.choice(len(self.share), size, replace=False, p=self.share)
        rows = [self._pick(*self.pictures[c]) for c in chosen]
        texts = [self._pick(*self.captions[c]) for c in chosen]
        bare = bool(self.rng.random() < BARE)
        sentences = [self._tokens(t, bare) for t in texts]
        tokens = torch.zeros(size, max(map(len, sentences)), dtype=torch.int64)
        for i, sentence in enumerate(sentences):
            tokens[i, : len(sentence)] = torch.tensor(sentence)
        also_true = self.true_of[texts][:, chosen].T.copy()
        np.fill_diagonal(also_true, False)
        images = augment(
            torch.from_numpy(self.pixels[rows]),
            IMAGE_SIZE,
            torch.from_numpy(~self.sided[chosen]),
            torch.from_numpy(self.one_colour[rows]),
            self.strength,
        )
        ends = torch.tensor([len(s) - 1 for s in sentences])
        return Batch(images, tokens, ends, torch.from_numpy(also_true))
