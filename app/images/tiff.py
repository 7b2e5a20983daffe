"""TIFF pictures of more than 8 bits a channel, and of 8 bits with channels that Pillow does not
expect, in every layout of their numbers.

The decoder is Pillow's, which unpacks the bytes; what the bytes mean is read here (TIFF 6.0).
"""

import io
import math
import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from app.images.depth import Numbers, extent, scaled, span
from app.images.formats import CUT_SHORT
from app.images.notes import Notes

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
SAMPLES, MAX_VALUE, PLANAR, PREDICTOR = 277, 281, 284, 317
TILE_WIDTH, TILE_HEIGHT, EXTRA, FORMAT, GREATEST = 322, 323, 338, 339, 341
# what a page is, directories below it, and the version of DNG
SUBFILE, BELOW, DNG = 254, 330, 50_706
# a page that is a smaller copy of another (TIFF 6.0, page 36), or a mask
REDUCED, MASK = 1, 4

# none, LZW, deflate twice, PackBits, LZMA, Zstandard: what gives back the bytes as they were
LOSSLESS: Final = frozenset({1, 5, 8, 32_773, 32_946, 34_925, 50_000})

# what Pillow knows and its libtiff may lack: ThunderScan, two of LogLuv, WebP
RARE: Final = frozenset({32_809, 34_676, 34_677, 50_001})

# numbers of each colour for a picture, by its photometric interpretation
COLOURS: Final = {0: 1, 1: 1, 2: 3, 5: 4}

# what an extra channel is
PREMULTIPLIED, ALPHA = 1, 2

# what a file's description says of where its bytes are and how they are packed
KEPT: Final = frozenset({HEIGHT, COMPRESSION, 266, 273, 278, 279, TILE_HEIGHT, 324, 325})
# where its strips or tiles are, and how long: of one plane after the other, if it has several
PLACES: Final = frozenset({273, 279, 324, 325})
APART: Final = 2

SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4, 11: 4, 12: 8, 16: 8, 17: 8, 18: 8}
CODES: Final = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 16: "Q", 17: "q"}
MOST_VALUES: Final = 64


@dataclass(frozen=True, slots=True)
class Tag:
    """An entry of a directory: its position, and its first values."""

    place: int
    kind: int
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Directory:
    """The first directory of a file; `after` is the offset of the next one, 0 if there is none."""

    order: str
    big: bool
    tags: dict[int, Tag]
    after: int

    def number(self, tag: int, default: int) -> int:
        """The first value of a tag; the default where there is none, or it is not finite."""
        entry = self.tags.get(tag)
        value = entry.values[0] if entry is not None and entry.values else default
        return int(value) if math.isfinite(value) else default

    def numbers(self, tag: int) -> tuple[float, ...]:
        """All finite values of a tag, MOST_VALUES at most."""
        entry = self.tags.get(tag)
        return () if entry is None else tuple(filter(math.isfinite, entry.values))


def directory(data: bytes, start: int | None = None) -> Directory:
    """The directory at `start`, by default the first. Raises struct.error: it is cut short."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2 if order == "<" else 3] == 43
    word, entry, step = ("Q", "HHQ", 20) if big else ("I", "HHI", 12)
    if start is None:
        start = int(struct.unpack_from(order + word, data, 8 if big else 4)[0])
    count = struct.unpack_from(order + ("Q" if big else "H"), data, start)[0]
    first = start + (8 if big else 2)
    tags = {}
    for place in range(first, first + min(count, 1_000) * step, step):
        tag, kind, number = struct.unpack_from(order + entry, data, place)
        tags[tag] = Tag(place, kind, _values(data, order, big, place, kind, number))
    after = struct.unpack_from(order + word, data, first + count * step)[0]
    return Directory(order, big, tags, after)


def _values(
    data: bytes, order: str, big: bool, place: int, kind: int, number: int
) -> tuple[float, ...]:
    code, inline = CODES.get(kind), 8 if big else 4
    if code is None:
        return ()
    start = place + (12 if big else 8)
    if SIZES[kind] * number > inline:
        start = struct.unpack_from(order + ("Q" if big else "I"), data, start)[0]
    return struct.unpack_from(f"{order}{min(number, MOST_VALUES)}{code}", data, start)


def dtype_of(ifd: Directory) -> np.dtype[np.generic] | None:
    """The type of every channel's numbers if they have 8, 16, 32 or 64 bits, else None."""
    bits, formats = set(ifd.numbers(BITS)), set(ifd.numbers(FORMAT) or (1,))
    if len(bits) != 1 or len(formats) != 1:
        return None
    kind = {1: "u", 2: "i", 3: "f", 4: "u"}.get(int(formats.pop()))
    size = bits.pop() / 8
    if kind is None or size not in (1, 2, 4, 8) or (kind == "f" and size == 1):
        return None
    return np.dtype(f"{ifd.order}{kind}{int(size)}")


