"""What had to be guessed, or is not seen, of a picture: in sentences, and as numbers to be kept."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

import numpy as np

from app.images.views import Cut
from models import ImageSpec
from models.info import Floats

# how many numbers `Notes.numbers` has
COUNT: Final = 3

# the notes of yes and no, a bit each
FLAGS: Final = (
    "more", "dark", "uniform", "became_uniform", "bands", "incomplete", "preview",
)  # fmt: skip

# share of what the model sees that is border
BORDER: Final = 1 / 2

# share of a picture outside the centre crop that is worth a word
LOST: Final = 1 / 3

# facts that one answer about many pictures tells
FACTS: Final = 8


class Noticed(NamedTuple):
    """What was noticed of a picture, and what that means where labels are scored.

    `for_scores` may name fields that only such requests have.
    """

    fact: str
    for_scores: str = ""

    @property
    def warning(self) -> str:
        """Both, as the answer to such a request says it."""
        return f"{self.fact}{self.for_scores}"


@dataclass(slots=True)
class Notes:
    """What a decoder noticed, filled in as it goes.

    `more`: frames or pages beside the first. `dark`: what is drawn is light and was laid on black.
    `uniform`: the picture is of one colour; `became_uniform`: only what the model sees of it is.
    `bands`: channels that are no colours were left out. `low` and `high`: the numbers that were
    taken for black and white, where the file did not say and they are not those of its type.
    `incomplete`: a drawing has letters, or parts that lie outside of its file. `preview`: it is a
    small copy that a camera put before its raw picture.
    """

    more: bool = False
    dark: bool = False
    uniform: bool = False
    became_uniform: bool = False
    bands: bool = False
    low: float | None = None
    high: float | None = None
    incomplete: bool = False
    preview: bool = False

    def numbers(self) -> Floats:
        """The same as COUNT numbers."""
        bits = sum(getattr(self, name) << place for place, name in enumerate(FLAGS))
        edges = [math.nan if edge is None else edge for edge in (self.low, self.high)]
        return np.array([bits, *edges], np.float32)

    @classmethod
    def of_numbers(cls, numbers: Floats) -> "Notes":
        """What `numbers` made."""
        bits = int(numbers[0])
        flags = {name: bool(bits >> place & 1) for place, name in enumerate(FLAGS)}
        low, high = (None if math.isnan(edge) else float(edge) for edge in numbers[1:])
        return cls(**flags, low=low, high=high)

    def noticed(self) -> tuple[Noticed, ...]:
        """A sentence for each."""
        noticed = []
        if self.high is not None:
            fact = "the picture's numbers do not use the range of their type: "
            fact += f"{self.low:.7g} was taken for black and {self.high:.7g} for white"
            noticed.append(Noticed(fact))
        if self.more:
            fact = "the file has several frames or pages; only the first one is used"
            noticed.append(Noticed(fact))
        if self.dark:
            fact = "what is drawn on the transparent ground is light, so it was laid on black"
            noticed.append(Noticed(fact, "; background=white changes that"))
        if self.bands:
            noticed.append(Noticed("channels other than colour and transparency were ignored"))
        if self.incomplete:
            fact = "the drawing has text, or parts that lie outside of its file; these are not "
            noticed.append(Noticed(f"{fact}drawn"))
        if self.preview:
            fact = "this is a camera's raw file, and only the small preview in it is used; develop "
            noticed.append(Noticed(f"{fact}it to JPEG for better answers"))
        if self.uniform:
            fact = "the picture has a single colour"
            noticed.append(Noticed(fact, "; its scores mean nothing"))
        if self.became_uniform:
            fact = "what the model sees of the picture is of one colour"
            follows = ", so the scores mean nothing; view=pad shows all of it, and background= "
            noticed.append(Noticed(fact, f"{follows}what transparency is laid on"))
        return tuple(noticed)


def cropped(area: Cut, spec: ImageSpec) -> tuple[Noticed, ...]:
    """Whether much of the area is cut away."""
    share = 1 - _filled(area, spec)
    if not spec.resize_mode.startswith("shortest") or share <= LOST:
        return ()
    shape = "tall" if area.height > area.width else "wide"
    fact = f"{share:.0%} of this {shape} picture lies outside the model's centre crop and is not "
    return (Noticed(f"{fact}seen", "; view=pad, squash or tiles uses all of it"),)


def bordered(area: Cut, spec: ImageSpec) -> tuple[Noticed, ...]:
    """Whether a long picture is fitted in whole, and so is seen small."""
    filled = _filled(area, spec)
    if spec.resize_mode != "longest" or filled >= 1 - BORDER:
        return ()
    shape = "tall" if area.height > area.width else "wide"
    fact = f"this {shape} picture fills {max(filled, 0.01):.0%} of what the model looks at, "
    return (Noticed(f"{fact}so that it is seen small", "; view=tiles looks at parts of it"),)


def _filled(area: Cut, spec: ImageSpec) -> float:
    """The share of one shape that the other has in common with it, where their centres meet."""
    ratios = area.width / spec.width, area.height / spec.height
    return min(ratios) / max(ratios)


def of_many(noticed: Iterable[tuple[str, Sequence[Noticed]]]) -> list[str]:
    """A sentence for each fact, with the first picture that it is true of and how many more are.

    `noticed` are pictures, as their sender calls them, and what was noticed of each.
    """
    pictures: dict[str, list[str]] = {}
    for picture, facts in noticed:
        for fact, _ in facts:
            pictures.setdefault(fact, []).append(picture)
    told = [f"{fact} ({_first(names)})" for fact, names in islice(pictures.items(), FACTS)]
    more = len(pictures) - FACTS
    return [*told, f"and {more} more of this kind"] if more > 0 else told


def _first(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
