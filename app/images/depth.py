"""Numbers of any range to the 8 bits of a picture. Pure: knows no files."""

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from app.images.notes import Notes

Numbers = npt.NDArray[np.generic]

# pixels that are looked at once, however wide a row is: no more of them are held as floats
PIECE: Final = 65_536

# floating-point pictures come in two habits, 0..1 and 0..255; up to here one is the former, that
# overshoots
OVERSHOOT: Final = 16.0

# a range that begins above this share of its end does not begin at black
FAR_FROM_BLACK: Final = 1 / 4


def extent(raw: Numbers) -> tuple[float, float]:
    """The least and the greatest finite number; (0, 0) if there is none."""
    low, high = math.inf, -math.inf
    for place in _pieces(raw):
        piece = raw[place]
        if piece.dtype.kind == "f":
            piece = piece[np.isfinite(piece)]
        if piece.size:
            low, high = min(low, float(piece.min())), max(high, float(piece.max()))
    return (low, high) if low <= high else (0.0, 0.0)


def _pieces(raw: Numbers) -> Iterator[tuple[slice, slice]]:
    """Parts of a picture (H, W) or (H, W, channels), of PIECE pixels at most."""
    height, width = raw.shape[:2]
    across = max(1, min(width, PIECE))
    down = PIECE // across
    for top in range(0, height, down):
        for left in range(0, width, across):
            yield slice(top, top + down), slice(left, left + across)


def span(
    dtype: np.dtype[np.generic], low: float, high: float, declared: float | None, notes: Notes
) -> tuple[float, float]:
    """The numbers for black and white, of a picture whose numbers go from `low` to `high`.

    What the file says (`declared`, its white) counts if it can be true; else what its type says,
    if the numbers use it; else their own range, which is noted.
    """
    if declared is not None and low >= 0 and 0 < high <= declared:
        return 0.0, declared
    usual = _usual(dtype, low, high)
    if usual is not None:
        return 0.0, usual
    black = 0.0 if 0 <= low < FAR_FROM_BLACK * high else low
    white = high
    if dtype.kind != "f" and black == 0:
        white = float(2 ** max(8, math.ceil(math.log2(high + 1))) - 1)
    notes.low, notes.high = black, white
    return black, white


def _usual(dtype: np.dtype[np.generic], low: float, high: float) -> float | None:
    """White as it is usual for numbers of this type, None if these do not look usual."""
    if low < 0:
        return None
    if dtype.kind == "f":
        if high <= 1:
            return 1.0
        return 255.0 if OVERSHOOT < high <= 255 else None
    bits = 8 * dtype.itemsize
    # the topmost bit is used; of 32 bits many files use the lower 16
    tops = {8: (255,), 16: (65_535,)}.get(bits, (65_535, 2**31 - 1, 2**32 - 1, 2.0**64))
    if low == high:
        return float(next(top for top in tops if high <= top))
    return next((float(top) for top in tops if top / 2 < high <= top), None)


def scaled(raw: Numbers, black: float, white: float) -> npt.NDArray[np.uint8]:
    """Numbers between `black` and `white` to 0..255; what is not a number is black."""
    levels = np.empty(raw.shape, np.uint8)
    factor = 255 / (white - black) if white > black else 1.0
    for place in _pieces(raw):
        # there are numbers that are none in two ways, and some that are beyond all others
        with np.errstate(invalid="ignore", over="ignore"):
            piece = raw[place].astype(np.float64)
            piece -= black
            piece *= factor
        np.nan_to_num(piece, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        levels[place] = np.clip(np.rint(piece, out=piece), 0, 255, out=piece)
    return levels
