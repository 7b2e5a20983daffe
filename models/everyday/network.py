"""The model's shape, and what becomes of a picture before it. Numbers only."""

from typing import Any

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
