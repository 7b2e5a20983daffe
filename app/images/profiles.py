"""Colour profiles that change what a picture shows: applied, by LittleCMS; others are ignored.

The reference ignores them all, and so do those that models were trained with. Knows no file but
where a profile stands in it.
"""

import functools
import io
import struct
import zlib
from typing import Final

import numpy as np
from PIL import Image, ImageCms

from app.images.formats import png_chunk
from app.images.tiff import Directory

# bytes of a profile, and its tags; those of cameras and screens have a few thousand, and twenty
MOST_BYTES: Final = 1_000_000
MOST_TAGS: Final = 100

# the bytes of a profile's header, and of an entry in its list of tags (ICC.1:2022, section 7)
HEADER: Final = 128
ENTRY: Final = 12

# transforms in floating point (D2B0 to D2B3): lists of elements, and 100,000 of one list may share
# one body, each of which LittleCMS builds and computes for itself
FLOATING: Final = b"D2B"

# by so much, of 255, a profile moves colours on average where ignoring it costs more than noise:
# Display P3 and Adobe RGB move them by 11, ProPhoto by 24 (docs/decisions.md)
MUCH: Final = 16.0
STEPS: Final = 6

TIFF_PROFILE: Final = 34675

_cube = np.linspace(0, 255, STEPS).round().astype(np.uint8)
CUBE: Final = np.stack(np.meshgrid(_cube, _cube, _cube, indexing="ij"), -1).reshape(-1, STEPS, 3)


def applied(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An RGB picture in sRGB, if its profile says much else; else the picture itself."""
    if not profile or len(profile) > MOST_BYTES:
        return image
    transform = _transform(profile)
    if transform is None:
        return image
    return ImageCms.applyTransform(image, transform) or image


@functools.lru_cache(maxsize=32)
def _transform(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """To sRGB; None if that changes little, or if it is not an RGB profile."""
    try:
        (tags,) = struct.unpack_from(">I", profile, HEADER)
        if profile[16:20] != b"RGB " or profile[36:40] != b"acsp" or tags > MOST_TAGS:
            return None
        end = HEADER + 4 + tags * ENTRY
        known = profile[:end].replace(FLOATING, b"\0" * len(FLOATING)) + profile[end:]
        own = ImageCms.ImageCmsProfile(io.BytesIO(known))
        srgb = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(
            own,
            srgb,
            "RGB",
            "RGB",
            flags=ImageCms.Flags.NOCACHE,  # it is used by several threads
        )
        colours = Image.fromarray(CUBE, "RGB")
        moved = np.asarray(ImageCms.applyTransform(colours, transform))
    except (ImageCms.PyCMSError, OSError, struct.error, ValueError):
        return None  # damaged: the colours are good as they are
    return transform if np.abs(moved.astype(int) - CUBE).mean() > MUCH else None


def of_png(data: bytes) -> bytes | None:
    """The profile of a PNG (W3C PNG, section 11.3.2.3), unpacked within bounds."""
    chunk = png_chunk(data, b"iCCP")
    if chunk is None:
        return None
    _, _, packed = chunk.partition(b"\0")
    try:
        return zlib.decompressobj().decompress(packed[1:], MOST_BYTES)
    except zlib.error:
        return None


def of_tiff(data: bytes, directory: Directory) -> bytes | None:
    """The profile of a TIFF (ICC.1:2022, annex B.4)."""
    tag = directory.tags.get(TIFF_PROFILE)
    if tag is None:
        return None
    words = directory.order + ("QQ" if directory.big else "II")
    number, start = struct.unpack_from(words, data, tag.place + 4)
    return data[start : start + number]
