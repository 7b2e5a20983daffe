"""In what precision training computes. Knows the processor."""

import torch

from models.processor import has_fast_bf16


def fastest() -> torch.dtype:
    """What matrices are multiplied fastest in."""
    return torch.bfloat16 if has_fast_bf16() else torch.float32


def autocast() -> torch.autocast:
    """bfloat16 where the processor has instructions for it; without them float32 is ten times as
    fast."""
    return torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bf16())
