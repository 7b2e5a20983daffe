"""In what precision training computes. Knows the processor."""

import torch


def reduced() -> torch.autocast:
    """bfloat16 where the processor has instructions for it; without them float32 is ten times as
    fast."""
    fast = torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")
    return torch.autocast("cpu", torch.bfloat16, enabled=fast)
