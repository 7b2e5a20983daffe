"""From a decoded picture to the pixels a model expects. Pure: knows no files and no limits."""

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from models import ImageSpec

WHITE: Final = (255, 255, 255)

# a picture this many times longer than the model's edge is cut to its middle before it is scaled
EXTREME_RATIO: Final = 32

# rows that are scaled to 8 bits at once
STRIP: Final = 64

_RESAMPLING: Final = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB: alpha on white, 16 and 32 bits a channel scaled to 8."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = _deep_grey(image)
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        return converted or image
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        ground = Image.new("RGB", layer.size, WHITE)
        ground.paste(layer, mask=layer.getchannel("A"))
        return ground
    return image.convert("RGB")


def fit(image: Image.Image, spec: ImageSpec) -> npt.NDArray[np.uint8]:
    """Scale and crop an RGB picture as open_clip's transform does -> (3, H, W) uint8."""
    resample = _RESAMPLING[spec.interpolation]
    target = (spec.width, spec.height)
    if spec.resize_mode == "squash":
        fitted = image.resize(target, resample)
    elif spec.resize_mode == "longest":
        ratio = max(image.height / spec.height, image.width / spec.width)
        # a thread-thin picture would round to no pixels at all
        size = (max(1, round(image.width / ratio)), max(1, round(image.height / ratio)))
        scaled = image.resize(size, resample)
        fitted = Image.new("RGB", target, (spec.fill_color,) * 3)
        fitted.paste(scaled, ((spec.width - size[0]) // 2, (spec.height - size[1]) // 2))
    else:
        fitted = _shortest(_middle(image), spec, resample)
    return np.ascontiguousarray(np.asarray(fitted).transpose(2, 0, 1))


def _shortest(image: Image.Image, spec: ImageSpec, resample: Image.Resampling) -> Image.Image:
    if spec.width == spec.height:
        # torchvision's Resize: the longer edge is cut down to whole pixels
        edge, short = spec.width, min(image.size)
        size = (int(edge * image.width / short), int(edge * image.height / short))
    else:
        ratio = min(image.height / spec.height, image.width / spec.width)
        size = (round(image.width / ratio), round(image.height / ratio))
        resample = Image.Resampling.BICUBIC  # the reference knows no other here
    scaled = image.resize(size, resample)
    left = round((size[0] - spec.width) / 2.0)
    top = round((size[1] - spec.height) / 2.0)
    return scaled.crop((left, top, left + spec.width, top + spec.height))


def _middle(image: Image.Image) -> Image.Image:
    """Cut away what the centre crop throws away, where scaling it would cost gigabytes."""
    short, long = min(image.size), max(image.size)
    if long <= EXTREME_RATIO * short:
        return image
    keep = EXTREME_RATIO * short
    # an even cut on both sides leaves the centre where it is
    cut = (long - keep) // 2
    if image.width > image.height:
        return image.crop((cut, 0, image.width - cut, image.height))
    return image.crop((0, cut, image.width, image.height - cut))


def _deep_grey(image: Image.Image) -> Image.Image:
    """16 and 32 bits, or floating point, to 8 bits; in strips, which bounds the memory."""
    raw = np.asarray(image)
    if raw.dtype == np.float32:
        # floating-point pictures come in two habits: 0..1 and 0..255
        factor = 255.0 if np.nanmax(raw, initial=0) <= 1 else 1.0
    else:
        factor = 255 / 65_535 if raw.max(initial=0) <= 65_535 else 255 / (2**31 - 1)
    clear = image.info.get("transparency")
    grey = np.empty(raw.shape, np.uint8)
    for row in range(0, len(raw), STRIP):
        strip = np.nan_to_num(raw[row : row + STRIP].astype(np.float64), posinf=0.0, neginf=0.0)
        scaled = np.clip(np.rint(strip * factor), 0, 255)
        grey[row : row + STRIP] = scaled if clear is None else np.where(strip == clear, 255, scaled)
    return Image.fromarray(grey, "L")
