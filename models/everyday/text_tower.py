"""The text tower in training: its weights by name, and rows of texts. Knows tensors, and the work
folder's files of the tower."""

from pathlib import Path

import torch
from open_clip.model import CLIP
from precision import autocast
from torch import Tensor, nn
from torch.nn import functional
from towers import encode_text

NAMED = 0.85  # share of train_names.py's weights in the finished tower (WiSE-FT, as for the head)
PARTS = 4  # of a batch, by length: short texts are not padded to the longest


def text_parameters(model: CLIP) -> dict[str, nn.Parameter]:
    """Everything but the image tower and the temperature."""
    return {n: p for n, p in model.named_parameters() if "visual." not in n and n != "logit_scale"}


def named_texts(work: Path) -> dict[str, Tensor]:
    """The tower as stage five leaves it; until names have gone to their pictures, the one that
    learnt from the sentence encoder."""
    first: dict[str, Tensor] = torch.load(work / "text.pt", weights_only=True)
    if not (work / "names.pt").exists():
        return first
    names = torch.load(work / "names.pt", weights_only=True)
    return {n: torch.lerp(w, names[f"text.{n}"], NAMED) for n, w in first.items()}


def finished_texts(work: Path) -> dict[str, Tensor]:
    """The tower as it would be shipped now."""
    if not (work / "words.pt").exists():
        return named_texts(work)
    words = torch.load(work / "words.pt", weights_only=True)
    return {n.removeprefix("text."): w for n, w in words.items()}


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Weight decay is for matrices; a rare token would decay to nothing."""
    return parameter.ndim > 1 and "embedding" not in name


def unit_rows(model: CLIP, tokens: Tensor, ends: Tensor) -> Tensor:
    """tokens (B, L), ends (B,) -> unit rows (B, D)."""
    order = torch.argsort(ends)
    rows = []
    with autocast():
        for part in order.chunk(PARTS):
            length = int(ends[part].max()) + 1
            rows.append(encode_text(model, tokens[part, :length], ends[part]).float())
    return functional.normalize(torch.cat(rows)[torch.argsort(order)], dim=1)