def is_read_here(ifd: Directory) -> bool:
    """Whether `read` reads it, and not Pillow alone."""
    dtype = dtype_of(ifd)
    colours = COLOURS.get(ifd.number(PHOTOMETRIC, -1))
    samples, tiled = ifd.number(SAMPLES, 1), TILE_WIDTH in ifd.tags
    predictor = ifd.number(PREDICTOR, 1)
    floats = dtype is not None and dtype.kind == "f"
    return (
        dtype is not None
        and not is_big_endian(ifd)
        and colours is not None
        and colours <= samples <= MOST_VALUES
        # of 8 bits, what Pillow may not know: grey or CMYK, and more
        and (dtype.itemsize > 1 or (dtype.kind == "u" and colours != 3 and samples > colours))
        and ifd.number(COMPRESSION, 1) in LOSSLESS
        and ifd.number(PLANAR, 1) in (1, APART)
        and (predictor == 1 or (predictor == 2 and not floats) or (predictor == 3 and floats))
        and not (tiled and predictor == 3)
    )


def is_big_endian(ifd: Directory) -> bool:
    """Whether it is a BigTIFF whose numbers begin with their upper byte: Pillow reads none."""
    return ifd.big and ifd.order == ">"


def bytes_of_a_pixel(ifd: Directory) -> int:
    """How many bytes its numbers take."""
    dtype = dtype_of(ifd)
    return ifd.number(SAMPLES, 1) * (1 if dtype is None else dtype.itemsize)


def why_not(ifd: Directory) -> str:
    """What the picture is, where no decoder reads it."""
    names = {1: "unsigned", 2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
    formats = {names.get(int(f), "unknown") for f in ifd.numbers(FORMAT) or (1,)}
    bits = "/".join(str(int(bits)) for bits in dict.fromkeys(ifd.numbers(BITS) or (1,)))
    samples, compression = ifd.number(SAMPLES, 1), ifd.number(COMPRESSION, 1)
    kind = "big-endian BigTIFF" if is_big_endian(ifd) else "TIFF"
    return (
        f"{kind} of {samples} {'channel' if samples == 1 else 'channels'} with {bits} bits "
        f"({', '.join(sorted(formats))}), compression {compression}, photometric "
        f"{ifd.number(PHOTOMETRIC, -1)}"
    )


def read(data: bytes, ifd: Directory, notes: Notes) -> Image.Image:
    """The picture with 8 bits a channel. Raises what Pillow raises."""
    photometric, samples = ifd.number(PHOTOMETRIC, 1), ifd.number(SAMPLES, 1)
    colours = COLOURS[photometric]
    planes = samples if ifd.number(PLANAR, 1) == APART else 1
    # of planes, those of the colours and of the transparency
    used = range(min(planes, colours + 1))
    parts = [_unpredicted(_unpacked(data, ifd, plane, planes), ifd) for plane in used]
    raw = np.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]
    extra = int((ifd.numbers(EXTRA) or (0,))[0])
    has_alpha = samples > colours and extra in (PREMULTIPLIED, ALPHA) and colours != 4
    notes.bands = samples > colours + has_alpha
    white = ifd.numbers(GREATEST) or ifd.numbers(MAX_VALUE)
    declared = max(white) if white and max(white) > 0 else None
    painted = raw[..., :colours]
    low, high = extent(painted)
    is_eight = raw.dtype.itemsize == 1
    black, top = (0.0, 255.0) if is_eight else span(raw.dtype, low, high, declared, notes)
    pixels = scaled(painted, black, top)
    if photometric == 0:
        pixels = 255 - pixels
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[colours]
    if has_alpha:
        own = raw[..., colours]
        most = extent(own)[1]
        usual = most if raw.dtype.kind == "f" else 2.0 ** (8 * raw.dtype.itemsize) - 1
        pixels = np.dstack([pixels, scaled(own, 0.0, top if most <= top else usual)])
        mode += "A" if extra == ALPHA else "a"
    size = (raw.shape[1], raw.shape[0])
    return Image.frombytes(mode, size, np.ascontiguousarray(pixels).tobytes())


class _Bytes(TiffImageFile):
    """A picture's bytes as grey ones: wider than Pillow permits, and bounded by who reads them."""

    def load_prepare(self) -> None:
        ImageFile.load_prepare(self)


