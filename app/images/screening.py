"""Look at an image file before a decoder does: no file costs much more than its pixels.

Knows no decoder's code, only what decoders do with the parts of a file. What is malformed passes
as it is, if the decoder will say so.
"""

import math
import re
import struct
import zlib
from collections import Counter
from typing import Final

from app.errors import DamagedImage
from app.images import tiff
from app.images.formats import CUT_SHORT, FRAMES
from app.images.heif import screen_heif
from app.images.limits import check

# parts that a file may have in front of its pixels; real files have tens
SEGMENTS: Final = 1_000
SAME_SEGMENTS: Final = 64
EXIF_SEGMENTS: Final = 8
CHUNKS: Final = 50_000
BLOCKS: Final = 20_000
TAGS: Final = 1_000
JUNK: Final = 65_536

# a scan of a JPEG takes a few bytes and makes a decoder walk over all of its pixels
SCANS: Final = 100
LEAST_SCANS: Final = 20  # a plain encoder makes 18 at most
SCANNED_PIXELS: Final = 1_000_000_000

# strips and tiles of a TIFF; numbers in any other of its tags
STRIPS: Final = 100_000
NUMBERS: Final = 5_000

# run lengths of a BMP are decoded in Python, a pixel at a time
RLE_PIXELS: Final = 4_000_000

# the chunks of a PNG that pixels and orientation depend on (W3C PNG, section 5.6)
NEEDED: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND"})
# whose checksums are checked: Pillow passes over that of the last IDAT, and so over its damage
CHECKED: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT"})
CHUNK_NAME: Final = re.compile(rb"\w{4}")

# a JPEG's markers, and those that no length follows (ITU T.81, table B.1)
MARKER: Final = re.compile(rb"\xff([^\x00\xff])")
MARKER_IN_SCAN: Final = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
BARE: Final = frozenset({0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)})
PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
FREQUENT: Final = frozenset({0xE1, 0xE2})  # XMP and colour profiles come in many parts

# types of a TIFF's tags by their size in bytes (TIFF 6.0, section 2, and BigTIFF)
TEXTS: Final = frozenset({1, 2, 7})
INTEGERS: Final = {3: "H", 16: "Q", 17: "Q", 18: "Q"}
LAYOUT: Final = frozenset({273, 279, 324, 325})
TILE: Final = frozenset({322, 323})
COLOUR_MAP: Final = 320
DIRECTORIES: Final = frozenset({34665, 34853, 40965})  # EXIF, GPS, interoperability


def screen(data: bytes, pixels: int) -> bytes:
    """The file as a decoder may have it, without parts that take time and give no pixel.

    Raises TooLarge, where it is made to cost more than `pixels` do; DamagedImage for what a decoder
    would not notice.
    """
    try:
        if data.startswith(b"\x89PNG"):
            return _png(data)
        if data.startswith(b"\xff\xd8"):
            _check_jpeg(data)
        elif data.startswith(b"GIF8"):
            _check_gif(data)
        elif data.startswith(b"BM"):
            return _bmp(data)
        elif data[:2] in (b"II", b"MM"):
            return _tiff(data, pixels)
        elif data[4:8] == b"ftyp":
            return screen_heif(data, pixels)
    except CUT_SHORT:  # it is cut short
        pass
    return data


# groups of codes that a lossless WebP may have: one for each square of 4 x 4 pixels, with tables of
# which each takes as much memory as so many pixels do (WebP Lossless Bitstream, section 6.2.2)
GROUPS: Final = 65_536
SQUARE: Final = 16
PIXELS_OF_A_GROUP: Final = 700


def held_beside(data: bytes, pixels: int) -> int:
    """What a decoder holds for a file of `pixels` beside these, in pixels of the same memory.

    Raises struct.error, IndexError, OverflowError: the file is cut short.
    """
    if data[:4] == b"RIFF" and (b"VP8L" in data or b"ALPH" in data):
        return min(pixels // SQUARE, GROUPS) * PIXELS_OF_A_GROUP
    if data.startswith(b"\x89PNG"):
        return pixels if data[24] == 16 else 0  # it may be read again, for the lower bytes
    if data[:2] in (b"II", b"MM"):
        ifd = tiff.directory(data)
        return max(0, ifd.number(tiff.TILE_WIDTH, 1)) * max(0, ifd.number(tiff.TILE_HEIGHT, 1))
    return 0


def _png(data: bytes) -> bytes:
    """Only the chunks that are needed: others inflate, and Pillow takes their names for its own."""
    kept = [(0, 8)]
    place, chunks, dropped = 8, 0, False
    while place + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, place)
        if not CHUNK_NAME.fullmatch(name):
            kept.append((place, len(data)))
            break
        end = place + 12 + size
        chunks += 1
        check(chunks, CHUNKS, "chunks")
        if name in CHECKED and end <= len(data):
            (sum_,) = struct.unpack_from(">I", data, end - 4)
            if zlib.crc32(memoryview(data)[place + 4 : end - 4]) != sum_:
                raise DamagedImage("the PNG file cannot be decoded", field="image")
        if name not in NEEDED:
            dropped = True
        elif kept[-1][1] == place:
            kept[-1] = (kept[-1][0], end)
        else:
            kept.append((place, end))
        place = end
        if name == b"IEND":
            break
    return b"".join(data[start:end] for start, end in kept) if dropped else data


