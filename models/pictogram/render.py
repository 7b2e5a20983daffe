"""SVG and bitmaps to small square pictures. Knows nothing of sets, names or training."""

import io

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image


def _place(picture: Image.Image, size: int) -> NDArray[np.uint8] | None:
    """(size, size, 4) uint8, colours premultiplied by alpha, centred; None if nearly empty."""
    if min(picture.size) * 4 < size or max(picture.size) > size + 1:
        return None
    canvas = np.zeros((size, size, 4), np.uint8)
    pixels = np.asarray(picture, np.float32)[:size, :size]
    pixels[..., :3] *= pixels[..., 3:] / 255.0
    top, left = (size - pixels.shape[0]) // 2, (size - pixels.shape[1]) // 2
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels.round()
    return canvas if canvas[..., 3].mean() > 4 else None


def from_svg(svg: str, size: int) -> NDArray[np.uint8] | None:
    """None if the drawing cannot be used."""
    try:
        png = resvg_py.svg_to_bytes(svg_string=svg, width=size, skip_system_fonts=True)
        picture = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
        if picture.height > size:
            if picture.height > 3 * size:
                return None
            png = resvg_py.svg_to_bytes(svg_string=svg, height=size, skip_system_fonts=True)
            picture = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    except (ValueError, OSError):
        return None
    return _place(picture, size)


def from_bitmap(data: bytes, size: int) -> NDArray[np.uint8] | None:
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    return _place(picture, size)


def render(drawing: str | bytes, size: int) -> NDArray[np.uint8] | None:
    """A drawing as the packages hold it -> (size, size, 4)."""
    return from_svg(drawing, size) if isinstance(drawing, str) else from_bitmap(drawing, size)
