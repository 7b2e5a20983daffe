"""Captions to tokens: templates, and words at times broken into unusual pieces.

Knows CLIP's tokenizer; knows nothing of pictures or the model.
"""

import tomllib
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from network import CONTEXT
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

TEMPLATES = Path(__file__).with_name("templates.toml")
BROKEN = 0.1  # share of words whose pieces are drawn anew (BPE-dropout, arXiv 1910.13267)
DROPPED = 0.3  # chance that a merge is passed over in such a word


def templates() -> list[str]:
    return list(tomllib.loads(TEMPLATES.read_text("utf-8"))["templates"])


class Tokens:
    """Texts to padded batches. `frames` are the templates, split at the label."""

    def __init__(self, seed: int, forms: list[str] | None = None) -> None:
        self.rng = np.random.default_rng(seed)
        self.tokenizer = SimpleTokenizer(context_length=CONTEXT)
        self.frames = [
            tuple(self.tokenizer.encode(part.strip()) for part in t.split("{}"))
            for t in forms or templates()
        ]
        self._encode = lru_cache(maxsize=None)(self._words)

    def _words(self, text: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
        words = self.tokenizer.pat.findall(text.lower())
        return tuple((w, tuple(self.tokenizer.encode(w))) for w in words)

    def _broken(self, word: str) -> list[int]:
        """The tokenizer's own merging, with some merges passed over."""
        known = self.tokenizer.bpe_ranks
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            ranks = [known.get(pair) for pair in pairwise(parts)]
            usable = [
                (r, i)
                for i, r in enumerate(ranks)
                if r is not None and self.rng.random() >= DROPPED
            ]
            if not usable:
                break
            _, at = min(usable)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return [self.tokenizer.encoder[p] for p in parts]

    def _tokens(self, text: str, frame: int | None) -> list[int]:
        pieces: list[int] = []
        for word, usual in self._encode(text):
            broken = len(word) > 2 and word.isascii() and self.rng.random() < BROKEN
            pieces += self._broken(word) if broken else usual
        if frame is not None:
            before, after = self.frames[frame]
            pieces = [*before, *pieces, *after]
        start, end = self.tokenizer.sot_token_id, self.tokenizer.eot_token_id
        return [start, *pieces[: CONTEXT - 2], end]

    def batch(self, texts: list[str], bare: bool) -> tuple[Tensor, Tensor]:
        """(B, L) int64 tokens as short as the longest text, and (B,) the end-of-text positions."""
        n = len(self.frames)
        rows = [self._tokens(t, None if bare else int(self.rng.integers(n))) for t in texts]
        tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
        for i, row in enumerate(rows):
            tokens[i, : len(row)] = torch.tensor(row)
        return tokens, torch.tensor([len(row) - 1 for row in rows])
