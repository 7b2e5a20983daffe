"""The text tower in training: its weights by name, and rows of texts. Knows tensors only."""

import torch
from open_clip.model import CLIP
from torch import Tensor, nn
from torch.nn import functional
from towers import encode_text

PARTS = 4  # of a batch, by length: short texts are not padded to the longest


def text_parameters(model: CLIP) -> dict[str, nn.Parameter]:
    """Everything but the image tower and the temperature."""
    return {n: p for n, p in model.named_parameters() if "visual." not in n and n != "logit_scale"}


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Weight decay is for matrices; a rare token would decay to nothing."""
    return parameter.ndim > 1 and "embedding" not in name


def unit_rows(model: CLIP, tokens: Tensor, ends: Tensor) -> Tensor:
    """tokens (B, L), ends (B,) -> unit rows (B, D), computed in bfloat16."""
    order = torch.argsort(ends)
    rows = []
    with torch.autocast("cpu", torch.bfloat16):
        for part in order.chunk(PARTS):
            length = int(ends[part].max()) + 1
            rows.append(encode_text(model, tokens[part, :length], ends[part]).float())
    return functional.normalize(torch.cat(rows)[torch.argsort(order)], dim=1)
