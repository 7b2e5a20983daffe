"""Whether a file holds more frames or pages than the one that counts. Knows no decoder."""

import struct
from typing import Final

from app.images import tiff
from app.images.formats import png_chunk
from app.images.heif import STILL

# blocks of a GIF that are passed over in search of a second picture
BLOCKS: Final = 100_000


def has_more(data: bytes) -> bool:
    """Whether there are others than the first; False where it would take long to tell."""
    try:
        if data.startswith(b"GIF8"):
            return _gif(data)
        if data.startswith(b"\x89PNG"):
            return _png(data)
        if data[:4] == b"RIFF":
            return data[12:16] == b"VP8X" and bool(data[20] & 2)
        if data[:2] in (b"II", b"MM"):
            return tiff.more_pages(data)
        return data[4:8] == b"ftyp" and data[8:12] in STILL
    except (struct.error, IndexError):
        return False


def _png(data: bytes) -> bool:
    """The frames of an animation, and the picture in front of it if that is none of them (W3C PNG,
    sections 11.3.6.1 and 4.9).
    """
    control = png_chunk(data, b"acTL")
    if control is None:
        return False
    return int.from_bytes(control[:4]) > 1 or png_chunk(data, b"fcTL") is None


def _gif(data: bytes) -> bool:
    place = 13 + (3 << (data[10] & 7) + 1 if data[10] & 128 else 0)
    pictures = blocks = 0
    while blocks < BLOCKS:
        kind = data[place]
        if kind == ord(","):
            pictures += 1
            if pictures > 1:
                return True
            table = data[place + 9]
            place += 11 + (3 << (table & 7) + 1 if table & 128 else 0)
        elif kind == ord("!"):
            place += 2
        else:
            return False
        size = 1
        while size and blocks < BLOCKS:
            size = data[place]
            place += 1 + size
            blocks += 1
    return False
