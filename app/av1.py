"""How large a picture in AV1 is by its own account. Knows nothing of files, and decodes nothing.

The names are those of the AV1 specification, sections 5.3 to 5.5.
"""

from collections.abc import Iterator
from typing import Final

SEQUENCE_HEADER: Final = 1
HEADER_BYTES: Final = 512  # more than it can have

# of the first byte of a unit (OBU): type, marker of an extension, marker of a size
TYPE_SHIFT: Final = 3
EXTENDED: Final = 4
SIZED: Final = 2


def frame_sizes(picture: bytes) -> Iterator[tuple[int, int]]:
    """The most width and height that each unit of the picture allows; 0 where it says nothing.

    Raises IndexError: the picture is broken.
    """
    place = 0
    while place < len(picture):
        first = picture[place]
        place += 2 if first & EXTENDED else 1
        size = len(picture) - place
        if first & SIZED:
            size, place = _leb128(picture, place)
        if first >> TYPE_SHIFT & 15 == SEQUENCE_HEADER:
            yield _frame_size(_Bits(picture[place : place + min(size, HEADER_BYTES)]))
        else:
            yield 0, 0
        place += size


def _leb128(data: bytes, place: int) -> tuple[int, int]:
    """A number, and where it ends."""
    number = 0
    for count in range(8):
        number |= (data[place + count] & 127) << (7 * count)
        if data[place + count] < 128:
            break
    return number, place + count + 1


def _frame_size(bits: "_Bits") -> tuple[int, int]:
    bits.read(4)
    if bits.read(1):  # a still picture with a reduced header
        bits.read(5)
    else:
        _skip_operating_points(bits)
    wide, high = bits.read(4) + 1, bits.read(4) + 1
    return bits.read(wide) + 1, bits.read(high) + 1


def _skip_operating_points(bits: "_Bits") -> None:
    delay, model = 0, 0
    if bits.read(1):  # timing
        bits.read(64)
        if bits.read(1):
            zeros = 0
            while not bits.read(1):
                zeros += 1
            bits.read(zeros)
        model = bits.read(1)
        if model:
            delay = bits.read(5) + 1
            bits.read(42)
    display = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if model and bits.read(1):
            bits.read(2 * delay + 1)
        if display and bits.read(1):
            bits.read(4)


class _Bits:
    """Numbers of any number of bits, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def read(self, count: int) -> int:
        """The next bits. Raises IndexError at the end."""
        first, end = self._place // 8, self._place + count
        last = -(-end // 8)
        if last > len(self._data):
            raise IndexError("the data end too soon")
        self._place = end
        return int.from_bytes(self._data[first:last], "big") >> (8 * last - end) & (1 << count) - 1
