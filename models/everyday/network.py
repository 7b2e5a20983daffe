"""The model's shape, and how its weights are written: open_clip's local-directory form.

Knows torch and open_clip; knows nothing of pictures, captions or the training loop.
"""

import json
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP
from safetensors.torch import save_file

CONTEXT = 40
IMAGE_SIZE = 260
EMBEDDING = 640
BACKBONE = "tf_efficientnet_lite2"
TEXT_WIDTH = 256
MODEL: dict[str, Any] = {
    "embed_dim": EMBEDDING,
    "vision_cfg": {
        "timm_model_name": BACKBONE,
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "mlp",  # 1280 -> 1280 -> 640: the hidden layer holds ImageNet's 1,000 classes
        "timm_proj_bias": True,
        "image_size": IMAGE_SIZE,
    },
    "text_cfg": {
        "context_length": CONTEXT,
        "vocab_size": 49408,
        "width": TEXT_WIDTH,
        "heads": 4,
        "layers": 4,
    },
}
PREPROCESS: dict[str, Any] = {
    "mean": [127 / 255] * 3,  # EfficientNet-Lite's (x - 127) / 128
    "std": [128 / 255] * 3,
    "interpolation": "bicubic",
    "resize_mode": "longest",  # an emoji strip or a tall tree is seen whole, not cropped
    "fill_color": 255,
}


def build() -> CLIP:
    """Fresh float32 model with open_clip's own initialisation."""
    return CLIP(**MODEL)


def encode_text(model: CLIP, tokens: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """tokens (B, L) int64 with L up to the context, ends (B,) the end-of-text position -> (B, D).

    Equal to the full-length pass, since the causal mask keeps padding out of every position
    up to the end; half the length is half the time.
    """
    length = tokens.shape[1]
    dtype = model.positional_embedding.dtype
    x = model.token_embedding(tokens).to(dtype) + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length].to(dtype))
    x = model.ln_final(x[torch.arange(len(x)), ends])
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
