"""From the fields `view`, `boxes` and `background` of a request to how a picture is looked at."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final

from PIL import ImageColor
from pydantic import BeforeValidator, Field

from app.api.json_text import json_list
from app.errors import Invalid, TooLarge
from app.images.views import Box, Look, View

# boxes of one request; each heat map costs dozens of forward passes
MOST_BOXES: Final = 64
MOST_BOXES_EXPLAINED: Final = 4

# a URL loses everything behind an unencoded #
HEX: Final = re.compile(r"#?(?:[0-9a-f]{3}|[0-9a-f]{6})")

NAMES: Final = ("x", "y", "width", "height")


def _listed(value: Any) -> Any:
    """Boxes from what a shell sends: a JSON list of boxes, or one as four numbers."""
    if isinstance(value, str):
        value = [value] if not value.lstrip().startswith("[") else json_list(value)
    if not isinstance(value, list):
        return value
    if value and all(isinstance(number, int | float) for number in value):
        value = [value]
    return [box.split(",") if isinstance(box, str) else box for box in value]


def _numbers(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == set(NAMES):
        return [value[name] for name in NAMES]
    if not isinstance(value, list) or len(value) != len(NAMES):
        raise ValueError(f"a box is four numbers: {', '.join(NAMES)}")
    return value


Corner = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Edge = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Boxes = Annotated[
    list[Annotated[tuple[Corner, Corner, Edge, Edge], BeforeValidator(_numbers)]],
    BeforeValidator(_listed),
    Field(min_length=1),
]


def _colour(value: Any) -> Any:
    """`auto`, or a colour as #rrggbb: a name of CSS, or hexadecimal digits."""
    if not isinstance(value, str):
        return value
    name = value.strip().lower()
    if name in ("", "auto"):
        return "auto"
    if HEX.fullmatch(name):
        name = f"#{name.removeprefix('#')}"
    elif name not in ImageColor.colormap:
        raise ValueError("must be auto, a colour name or #rrggbb")
    return "#{:02x}{:02x}{:02x}".format(*ImageColor.getrgb(name)[:3])


Background = Annotated[str, BeforeValidator(_colour)]


def look_of(
    view: View,
    boxes: Sequence[tuple[float, float, float, float]] | None,
    background: str = "auto",
    *,
    explain: bool,
) -> Look:
    """How a picture is looked at. Raises Invalid, TooLarge."""
    count, most = len(boxes or ()), MOST_BOXES_EXPLAINED if explain else MOST_BOXES
    if count > most:
        detail = f"{count} boxes are given, the limit is {most}{' with explain' if explain else ''}"
        raise TooLarge(detail, field="boxes", limit=most, value=count)
    if explain and view.startswith("tiles"):
        detail = "explain shows one view of a picture, and tiles are several; choose another view"
        raise Invalid(detail, field="view", value=view)
    return Look(view, tuple(Box(*box) for box in boxes or ()), background)