def _unpacked(data: bytes, ifd: Directory, plane: int, planes: int) -> Numbers:
    """The numbers (height, width, channels) of a plane as they are stored: read as grey bytes."""
    dtype = dtype_of(ifd)
    if dtype is None:
        raise ValueError("a picture that Pillow reads is not left to it. This is a bug.")
    each = bytes_of_a_pixel(ifd) // planes
    image = _Bytes(io.BytesIO(_as_bytes(data, ifd, each, plane, planes)))
    image.load()
    width, height = ifd.number(WIDTH, 0), ifd.number(HEIGHT, 0)
    if image.mode != "L" or image.size != (width * each, height):
        raise ValueError("the numbers are not laid out as the file says")
    rows = np.asarray(image)
    return rows.view(dtype).reshape(height, width, each // dtype.itemsize)


def _as_bytes(data: bytes, ifd: Directory, each: int, plane: int, planes: int) -> bytes:
    """The file with a directory at its end that calls a plane grey, of 8 bits, and wider."""
    step, long, short = (20, "HHQI4x", "HHQH6x") if ifd.big else (12, "HHII", "HHIH2x")
    lines = {}
    for tag in KEPT & set(ifd.tags):
        place = ifd.tags[tag].place
        lines[tag] = data[place : place + step]
        if tag in PLACES:
            lines[tag] = _of_plane(data, ifd, lines[tag], plane, planes)
    for tag in {WIDTH, TILE_WIDTH} & set(ifd.tags):
        wider = ifd.number(tag, 0) * each
        lines[tag] = struct.pack(ifd.order + long, tag, 4, 1, wider)
    for tag, number in ((BITS, 8), (PHOTOMETRIC, 1), (SAMPLES, 1), (PREDICTOR, 1), (FORMAT, 1)):
        lines[tag] = struct.pack(ifd.order + short, tag, 3, 1, number)
    count, word = ("Q", "Q") if ifd.big else ("H", "I")
    body = b"".join(lines[tag] for tag in sorted(lines))
    head = struct.pack(ifd.order + count, len(lines))
    end = struct.pack(ifd.order + word, 0)
    changed = bytearray(data) + bytes(len(data) % 2)
    struct.pack_into(ifd.order + word, changed, 8 if ifd.big else 4, len(changed))
    return bytes(changed + head + body + end)


def _of_plane(data: bytes, ifd: Directory, line: bytes, plane: int, planes: int) -> bytes:
    """A line of the directory with the values of a plane alone."""
    word, inline = ("Q", 8) if ifd.big else ("I", 4)
    tag, kind, number = struct.unpack_from(ifd.order + "HH" + word, line)
    values, size = line[-inline:], SIZES[kind] * (number // planes)
    if SIZES[kind] * number <= inline:
        values = values[plane * size : (plane + 1) * size]
    else:
        (start,) = struct.unpack(ifd.order + word, values)
        start += plane * size
        fits = size <= inline
        values = data[start : start + size] if fits else struct.pack(ifd.order + word, start)
    head = struct.pack(ifd.order + "HH" + word, tag, kind, number // planes)
    return head + values.ljust(inline, b"\0")


def _unpredicted(raw: Numbers, ifd: Directory) -> Numbers:
    """Numbers that are stored as differences along their row (TIFF 6.0, section 14) put back."""
    predictor = ifd.number(PREDICTOR, 1)
    height, width, samples = raw.shape
    if predictor == 2:
        along = min(ifd.number(TILE_WIDTH, width), width) or width
        whole: Any = raw.astype(raw.dtype.newbyteorder("=")).view(f"u{raw.dtype.itemsize}")
        # each tile begins anew: what those to its left add up to is taken off its first number
        starts = np.arange(0, width, along)
        sums = np.add.reduceat(whole, starts, axis=1, dtype=whole.dtype)
        whole[:, starts[1:]] -= sums[:, :-1]
        np.cumsum(whole, axis=1, dtype=whole.dtype, out=whole)
        return np.asarray(whole.view(raw.dtype.newbyteorder("=")))
    if predictor == 3:  # Adobe Photoshop TIFF Technical Note 3
        size = raw.dtype.itemsize
        steps = np.ascontiguousarray(raw).view(np.uint8).reshape(height, width * size, samples)
        planes = np.cumsum(steps, axis=1, dtype=np.uint8).reshape(height, size, width * samples)
        numbers = np.ascontiguousarray(planes.transpose(0, 2, 1)).view(f">f{size}")
        return numbers.reshape(height, width, samples)
    return raw


def more_pages(data: bytes) -> bool:
    """Whether another page follows the first that is no smaller copy of it."""
    try:
        ifd = directory(data)
        for _ in range(MOST_VALUES):
            if not ifd.after:
                return False
            ifd = directory(data, ifd.after)
            if not ifd.number(SUBFILE, 0) & (REDUCED | MASK) and ifd.number(WIDTH, 0) * ifd.number(
                HEIGHT, 0
            ):
                return True
    except CUT_SHORT:
        pass
    return False


def is_preview(data: bytes) -> bool:
    """Whether the first page is a small copy of what a camera has laid below it (DNG, NEF, ARW)."""
    try:
        ifd = directory(data)
    except CUT_SHORT:
        return False
    return BELOW in ifd.tags and (DNG in ifd.tags or bool(ifd.number(SUBFILE, 0) & REDUCED))
