"""The model's shape, and what becomes of a picture before it. Numbers only."""

from typing import Any

CONTEXT = 32
IMAGE_SIZE = 64
MODEL: dict[str, Any] = {
    "embed_dim": 192,
    "vision_cfg": {
        "layers": [2, 3, 4, 2],
        "width": 24,
        "image_size": IMAGE_SIZE,
        "head_width": 64,  # heads = width * 32 // head_width = 12
    },
    "text_cfg": {
        "context_length": CONTEXT,
        "vocab_size": 49408,
        "width": 128,
        "heads": 4,
        "layers": 4,
    },
}
PREPROCESS: dict[str, Any] = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "longest",  # an emoji strip or a tall arrow is seen whole, not cropped
    "fill_color": 255,
}
