"""The boxes of an AVIF or HEIC file: what the pixels do not need is removed.

Knows the container (ISO/IEC 14496-12 and 23008-12), and no decoder.
"""

import contextlib
import math
import struct
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Final

from app.images.limits import check, check_size

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


# in one box, or in the file
BOXES: Final = 1_000

# bytes of the boxes that name items; libavif takes a time that grows with their number squared
LISTS: Final = {b"iinf": 65_536, b"iloc": 65_536, b"iref": 16_384, b"ipma": 16_384}

# what an AV1 picture is made of; one has three or four
UNITS: Final = 50_000

# pictures may be made of others, as a grid is of its cells, and these of others, too: a photograph
# with a gain map is made of two grids
LEVELS: Final = 4

# brands of sequences, and those of the still pictures that such files have as well
STILL: Final = {b"avis": b"avif", b"msf1": b"mif1", b"hevc": b"heic", b"hevx": b"heix"}

# beside the picture a file may hold its transparency, a preview and more
PICTURES: Final = 4

# one with a gain map as large, each of them a grid, is made of five times its pixels
PARTS: Final = 6


def screen_heif(data: bytes, pixels: int) -> bytes:
    """The file as the still picture that it is first of all, without its EXIF.

    Orientation is a property of its own there (ISO/IEC 23008-12, 6.5.10). Raises TooLarge, where
    the pictures inside are larger than `pixels`, whatever the file says of them.
    """
    screened = bytearray(data)
    for name, start, end in _boxes(data, 0, len(data)):
        if name == b"ftyp":
            for sequence, still in STILL.items():
                screened[start:end] = screened[start:end].replace(sequence, still)
        elif name == b"moov":
            screened[start - 4 : start] = b"free"
        elif name == b"meta":
            screened[start:end] = screened[start:end].replace(b"Exif", b"skip")
            _check_lists(data, start + 4, end)
            _check_pictures(data, start + 4, end, pixels)
            _check_derived(data, start + 4, end, pixels)
    return bytes(screened)


def _check_lists(data: bytes, start: int, end: int) -> None:
    sizes: Counter[bytes] = Counter()
    for name, first, last in _boxes(data, start, end):
        inside = _boxes(data, first, last) if name == b"iprp" else ()
        for part, begin, stop in chain([(name, first, last)], inside):
            if part in LISTS:
                sizes[part] += stop - begin
                check(sizes[part], LISTS[part], f"bytes of {part.decode()}")


def _check_pictures(data: bytes, start: int, end: int, pixels: int) -> None:
    total, held, units, within, places = 0, 0, 0, 0, b""
    for name, first, last in _boxes(data, start, end):
        if name == b"iloc":
            places = data[first:last]
        elif name == b"idat":
            within = first
    for spans in _items(places, within):
        held += sum(min(size or len(data), len(data)) for _, size in spans)
        check(held, 2 * len(data), "bytes in its items, which is twice what it has")
        picture = b"".join(data[first : first + (size or len(data))] for first, size in spans)
        with contextlib.suppress(IndexError):  # it is broken; others may not be
            for width, height in frame_sizes(picture):
                units, total = units + 1, total + width * height
                check(units, UNITS, "units in its pictures")
                check_size(width, height, pixels)
                check(total, PICTURES * pixels, "pixels in all of its pictures")


def _check_derived(data: bytes, start: int, end: int, pixels: int) -> None:
    """No picture is made of others of many more pixels: each is decoded wherever it is named."""
    sizes: dict[int, tuple[int, int]] = {}
    parts: dict[int, list[int]] = {}
    for name, first, last in _boxes(data, start, end):
        if name == b"iprp":
            for item, size in _sizes(data, first, last):
                sizes[item] = max(size, sizes.get(item, (0, 0)), key=math.prod)
        elif name == b"iref":
            wide = 4 if any(data[first : first + 1]) else 2
            for kind, begin, stop in _boxes(data, first + 4, last):
                if kind == b"dimg":
                    numbers = _Numbers(data[begin:stop])
                    item, named = numbers.read(wide), min(numbers.read(2), stop - begin)
                    parts.setdefault(item, []).extend(numbers.read(wide) for _ in range(named))
    areas = {item: math.prod(size) for item, size in sizes.items()}
    work, levels = areas, 0
    while levels < LEVELS:
        # one that does not say its size may have any
        together = {
            item: areas.get(item, 0) + sum(work.get(part) or pixels for part in parts.get(item, ()))
            for item in areas.keys() | parts.keys()
        }
        if together == work:
            break
        work, levels = together, levels + 1
    check(levels, LEVELS - 1, "levels of derived images")
    for item, total in work.items():
        check_size(*sizes.get(item, (0, 0)), pixels)  # a crop is of what was decoded whole
        check(total, PARTS * pixels, "pixels in its derived images")


def _sizes(data: bytes, start: int, end: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """Items with the width and height that they say, from the body of an `iprp` box."""
    sizes = [(0, 0)]  # of the properties, which count from 1
    for name, first, last in _boxes(data, start, end):
        if name == b"ipco":
            for kind, begin, stop in _boxes(data, first, last):
                extent = _Numbers(data[begin + 4 : stop])
                sizes.append((extent.read(4), extent.read(4)) if kind == b"ispe" else (0, 0))
        elif name == b"ipma":
            numbers = _Numbers(data[first:last])
            wide = 4 if numbers.read(1) else 2
            long = 1 + (numbers.read(3) & 1)
            index = (1 << 8 * long - 1) - 1  # the topmost bit says that a property is essential
            for _ in range(min(numbers.read(4), last - first)):
                item = numbers.read(wide)
                own = [numbers.read(long) & index for _ in range(numbers.read(1))]
                known = [sizes[at] for at in own if at < len(sizes)]
                yield item, max(known, key=math.prod, default=(0, 0))


class _Numbers:
    """Numbers of some bytes each, one after the other; 0 behind the end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def read(self, size: int) -> int:
        self._place += size
        return int.from_bytes(self._data[self._place - size : self._place], "big")


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, begin and end of the body of each box. Raises TooLarge."""
    number = 0
    while start + 8 <= end:
        check(number, BOXES, "boxes")
        number += 1
        size, name = struct.unpack_from(">I4s", data, start)
        head = 16 if size == 1 else 8
        size = int.from_bytes(data[start + 8 : start + 16]) if size == 1 else size or end - start
        if size < head:
            return
        yield name, start + head, min(start + size, end)
        start += size


def _items(places: bytes, within: int) -> Iterator[list[tuple[int, int]]]:
    """Offset and length of the parts of each item, from the body of an `iloc` box."""
    if len(places) < 6:
        return
    version, sizes, more = places[0], places[4], places[5]
    offset, length, base, index = sizes >> 4, sizes & 15, more >> 4, more & 15
    index = index if version in (1, 2) else 0
    wide = 2 if version < 2 else 4
    place = 6

    def number(size: int) -> int:
        nonlocal place
        place += size
        return int.from_bytes(places[place - size : place], "big")

    for _ in range(number(wide)):
        if place > len(places):
            return  # the box ends too soon
        number(wide)
        method = number(2) & 15 if version in (1, 2) else 0
        number(2)
        origin = number(base) + (within if method == 1 else 0)
        spans = []
        for _ in range(min(number(2), len(places))):
            number(index)
            spans.append((origin + number(offset), number(length)))
        yield spans
