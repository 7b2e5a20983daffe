"""Where in a picture a label is seen: what covering each part of it takes from the similarity.

Occlusion sensitivity (Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional
Networks", section 4.2) with the cosine in place of a class probability. Works for every tower,
since it only asks for embeddings. Knows neither encoders nor HTTP.
"""

import base64
import io
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from models import ImageSpec
from models.info import Floats, Pixels

# cells along each edge, and how many of them a cover is wide: each cell lies under up to 4 covers
GRID: Final = 7
COVER: Final = 2
COVERS: Final = (GRID - COVER + 1) ** 2

# levels that a channel may vary within a cell of flat ground: what a JPEG makes of one colour
FLAT: Final = 12

# the longer edge of a map as it is answered
EDGE: Final = 112


def covered(pixels: Pixels) -> list[Pixels]:
    """(3, H, W) uint8 -> COVERS copies, each with one square of cells in the picture's mean colour.

    Row by row, from the upper left.
    """
    mean = pixels.reshape(3, -1).mean(axis=1).round().astype(np.uint8)[:, None, None]
    copies = []
    for top, left in _corners():
        copy = pixels.copy()
        rows, columns = _span(top, pixels.shape[1]), _span(left, pixels.shape[2])
        copy[:, rows, columns] = mean
        copies.append(copy)
    return copies


def heat(cosines: Floats, without: Floats, ground: npt.NDArray[np.bool_]) -> Floats:
    """Similarities (C,) of the picture and (COVERS, C) of its covered copies -> (C, GRID, GRID).

    Each cell is the mean loss under the covers that lie over it; below 0 where covering it made the
    label fit better, and 0 on flat `ground` (GRID, GRID).
    """
    total = np.zeros((len(cosines), GRID, GRID), np.float32)
    count = np.zeros((GRID, GRID), np.float32)
    for (top, left), left_over in zip(_corners(), without, strict=True):
        cells = np.s_[top : top + COVER, left : left + COVER]
        total[:, *cells] += (cosines - left_over)[:, None, None]
        count[cells] += 1
    return np.where(ground, np.float32(0), total / count)


def flat(pixels: Pixels) -> npt.NDArray[np.bool_]:
    """(3, H, W) uint8 -> (GRID, GRID), true where a cell is of one colour.

    Such ground shows nothing, but a cover on it adds a shape, and that costs similarity, too.
    """
    cells = np.zeros((GRID, GRID), np.bool_)
    for row, column in np.ndindex(GRID, GRID):
        rows, columns = _span(row, pixels.shape[1], 1), _span(column, pixels.shape[2], 1)
        cell = pixels[:, rows, columns].reshape(3, -1)
        cells[row, column] = int(np.ptp(cell, axis=1).max()) <= FLAT
    return cells


def region(width: int, height: int, spec: ImageSpec) -> tuple[float, float, float, float]:
    """The part (left, top, right, bottom) of an upright picture that the model sees, in 0..1.

    Beyond 0..1 where the model sees more than the picture: a border.
    """
    if spec.resize_mode == "squash":
        return 0.0, 0.0, 1.0, 1.0
    ratios = width / spec.width, height / spec.height
    ratio = max(ratios) if spec.resize_mode == "longest" else min(ratios)
    share = spec.width * ratio / width, spec.height * ratio / height
    left, top = (1 - share[0]) / 2, (1 - share[1]) / 2
    return left, top, left + share[0], top + share[1]


def png(cells: Floats, width: int, height: int, spec: ImageSpec) -> str:
    """(GRID, GRID) -> data URI of a grey PNG in the picture's shape, white where it matters most.

    Black is no loss, or not seen by the model.
    """
    most = float(cells.max())
    levels = np.clip(cells / most, 0, 1) if most > 0 else np.zeros_like(cells)
    grey = Image.fromarray(np.rint(255 * levels).astype(np.uint8), "L")
    scale = EDGE / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    left, top, right, bottom = region(width, height, spec)
    box = (round(left * size[0]), round(top * size[1]), round(right * size[0]),
           round(bottom * size[1]))  # fmt: skip
    shape = max(1, box[2] - box[0]), max(1, box[3] - box[1])
    canvas = Image.new("L", size)
    canvas.paste(grey.resize(shape, Image.Resampling.BICUBIC), box[:2])
    out = io.BytesIO()
    canvas.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def _corners() -> Sequence[tuple[int, int]]:
    places = range(GRID - COVER + 1)
    return [(top, left) for top in places for left in places]


def _span(first: int, length: int, cells: int = COVER) -> slice:
    return slice(round(first * length / GRID), round((first + cells) * length / GRID))
