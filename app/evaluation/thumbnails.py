"""Small copies of pictures as data URIs, for pages that need no other file. Knows no labels."""

import base64
import io
from pathlib import Path
from typing import Final

from PIL import Image

from app.errors import Problem
from app.folders import read
from app.images import FORMATS, HEIC, ImageLimits, decode
from app.plugins import enable_heic, quieten
from models import ImageSpec

# the middle square, as most models see it; sharp on a phone where it is shown at half of that
SPEC: Final = ImageSpec(256, 256, "shortest", "bicubic", 255)
QUALITY: Final = 74


def thumbnail(file: Path, limits: ImageLimits, *, heic: bool) -> str | None:
    """A picture file as a small JPEG; None where it cannot be read any more.

    It is decoded with the same care as that of a request.
    """
    quieten()
    if heic:
        enable_heic()
    formats = (*FORMATS, HEIC) if heic else FORMATS
    try:
        decoded = decode(read(str(file), limits.bytes), SPEC, limits, formats)
    except (OSError, ValueError, Problem):
        return None
    out = io.BytesIO()
    image = Image.fromarray(decoded.pixels.transpose(1, 2, 0))
    image.save(out, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"
