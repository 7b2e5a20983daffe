"""The exported weights as a caller meets them. Knows open_clip and pictures; measures nothing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import torch
from measures import Array
from open_clip.model import CLIP
from PIL import Image
from torch import Tensor
from towers import encode_text

Picture = Path | Image.Image


def on_white(picture: Image.Image) -> Image.Image:
    """What lies under transparent pixels is any colour; a caller lays the picture on white."""
    rgba = picture.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


@torch.inference_mode()
def read(model: CLIP, tokenizer: Callable[[list[str]], Tensor], texts: list[str]) -> Array:
    """One unit row per text; sorted by length, since padding changes nothing but the time."""
    tokens = tokenizer(texts)
    ends = tokens.argmax(1)  # the end-of-text token has the highest number
    order = torch.argsort(ends)
    rows = np.empty((len(texts), model.text_projection.shape[1]), np.float32)
    for part in torch.split(order, 256):
        cut = tokens[part, : int(ends[part].max()) + 1]
        rows[part.numpy()] = encode_text(model, cut, ends[part]).numpy()
    unit: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


class Model:
    """The exported directory, loaded as any user of open_clip would load it."""

    def __init__(self, folder: Path) -> None:
        name = f"local-dir:{folder}"
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(name)
        self.model.eval().requires_grad_(False)
        self.tokenizer = open_clip.get_tokenizer(name)
        self.scale = np.float32(self.model.logit_scale.exp())

    @torch.inference_mode()
    def images(self, pictures: list[Picture]) -> Array:
        """One unit row per picture."""
        rows = []
        for at in range(0, len(pictures), 128):
            opened = [Image.open(p) if isinstance(p, Path) else p for p in pictures[at : at + 128]]
            batch = torch.stack([self.preprocess(on_white(p)) for p in opened])
            rows.append(self.model.encode_image(batch, normalize=True).numpy())
        return np.concatenate(rows)

    def labels(self, labels: list[str], forms: list[str]) -> Array:
        """CLIP's prompt ensemble: unit rows, mean over the templates, unit rows again."""
        total = sum(
            read(self.model, self.tokenizer, [form.replace("{}", x) for x in labels])
            for form in forms
        )
        unit: Array = total / np.linalg.norm(total, axis=1, keepdims=True)
        return unit
