"""What Pillow leaves undone in a PNG: numbers of 16 bits that do not use them all (W3C PNG, section
11.3.3), and the one colour that is transparent, where it is of another depth than the pixels.
"""

import io
import zlib
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from app.images.depth import extent, scaled, span
from app.images.formats import png_chunk
from app.images.notes import Notes

# as Pillow unpacks 16 bits a channel: the upper byte of each, and the lower one
LOWER: Final = {"RGB": "RGB;16L", "RGBA": "RGBA;16L"}

# types of colour (W3C PNG, table 11.1)
GREY: Final = 0
GREY_ALPHA: Final = 4
COLOUR_ALPHA: Final = 6

# an upper byte above this uses the topmost bit
TOPMOST: Final = 127


def declared_white(data: bytes) -> float | None:
    """White as the file's sBIT chunk says it, for numbers that were not shifted up."""
    significant = png_chunk(data, b"sBIT")
    if significant is None or data[24] != 16:
        return None
    bits = max(significant[:3], default=0)
    return float(2**bits - 1) if 0 < bits < 16 else None


def completed(image: Image.Image, data: bytes, declared: float | None, notes: Notes) -> Image.Image:
    """A loaded picture; where its upper bytes are all but empty, from both bytes."""
    depth, colour, clear = data[24], data[25], image.info.get("transparency")
    if depth in (2, 4) and colour == GREY and clear is not None:
        # Pillow scales the pixels, and not this colour
        image.info["transparency"] = clear * 255 // (2**depth - 1)
    if depth != 16 or image.mode not in LOWER:
        return image
    upper = np.asarray(image)
    is_dark = int(upper[..., :3].max(initial=0)) <= TOPMOST
    if not is_dark and clear is None:
        return image
    numbers = _grey_and_alpha(data) if colour == GREY_ALPHA else _colours(data, image.mode, upper)
    levels = _lifted(numbers, declared, notes) if is_dark else upper
    if clear is not None:
        opaque = (numbers[..., :3] != clear).any(axis=-1)
        levels = np.dstack([levels[..., :3], np.where(opaque, 255, 0).astype(np.uint8)])
    whole = Image.fromarray(levels, "RGBA" if levels.shape[-1] == 4 else "RGB")
    whole.info = {name: value for name, value in image.info.items() if name != "transparency"}
    return whole


def _lifted(
    numbers: npt.NDArray[np.uint16], declared: float | None, notes: Notes
) -> npt.NDArray[np.uint8]:
    """Numbers (H, W, 3 or 4) that use few of their bits -> 8 bits."""
    low, high = extent(numbers[..., :3])
    levels = scaled(numbers[..., :3], *span(numbers.dtype, low, high, declared, notes))
    if numbers.shape[-1] == 4:
        alpha = numbers[..., 3:]
        full = high if 0 < int(alpha.max(initial=0)) <= high else 65_535.0
        levels = np.dstack([levels, scaled(alpha, 0.0, full)])
    return levels


def _colours(data: bytes, mode: str, upper: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """The numbers (H, W, C) of a picture in colour whose upper bytes are known."""
    again = PngImageFile(io.BytesIO(data))
    again.tile = [again.tile[0]._replace(args=LOWER[mode])]
    again.load()
    lower: npt.NDArray[np.uint8] = np.asarray(again)
    return (upper.astype(np.uint16) << 8 | lower).astype(np.uint16)


def _grey_and_alpha(data: bytes) -> npt.NDArray[np.uint16]:
    """The numbers (H, W, 4) of grey with alpha, the grey three times.

    Two numbers of 16 bits are filtered and laid as four of 8 are, so the picture is read as such.
    """
    head = data[12:24] + bytes([8, COLOUR_ALPHA]) + data[26:29]
    as_bytes = data[:12] + head + zlib.crc32(head).to_bytes(4, "big") + data[33:]
    again = PngImageFile(io.BytesIO(as_bytes))
    again.load()
    pairs: npt.NDArray[np.uint16] = np.asarray(again).view(">u2").astype(np.uint16)
    return np.take(pairs, [0, 0, 0, 1], axis=-1)
