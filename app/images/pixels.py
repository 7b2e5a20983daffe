"""From a decoded picture to the pixels a model expects. Pure: knows no files and no limits."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageCms, ImageColor

from app.images.depth import Numbers, extent, scaled, span
from app.images.notes import Notes
from app.images.views import Cut
from models import ImageSpec
from models.info import Pixels

WHITE: Final = (255, 255, 255)
BLACK: Final = (0, 0, 0)

# a drawing whose colours are nearer to white than this, on average, does not show on it
SHOWS: Final = 48

# edge of the copy of a picture that is looked at for that; and alpha that lets nothing through
SAMPLED: Final = 256
OPAQUE: Final = 250

# a picture this many times longer than the model's edge is cut to its middle before it is scaled
EXTREME_RATIO: Final = 32

# a JPEG is decoded at 1/8, 1/4 or 1/2 of its size while this many times the model's remains: the
# resampling that follows then still has its say (measured in docs/performance.md)
LEAST_OVERSAMPLING: Final = 2

_RESAMPLING: Final = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}


def to_rgb(
    image: Image.Image,
    background: str = "auto",
    notes: Notes | None = None,
    declared: float | None = None,
) -> Image.Image:
    """Any Pillow mode to RGB: alpha on a background, 16 and 32 bits a channel scaled to 8.

    The background is white, or black where what is drawn is so light that it would not show; or a
    colour `#rrggbb`. `declared` is the number that the file calls white.
    """
    notes = Notes() if notes is None else notes
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = _deep_grey(image, declared, notes)
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        return converted or image
    if image.mode == "La":
        image = image.convert("LA")  # Pillow knows no other way from it
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        ground = Image.new("RGB", layer.size, _ground(layer, background, notes))
        ground.paste(layer, mask=layer.getchannel("A"))
        return ground
    return image if image.mode == "RGB" else image.convert("RGB")


def _ground(layer: Image.Image, background: str, notes: Notes) -> tuple[int, int, int]:
    """What a layer with transparency is laid on."""
    if background != "auto":
        return ImageColor.getrgb(background)[:3]
    # a sample of a large one is enough; reduce averages, and weighs by nothing
    small = layer.reduce(max(1, max(layer.size) // SAMPLED))
    pixels = np.asarray(small, np.float32)
    alpha = pixels[..., 3]
    drawn = float(alpha.sum())
    if not drawn or float(alpha.min()) > OPAQUE:
        return WHITE
    # how far from white, in the channel that is farthest: yellow shows on white
    distance = 255 - pixels[..., :3].min(axis=2)
    if float((distance * alpha).sum()) / drawn >= SHOWS:
        return WHITE
    notes.dark = True
    return BLACK


@dataclass(frozen=True, slots=True)
class Picture:
    """An RGB picture of `width` x `height`, of which `image` may hold a reduced version.

    `box` (left, top, right, bottom) is where the picture lies in `image`, in the pixels of that:
    an edge that the reduction does not divide ends within the last one.
    """

    image: Image.Image
    width: int
    height: int
    box: tuple[float, float, float, float]

    @classmethod
    def all_of(cls, image: Image.Image, width: int, height: int) -> "Picture":
        """One that fills its image."""
        return cls(image, width, height, (0.0, 0.0, float(image.width), float(image.height)))

    def part(self, cut: Cut) -> "Picture":
        """What lies in a cut of it."""
        (left, top, right, bottom), width, height = self.box, self.width, self.height
        across, down = (right - left) / width, (bottom - top) / height
        x, y = left + cut.left * across, top + cut.top * down
        box = (x, y, x + cut.width * across, y + cut.height * down)
        return Picture(self.image, cut.width, cut.height, box)


def reduction(width: int, height: int, spec: ImageSpec) -> int:
    """By how much a picture may be reduced before `fit` (1: not at all), of JPEG's 8, 4 and 2."""
    ratios = (width / spec.width, height / spec.height)
    shrinks = max(ratios) if spec.resize_mode == "longest" else min(ratios)
    most = min(width, height, shrinks / LEAST_OVERSAMPLING)  # a thread-thin picture keeps a pixel
    return next((n for n in (8, 4, 2) if n <= most), 1)


def fit(picture: Picture, spec: ImageSpec) -> Pixels:
    """Scale and crop a picture as the model's own transform does -> (3, H, W) uint8.

    To the bit where it is not reduced.
    """
    resample = _RESAMPLING[spec.interpolation]
    target = (spec.width, spec.height)
    if spec.resize_mode == "squash":
        fitted = picture.image.resize(target, resample, picture.box)
    elif spec.resize_mode == "longest":
        ratio = max(picture.height / spec.height, picture.width / spec.width)
        # a thread-thin picture would round to no pixels at all
        size = (max(1, round(picture.width / ratio)), max(1, round(picture.height / ratio)))
        scaled = picture.image.resize(size, resample, picture.box)
        fitted = Image.new("RGB", target, (spec.fill_color,) * 3)
        fitted.paste(scaled, ((spec.width - size[0]) // 2, (spec.height - size[1]) // 2))
    else:
        fitted = _shortest(_middle(picture), spec, resample)
    return np.ascontiguousarray(np.asarray(fitted).transpose(2, 0, 1))


def _shortest(picture: Picture, spec: ImageSpec, resample: Image.Resampling) -> Image.Image:
    if spec.width == spec.height:
        # torchvision's Resize: the longer edge is cut down to whole pixels
        edge, short = spec.width, min(picture.width, picture.height)
        size = (int(edge * picture.width / short), int(edge * picture.height / short))
    else:
        ratio = min(picture.height / spec.height, picture.width / spec.width)
        size = (round(picture.width / ratio), round(picture.height / ratio))
        resample = Image.Resampling.BICUBIC  # the reference knows no other here
    scaled = picture.image.resize(size, resample, picture.box)
    place = int if spec.resize_mode == "shortest-floor" else round
    left, top = place((size[0] - spec.width) / 2.0), place((size[1] - spec.height) / 2.0)
    return scaled.crop((left, top, left + spec.width, top + spec.height))


def _middle(picture: Picture) -> Picture:
    """Cut away what the centre crop throws away, where scaling it would cost gigabytes."""
    short, long = min(picture.width, picture.height), max(picture.width, picture.height)
    if long <= EXTREME_RATIO * short:
        return picture
    # an even cut on both sides leaves the centre where it is
    cut = (long - EXTREME_RATIO * short) // 2
    (left, top, right, bottom), width, height = picture.box, picture.width, picture.height
    if width > height:
        trim = cut * (right - left) / width
        box = (left + trim, top, right - trim, bottom)
        return Picture(picture.image, width - 2 * cut, height, box)
    trim = cut * (bottom - top) / height
    box = (left, top + trim, right, bottom - trim)
    return Picture(picture.image, width, height - 2 * cut, box)


def _deep_grey(image: Image.Image, declared: float | None, notes: Notes) -> Image.Image:
    """16 and 32 bits, or floating point, to 8 bits."""
    raw: Numbers = np.asarray(image)
    low, high = extent(raw)
    grey = scaled(raw, *span(raw.dtype, low, high, declared, notes))
    clear = image.info.get("transparency")
    if clear is None:
        return Image.fromarray(grey, "L")
    opaque = np.where(raw == clear, 0, 255).astype(np.uint8)
    return Image.merge("LA", [Image.fromarray(grey, "L"), Image.fromarray(opaque, "L")])
