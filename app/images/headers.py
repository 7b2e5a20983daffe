"""What a JPEG 2000 or JPEG XL file says of itself before it is decoded. Knows no decoder."""

import re
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

# start of a codestream and its size segment (ITU T.800, tables A.2 and A.9)
SIZE_SEGMENT: Final = re.compile(rb"\xff\x4f\xff\x51")
AREA: Final = struct.Struct(">8x4I16x")  # where it ends, across and down, and where it begins
COMPONENTS: Final = 40  # bytes from the start to their number; three for each follow

# start of a JPEG XL codestream, and the boxes it is in (ISO/IEC 18181-1 and 18181-2)
CODESTREAM: Final = b"\xff\x0a"
BOXES: Final = 100

# bits of an edge by its selector, in pixels and in eighths of them; a single number has no selector
# (ISO/IEC 18181-1, tables D.3 and E.2)
SIZE: Final = ((9, 13, 18, 30), (5,))
PREVIEW: Final = ((6, 8, 10, 12), (0, 0, 5, 9))


class Components(NamedTuple):
    """A JPEG 2000 picture's size, and of each component its `bits` and `steps`: pixels of the
    picture, across and down, for each of its own.
    """

    width: int = 0
    height: int = 0
    bits: tuple[int, ...] = ()
    steps: tuple[tuple[int, int], ...] = ()

    @property
    def is_uneven(self) -> bool:
        """Whether a component has fewer pixels, which do not divide the picture's evenly."""
        return any(self.width % across or self.height % down for across, down in self.steps)


def components(data: bytes) -> Components:
    """What a JPEG 2000 picture says of its components: nothing where the header is damaged."""
    match = SIZE_SEGMENT.search(data)
    if match is None:
        return Components()
    start = match.start() + COMPONENTS + 2
    data = data.ljust(start, b"\0")
    right, bottom, left, top = AREA.unpack_from(data, match.start())
    (count,) = struct.unpack_from(">H", data, start - 2)
    each = data[start : start + 3 * count]
    bits = tuple((bits & 0x7F) + 1 for bits in each[::3])
    both = zip(each[1::3], each[2::3], strict=False)  # the last may be cut short
    steps = tuple((max(1, across), max(1, down)) for across, down in both)
    return Components(right - left, bottom - top, bits, steps)


def is_animated(data: bytes) -> bool:
    """Whether a JPEG XL file has frames that follow each other; False where it is damaged."""
    try:
        return _has_animation(_Bits(_codestream(data)))
    except (struct.error, IndexError):
        return False


def _codestream(data: bytes) -> bytes:
    if data.startswith(CODESTREAM):
        return data
    for kind, content in _boxes(data):
        if kind in (b"jxlc", b"jxlp"):
            return content if kind == b"jxlc" else content[4:]
    return b""


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    for _ in range(BOXES):
        size, kind = struct.unpack_from(">I4s", data, place)
        head = 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", data, place + 8), 16
        end = place + size if size else len(data)
        yield kind, data[place + head : end]
        place = max(end, place + head)


class _Bits:
    """Numbers of some bits each, the lowest bit first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 8 * len(CODESTREAM)

    def read(self, count: int) -> int:
        number = 0
        for place in range(count):
            byte, bit = divmod(self._place, 8)
            number |= (self._data[byte] >> bit & 1) << place
            self._place += 1
        return number


def _has_animation(bits: _Bits) -> bool:
    """The headers up to where they say so (ISO/IEC 18181-1, annexes D and E)."""
    _pass_size(bits, SIZE)
    if bits.read(1):  # all as usual
        return False
    if not bits.read(1):  # nothing beyond colour
        return False
    bits.read(3)  # orientation
    if bits.read(1):
        _pass_size(bits, SIZE)
    if bits.read(1):
        _pass_size(bits, PREVIEW)
    return bool(bits.read(1))


def _pass_size(bits: _Bits, edges: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    """Height, then a ratio, or 0 and the width."""
    edge = edges[bits.read(1)]
    bits.read(edge[bits.read(2)] if len(edge) > 1 else edge[0])
    if bits.read(3) == 0:
        bits.read(edge[bits.read(2)] if len(edge) > 1 else edge[0])