def _check_jpeg(data: bytes) -> None:
    place, junk, exif = 2, 0, 0
    counts: Counter[int] = Counter()
    frame = (0, 0, 0, 0)  # its marker, height, width and number of components
    while match := MARKER.search(data, place):
        marker = match[1][0]
        junk += match.start() - place
        place = match.end()
        counts[marker] += 1
        check(junk, JUNK, "bytes of junk in its header")
        check(counts.total(), SEGMENTS, "segments in its header")
        if marker in BARE:
            continue
        check(counts[marker] if marker not in FREQUENT else 0, SAME_SEGMENTS, "segments of a kind")
        (size,) = struct.unpack_from(">H", data, place)
        exif += data[place + 2 : place + 6] == b"Exif"
        check(exif, EXIF_SEGMENTS, "EXIF segments")
        if marker in FRAMES:
            frame = (marker, *struct.unpack_from(">HHB", data, place + 3))
        place += max(2, size)
        if marker == 0xDA:
            if frame[0] in PROGRESSIVE or data[place - size + 2] < frame[3]:
                _check_scans(data, place, frame[1] * frame[2])
            return
    check(len(data) - place, JUNK, "bytes of junk in its header")


def _check_scans(data: bytes, place: int, pixels: int) -> None:
    limit = min(SCANS, max(LEAST_SCANS, SCANNED_PIXELS // max(1, pixels)))
    scans = 1
    while match := MARKER_IN_SCAN.search(data, place):
        marker, place = match[1][0], match.end()
        if marker == 0xD9:
            return
        if marker == 0xDA:
            scans += 1
            check(scans, limit, f"scans of {pixels} pixels")
        if marker not in BARE:
            place += struct.unpack_from(">H", data, place)[0]


def _check_gif(data: bytes) -> None:
    """Count what precedes the first picture, as Pillow reads it."""
    place = 13 + (3 << (data[10] & 7) + 1 if data[10] & 128 else 0)
    blocks = 0

    def block() -> bytes:
        nonlocal place, blocks
        blocks += 1
        check(blocks, BLOCKS, "blocks before its picture")
        start, place = place + 1, place + 1 + data[place]
        return data[start:place]

    while data[place] not in b",;":
        place += 1
        blocks += 1
        check(blocks, BLOCKS, "blocks before its picture")
        if data[place - 1] == ord("!"):
            label, place = data[place], place + 1
            first = block()
            if label == 255 and first.startswith(b"NETSCAPE2.0"):
                block()
            while (first or label != 254) and block():
                pass


def _bmp(data: bytes) -> bytes:
    size, width, height = struct.unpack_from("<III", data, 14)
    if size < 40 or struct.unpack_from("<I", data, 30)[0] not in (1, 2):
        return data
    if data[25] == 0xFF:
        height = 2**32 - height
    check(width * height, RLE_PIXELS, "pixels of run lengths")
    # a run has a pixel or more and takes two bytes, and so does the end of a row
    start = struct.unpack_from("<I", data, 10)[0]
    return data[: start + 2 * width * height + 4 * height + 300_000]


def _tiff(data: bytes, pixels: int) -> bytes:
    """The file without its EXIF directory, and without tags that hold masses of numbers."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2] == 43  # what Pillow looks at
    entry, inline = (order + "HHQ", 8) if big else (order + "HHI", 4)
    start = struct.unpack_from(entry[0] + entry[-1], data, inline)[0]
    count = struct.unpack_from(order + ("Q" if big else "H"), data, start)[0]
    check(count, TAGS, "tags")
    first, step = start + (8 if big else 2), 4 + 2 * inline
    cleared, tile = bytearray(), [1, 1]
    for place in range(first, min(first + count * step, len(data) - step + 1), step):
        tag, kind, number = struct.unpack_from(entry, data, place)
        if tag in LAYOUT:
            check(number, STRIPS, "strips or tiles")
        elif tag in TILE:
            tile[tag - 322] = max(tile[tag - 322], _number(data, order, place + 4 + inline, kind))
        elif tag in DIRECTORIES or number > _most_numbers(tag, kind):
            cleared = cleared or bytearray(data)
            cleared[place + 2 : place + 4] = b"\0\0"  # a type that does not exist: not read
    check(tile[0] * tile[1], pixels, "pixels in a tile")
    return bytes(cleared) or data


def _most_numbers(tag: int, kind: int) -> float:
    if tag == COLOUR_MAP:
        return 3 * 65_536
    return math.inf if kind in TEXTS else NUMBERS


def _number(data: bytes, order: str, place: int, kind: int) -> int:
    """The value of a tag of one number; 8 bytes do not fit into an old TIFF's own 4."""
    code = INTEGERS.get(kind, "I")  # libtiff takes more types than there should be
    if code == "Q" and data[2] != 43:
        place = struct.unpack_from(order + "I", data, place)[0]
    raw = data[place : place + struct.calcsize(code)].ljust(struct.calcsize(code), b"\0")
    return int(struct.unpack(order + code, raw)[0])
