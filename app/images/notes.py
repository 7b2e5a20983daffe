"""What had to be guessed, or is not seen, of a picture: in sentences, and as numbers to be kept."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from app.images.views import Cut
from models import ImageSpec

# how many numbers `Notes.numbers` has
COUNT: Final = 4

# the notes of yes and no, a bit each, and the bit of a range
FLAGS: Final = {
    "more": 1, "dark": 2, "uniform": 4, "became_uniform": 8, "bands": 16, "incomplete": 64,
    "preview": 128,
}  # fmt: skip
RANGE: Final = 32

# share of what the model sees that is border
BORDER: Final = 1 / 2

# share of a picture outside the centre crop that is worth a word
LOST: Final = 1 / 3


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

    def numbers(self) -> npt.NDArray[np.float32]:
        """The same as COUNT numbers."""
        bits = sum(bit for name, bit in FLAGS.items() if getattr(self, name))
        bits |= RANGE if self.high is not None else 0
        return np.array([bits, self.low or 0.0, self.high or 0.0, 0.0], np.float32)

    @classmethod
    def of_numbers(cls, numbers: npt.NDArray[np.float32]) -> "Notes":
        """What `numbers` made."""
        bits = int(numbers[0])
        flags = {name: bool(bits & bit) for name, bit in FLAGS.items()}
        low, high = map(float, numbers[1:3]) if bits & RANGE else (None, None)
        return cls(**flags, low=low, high=high)

    def warnings(self) -> tuple[str, ...]:
        """A sentence for each."""
        texts = []
        if self.high is not None:
            texts.append(
                f"the picture's numbers do not use the range of their type: {self.low:.7g} was "
                f"taken for black and {self.high:.7g} for white"
            )
        if self.more:
            texts.append("the file has several frames or pages; only the first one is used")
        if self.dark:
            texts.append(
                "what is drawn on the transparent ground is light, so it was laid on black; "
                "background=white changes that"
            )
        if self.bands:
            texts.append("channels other than colour and transparency were ignored")
        if self.incomplete:
            texts.append(
                "the drawing has text, or parts that lie outside of its file; these are not drawn"
            )
        if self.preview:
            texts.append(
                "this is a camera's raw file, and only the small preview in it is used; develop it "
                "to JPEG for better answers"
            )
        if self.uniform:
            texts.append("the picture has a single colour; its scores mean nothing")
        if self.became_uniform:
            texts.append(
                "what the model sees of the picture is of one colour, so the scores mean nothing; "
                "view=pad shows all of it, and background= what transparency is laid on"
            )
        return tuple(texts)


def lost(area: Cut, spec: ImageSpec) -> float:
    """The share of a part of a picture that the model does not see."""
    if not spec.resize_mode.startswith("shortest"):
        return 0.0
    ratios = area.width / spec.width, area.height / spec.height
    return 1 - min(ratios) / max(ratios)


def crop_warnings(area: Cut, spec: ImageSpec) -> tuple[str, ...]:
    """Whether much of the area is cut away."""
    share = lost(area, spec)
    if share <= LOST:
        return ()
    shape = "tall" if area.height > area.width else "wide"
    return (
        f"{share:.0%} of this {shape} picture lies outside the model's centre crop and is not "
        "seen; view=pad, squash or tiles uses all of it",
    )


def border_warnings(area: Cut, spec: ImageSpec) -> tuple[str, ...]:
    """Whether a long picture is fitted in whole, and so is seen small."""
    if spec.resize_mode != "longest":
        return ()
    ratios = area.width / spec.width, area.height / spec.height
    filled = min(ratios) / max(ratios)
    if filled >= 1 - BORDER:
        return ()
    shape = "tall" if area.height > area.width else "wide"
    return (
        f"this {shape} picture fills {max(filled, 0.01):.0%} of what the model looks at, so that "
        "it is seen small; view=tiles looks at parts of it",
    )
