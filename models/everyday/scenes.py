"""Photographs without labels: the wallpapers that Debian's packages ship.

Knows the packages' folders; drawings among the wallpapers are left out by name.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sources import of_kind, unpack_deb

LONGEST = 1280  # pixels; a piece of a sixteenth still has 320
# folders and files that hold photographs
USED = (
    "lomiri-wallpapers-16.04/",
    "lomiri-wallpapers-20.04/",
    "mate/nature/",
    "ukui-wallpapers/",
    "Autumn/",
    "BytheWater/",
    "Canopee/",
    "ColdRipple/",
    "ColorfulCups/",
    "EveningGlow/",
    "FallenLeaf/",
    "Grey/",
    "IceCold/",
    "OneStandsOut/",
    "Path/",
    "Kite/",
    "DarkestHour/",
    "summer_1am/",
    "SafeLanding/",
    "Altai/",
    "Kokkini/",
    "wood-",
)
SKIPPED = (
    "screenshot",
    "1080x1920",
    "720x1440",
    "analogpattern",
    "fluent-color",
    "Infinite-Sea",
    "focal-ubuntukylin",
    "2004default",
    "symbolic",
)
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def scenes(work: Path) -> list[NDArray[np.uint8]]:
    """(H, W, 3) uint8 each."""
    images = []
    for source in of_kind("scenes"):
        folder = unpack_deb(source, work)
        for path in sorted(folder.rglob("*")):
            name = f"{source.name}/{path.relative_to(folder)}"
            photograph = any(part in name for part in USED)
            if path.suffix.lower() not in SUFFIXES or path.is_symlink() or not photograph:
                continue
            if any(part in name for part in SKIPPED):
                continue
            picture = Image.open(path).convert("RGB")
            picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
            images.append(np.asarray(picture))
    return images
