"""What of a picture a model is shown: how it is fitted in, and which parts. Pure geometry."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from app.errors import Invalid
from models import ImageSpec
from models.info import ResizeMode

View = Literal["auto", "center", "pad", "squash", "tiles", "tiles-mean"]

RESIZING: Final[dict[str, ResizeMode]] = {
    "center": "shortest",
    "pad": "longest",
    "squash": "squash",
}

# edge of a tile as a share of the picture's shorter edge; neighbours overlap by half at least
TILE: Final = 2 / 3
MOST_ALONG: Final = 8

# pixels by which a box may reach beyond the picture: whoever computed it has rounded
ROUNDING: Final = 1.0


@dataclass(frozen=True, slots=True)
class Box:
    """A part of an upright picture from its upper left corner: in pixels, or as shares of its
    edges if no number is above 1.
    """

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of a picture in whole pixels; `right` and `bottom` lie outside of it."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Pixels, 1 at least."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Pixels, 1 at least."""
        return self.bottom - self.top


@dataclass(frozen=True, slots=True)
class Look:
    """How a picture is looked at: the whole of it, or each of `boxes` on its own.

    `background` is what transparency is laid on: a colour, or `auto`.
    """

    view: View = "auto"
    boxes: tuple[Box, ...] = ()
    background: str = "auto"

    @property
    def plain(self) -> bool:
        """Whether it is the model's own view of the whole picture."""
        return self.view == "auto" and not self.boxes and self.background == "auto"

    @property
    def cuts(self) -> bool:
        """Whether parts of the picture are shown to the model, for which it is decoded in full."""
        return bool(self.boxes) or self.view.startswith("tiles")

    def spec(self, own: ImageSpec) -> ImageSpec:
        """The model's geometry `own`, as this view changes it."""
        return replace(own, resize_mode=RESIZING.get(self.view, own.resize_mode))

    def regions(self, width: int, height: int) -> tuple["Region", ...]:
        """What is answered for a picture of this size. Raises Invalid."""
        whole = Cut(0, 0, width, height)
        areas = [_area(box, place, whole) for place, box in enumerate(self.boxes)] or [whole]
        tiled = self.view in ("tiles", "tiles-mean")
        return tuple(Region(area, (area, *(_tiles(area) if tiled else ()))) for area in areas)


WHOLE: Final = Look()


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a picture that gets an answer, and the cuts of it that the model is shown."""

    area: Cut
    cuts: tuple[Cut, ...]


def _area(box: Box, place: int, whole: Cut) -> Cut:
    numbers = (box.x, box.y, box.width, box.height)
    shares = max(numbers) <= 1
    across, down = (whole.width, whole.height) if shares else (1, 1)
    left, top = box.x * across, box.y * down
    right, bottom = left + box.width * across, top + box.height * down
    size = f"the picture has {whole.width} x {whole.height} pixels"
    if right > whole.width + ROUNDING or bottom > whole.height + ROUNDING:
        shown = ", ".join(f"{number:g}" for number in numbers)
        detail = f"box {place} (x, y, width, height: {shown}) reaches beyond the picture; {size}"
        raise Invalid(detail, field="boxes", value=shown)
    left, top = min(int(left), whole.width - 1), min(int(top), whole.height - 1)
    right, bottom = min(round(right), whole.width), min(round(bottom), whole.height)
    return Cut(left, top, max(right, left + 1), max(bottom, top + 1))


def _tiles(area: Cut) -> Iterator[Cut]:
    """Squares that cover an area, each smaller than its shorter edge."""
    edge = max(1, math.ceil(TILE * min(area.width, area.height)))
    for top in _starts(area.height, edge):
        for left in _starts(area.width, edge):
            x, y = area.left + left, area.top + top
            yield Cut(x, y, min(x + edge, area.right), min(y + edge, area.bottom))


def _starts(length: int, edge: int) -> list[int]:
    """Where squares of this edge begin along a length, evenly and overlapping by half."""
    count = min(MOST_ALONG, 1 + math.ceil(2 * (length - edge) / edge))
    room = length - edge
    return sorted({round(place * room / max(1, count - 1)) for place in range(count)})
