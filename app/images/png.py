"""PNG pictures of 16 bits a channel whose numbers do not use them all (W3C PNG, section 11.3.3)."""

import io
from typing import Final

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from app.images.depth import extent, scaled, span
from app.images.notes import Notes

# as Pillow unpacks 16 bits a channel: the upper byte of each, and the lower one
LOWER: Final = {"RGB": "RGB;16L", "RGBA": "RGBA;16L"}

# an upper byte above this uses the topmost bit
TOPMOST: Final = 127


def declared_white(data: bytes) -> float | None:
    """White as the file's sBIT chunk says it, for numbers that were not shifted up."""
    place = data.find(b"sBIT", 0, max(0, data.find(b"IDAT")))
    if place < 0 or data[24] != 16:
        return None
    count = min(3, int.from_bytes(data[place - 4 : place]))
    bits = max(data[place + 4 : place + 4 + count], default=0)
    return float(2**bits - 1) if 0 < bits < 16 else None


def deepened(image: Image.Image, data: bytes, declared: float | None, notes: Notes) -> Image.Image:
    """A picture in colour that was loaded; where its upper bytes are all but empty, from both."""
    if data[24] != 16 or image.mode not in LOWER:
        return image
    upper = np.asarray(image)
    if int(upper[..., :3].max(initial=0)) > TOPMOST:
        return image
    again = PngImageFile(io.BytesIO(data))
    again.tile = [again.tile[0]._replace(args=LOWER[image.mode])]
    again.load()
    numbers = upper.astype(np.uint16) << 8 | np.asarray(again)
    low, high = extent(numbers[..., :3])
    found = scaled(numbers[..., :3], *span(numbers.dtype, low, high, declared, notes))
    if image.mode == "RGBA":
        alpha = numbers[..., 3:]
        full = high if 0 < int(alpha.max(initial=0)) <= high else 65_535.0
        found = np.dstack([found, scaled(alpha, 0.0, full)])
    lifted = Image.fromarray(found, image.mode)
    lifted.info = dict(image.info)
    return lifted
