"""The boxes of an AVIF or HEIC file: what stands in them that pixels do not need is taken out.

Knows the container (ISO/IEC 14496-12 and 23008-12), and no decoder.
"""

import contextlib
import struct
from collections.abc import Iterator
from typing import Final

from app import av1
from app.costs import check, check_size

BOXES: Final = 1_000

# bytes of the boxes that name items; libavif takes a time that grows with their number squared
LISTS: Final = {b"iinf": 65_536, b"iloc": 65_536, b"iref": 16_384, b"ipma": 16_384}

# what an AV1 picture is made of; one has three or four
UNITS: Final = 50_000

# beside the picture a file may hold its transparency, a preview and more
PICTURES: Final = 4


def screen_heif(data: bytes, pixels: int) -> bytes:
    """The file as the still picture that it is first of all, without its EXIF.

    Orientation is a property of its own there (ISO/IEC 23008-12, 6.5.10). Raises TooLarge, where
    the pictures inside are larger than `pixels`, whatever the file says of them.
    """
    found = bytearray(data)
    for number, (name, start, end) in enumerate(_boxes(data, 0, len(data))):
        check(number, BOXES, "boxes")
        if name == b"ftyp":
            found[start:end] = found[start:end].replace(b"avis", b"avif")
        elif name == b"moov":
            found[start - 4 : start] = b"free"
        elif name == b"meta":
            found[start:end] = found[start:end].replace(b"Exif", b"skip")
            _check_lists(data, start + 4, end)
            _check_pictures(data, start + 4, end, pixels)
    return bytes(found)


def _check_lists(data: bytes, start: int, end: int) -> None:
    for name, first, last in _boxes(data, start, end):
        if name in LISTS:
            check(last - first, LISTS[name], f"bytes of {name.decode()}")
        elif name == b"iprp":
            _check_lists(data, first, last)


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
            for width, height in av1.frame_sizes(picture):
                units, total = units + 1, total + width * height
                check(units, UNITS, "units in its pictures")
                check_size(width, height, pixels)
                check(total, PICTURES * pixels, "pixels in all of its pictures")


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, begin and end of the body of each box."""
    while start + 16 <= end:
        size, name, large = struct.unpack_from(">I4sQ", data, start)
        head = 16 if size == 1 else 8
        size = large if size == 1 else size or end - start
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
