"""Pictures that no cache has seen, with the detail and file size of photographs. Knows no server.

Noise in octaves whose contrast falls with their frequency, as in photographs, with some shapes on
it, saved as JPEG. The amount of fine noise is set per size so that files are as large as a phone's.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.folders import cache

QUALITY: Final = 85
OCTAVES: Final = 7


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in pixels, and the contrast of the finest noise (grey levels)."""

    name: str
    width: int
    height: int
    grain: float

    @property
    def megapixels(self) -> float:
        """Millions of pixels."""
        return self.width * self.height / 1e6


SMALL: Final = Size("640x480", 640, 480, 11.0)
MEDIUM: Final = Size("1600x1200", 1600, 1200, 8.0)
LARGE: Final = Size("4000x3000", 4000, 3000, 5.0)
SIZES: Final = (
    Size("366x274", 366, 274, 11.0),
    SMALL,
    Size("1152x864", 1152, 864, 9.0),
    MEDIUM,
    Size("2309x1732", 2309, 1732, 7.0),
    LARGE,
    Size("5657x4243", 5657, 4243, 5.0),
)


def picture(size: Size, seed: int) -> Image.Image:
    """One picture, always the same for a seed."""
    dice = np.random.default_rng(seed)
    total = np.zeros((size.height, size.width, 3), np.float32)
    for octave in range(OCTAVES):
        shape = (max(2, size.height >> octave), max(2, size.width >> octave))
        noise = dice.integers(0, 256, (*shape, 3), np.uint8)
        grown = Image.fromarray(noise).resize((size.width, size.height), Image.Resampling.BILINEAR)
        total += (np.asarray(grown, np.float32) - 128) * (size.grain * 1.35**octave / 64)
    picture = Image.fromarray(np.clip(total + 128, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(12):
        left, top = dice.integers(0, (size.width, size.height))
        wide, high = dice.integers(size.height // 20, size.height // 4, 2)
        colour = tuple(int(x) for x in dice.integers(0, 256, 3))
        draw.ellipse((left, top, left + wide, top + high), fill=colour)
    return picture


def jpeg(size: Size, seed: int) -> bytes:
    """The picture as a JPEG file of quality 85 with 4:2:0 colour."""
    out = io.BytesIO()
    picture(size, seed).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def jpegs(size: Size, count: int) -> list[Path]:
    """`count` distinct files, made once."""
    folder = cache("pictures", f"{size.name}-q{QUALITY}-g{size.grain:g}")
    paths = [folder / f"{seed:03}.jpg" for seed in range(count)]
    for seed, path in enumerate(paths):
        if not path.exists():
            path.write_bytes(jpeg(size, seed))
    return paths
