"""The model as open_clip has it: built, read by, and written in open_clip's local-directory form.

Knows torch and open_clip, and the shape that network.py beside the running script gives.
"""

import json
from pathlib import Path

import torch
from network import MODEL, PREPROCESS
from open_clip.model import CLIP
from safetensors.torch import save_file


def build() -> CLIP:
    """Fresh float32 model with open_clip's own initialisation."""
    return CLIP(**MODEL)


def encode_text(model: CLIP, tokens: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """tokens (B, L) int64 with L up to the context, ends (B,) the end-of-text position -> (B, D).

    Equal to the full-length pass in less time: the causal mask keeps padding out of every position
    up to the end, and of the last layer nothing but the end is read.
    """
    length, at = tokens.shape[1], torch.arange(len(tokens))
    dtype = model.positional_embedding.dtype
    x = model.token_embedding(tokens).to(dtype) + model.positional_embedding[:length]
    *blocks, last = model.transformer.resblocks
    for block in blocks:
        x = block(x, attn_mask=model.attn_mask[:length, :length].to(dtype))
    y = last.ln_1(x)
    padding = torch.arange(length) > ends[:, None]
    attended, _ = last.attn(
        y[at, ends][:, None], y, y, need_weights=False, key_padding_mask=padding
    )
    x = x[at, ends] + attended[:, 0]
    x = model.ln_final(x + last.mlp(last.ln_2(x)))
    projected: torch.Tensor = x @ model.text_projection
    return projected


def export(state: dict[str, torch.Tensor], folder: Path) -> Path:
    """Write configuration and float16 weights; whoever reads meanwhile sees old or new, whole."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "open_clip_config.json"
    text = json.dumps({"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}, indent=2) + "\n"
    if not config.exists() or config.read_text() != text:
        config.write_text(text)
    weights = folder / "open_clip_model.safetensors"
    half = {
        # the step counter of batch normalisation is an integer that inference never reads
        name: (
            torch.zeros((), dtype=torch.int64)
            if name.endswith("num_batches_tracked")
            else value.half().contiguous()
        )
        for name, value in state.items()
    }
    partial = weights.with_suffix(".partial")
    save_file(half, partial, metadata={"format": "pt"})
    partial.chmod(0o644)  # the writer makes files that only their owner can read
    partial.replace(weights)
    return weights
