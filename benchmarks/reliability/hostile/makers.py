"""How images are made that take time or memory. Knows nothing of who decodes them."""

import io
import struct
from functools import cache
from typing import Final

import numpy as np
from PIL import Image

from benchmarks.reliability.hostile.parts import (
    black,
    box,
    chunk,
    encoded,
    frame,
    gif,
    gif_picture,
    header,
    png,
    riff,
    scan,
    segment,
    tables,
    tiff,
)

# as large as the service takes by default
MOST: Final = 19_900_000

RED: Final = (200, 30, 30)


def red(size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A plain picture."""
    return Image.new("RGB", size, RED)


def filled(start: bytes, part: bytes, end: bytes) -> bytes:
    """As many of a part between start and end as a file may have."""
    return start + part * ((MOST - len(start) - len(end)) // len(part)) + end


def png_of(*before: tuple[bytes, bytes], after: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """A small PNG with more chunks before and after its pixels."""
    pixels = (b"IDAT", black(40, 30))
    return png((b"IHDR", header(40, 30)), *before, pixels, *after, (b"IEND", b""))


def png_flood(name: bytes, body: bytes) -> bytes:
    """A small PNG with as many of one chunk as fit."""
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header(40, 30))
    end = chunk(b"IDAT", black(40, 30)) + chunk(b"IEND", b"")
    return filled(start, chunk(name, body), end)


def jpeg_flood(part: bytes) -> bytes:
    """A small JPEG with as many of one part in its header as fit."""
    whole = encoded(red(), "JPEG")
    return filled(whole[:2], part, whole[2:])


def jpeg_scans(width: int, height: int, scans: int) -> bytes:
    """A progressive JPEG whose scans say nothing, each for every pixel.

    The first brings all that is needed; each of the others refines what is there already.
    """
    # symbols: a DC difference of 0; 0x00 ends a block, 0xe0 and its 14 bits end 32,767 blocks
    dc = scan(b"\1\2\3", 0, 0)
    ac = segment(0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\xe0")
    blocks = ((width + 7) // 8) * ((height + 7) // 8)
    runs = -(-blocks // 32_767)
    bits = ("0" + "1" * 14) * runs
    packed = int(bits.ljust(-(-len(bits) // 8) * 8, "1"), 2).to_bytes(-(-len(bits) // 8), "big")
    ac_scan = scan(b"\1", 1, 63) + packed.replace(b"\xff", b"\xff\0")
    start = b"\xff\xd8" + tables(b"\0") + frame(0xC2, width, height, 3) + dc
    return start + ac + ac_scan * scans + b"\xff\xd9"


def jpeg_bare_scans(width: int, height: int, scans: int) -> bytes:
    """A plain JPEG of one component at a time, and scans without any data."""
    start = b"\xff\xd8" + tables(b"\0") + frame(0xC0, width, height, 3)
    return start + scan(b"\1") * scans + scan(b"\2") + scan(b"\3") + b"\xff\xd9"


def gif_blocks(kind: bytes) -> bytes:
    """A GIF with as many blocks in front of its picture as fit."""
    return filled(gif(40, 30), kind, gif_picture(2, 1) + b";")


def gif_dispose(width: int, height: int, before: bytes = b"") -> bytes:
    """A GIF whose first picture is to be wiped out: Pillow makes room for that as it opens it."""
    control = b"!\xf9\x04" + bytes([2 << 2, 0, 0, 0]) + b"\0"
    return gif(width, height, before, control, gif_picture(width, height), b";")


def webp_canvas(width: int, height: int) -> bytes:
    """A WebP of one small frame on a large canvas."""
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    still = encoded(red((8, 8)), "WEBP", lossless=True)
    frame_at = b"\0" * 6 + struct.pack("<I", 7)[:3] * 2 + b"\x64\0\0\0" + still[12:]
    return riff((b"VP8X", bytes([2, 0, 0, 0]) + size), (b"ANIM", b"\0" * 6), (b"ANMF", frame_at))


def tiff_of(width: int, height: int, compression: int, *more: tuple[int, int, int, int | bytes],
            data: bytes = b"", layout: bool = True) -> bytes:  # fmt: skip
    """A grey TIFF of one strip that is `data`."""
    strip = [(273, 4, 1, 16), (278, 4, 1, height), (279, 4, 1, len(data))] if layout else []
    tags: list[tuple[int, int, int, int | bytes]] = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression),
        (262, 3, 1, 1), (277, 3, 1, 1), *strip, *more,
    ]  # fmt: skip
    return tiff(sorted(tags, key=lambda tag: tag[0]), data)


def tiff_tile(edge: int) -> bytes:
    """A TIFF of 16 x 16 pixels in one tile of many more."""
    packed = black(edge - 1, edge, 1)
    tags = [(322, 4, 1, edge), (323, 4, 1, edge), (324, 4, 1, 16), (325, 4, 1, len(packed))]
    return tiff_of(16, 16, 8, *tags, data=packed, layout=False)


def exif(kind: int, count: int, tag: int = 274) -> bytes:
    """An EXIF block with one tag of masses of numbers of 8 bytes."""
    return tiff([(tag, kind, count, 16)], b"\1\0\0\0\1\0\0\0" * count)


@cache
def avif_of_one_colour(width: int, height: int) -> bytes:
    """An AVIF that is small whatever its size."""
    return encoded(Image.new("L", (width, height)), "AVIF", quality=1, speed=10)


def avif_lies(width: int, height: int) -> bytes:
    """An AVIF whose picture is larger than the file's own account of it."""
    whole = avif_of_one_colour(width, height)
    place = whole.index(b"ispe") + 8
    return whole[:place] + struct.pack(">II", 64, 64) + whole[place + 8 :]


def avif_grid(cell: int, rows: int, columns: int, real: int = 0) -> bytes:
    """An AVIF whose picture is put together from one cell again and again.

    The cell is `real` pixels long, whatever the file says.
    """
    data = avif_of_one_colour(real or cell, real or cell)
    start = data.index(b"mdat") + 4
    av1 = data[start:]
    count = rows * columns
    plan = struct.pack(">BBBBII", 0, 1, rows - 1, columns - 1, cell * columns, cell * rows)
    items = [(1, b"grid"), *((n + 2, b"av01") for n in range(count))]
    infos = b"".join(
        box(b"infe", b"\2\0\0\0" + struct.pack(">HH", n, 0) + kind + b"\0") for n, kind in items
    )
    config = data[data.index(b"av1C") - 4 :][: len(box(b"av1C", b"\0" * 4))]
    pixi = box(b"pixi", b"\0\0\0\0\1\x08")
    spans = box(b"ispe", b"\0" * 4 + struct.pack(">II", cell * columns, cell * rows))
    spans += box(b"ispe", b"\0" * 4 + struct.pack(">II", cell, cell))
    links = struct.pack(">HBBB", 1, 2, 1, 3)
    links += b"".join(struct.pack(">HBBBB", n + 2, 3, 2, 3, 0x84) for n in range(count))
    properties = box(b"ipco", spans + pixi + config)
    properties += box(b"ipma", b"\0" * 4 + struct.pack(">I", count + 1) + links)
    refs = box(b"dimg", struct.pack(">HH", 1, count) + b"".join(
        struct.pack(">H", n + 2) for n in range(count)
    ))  # fmt: skip

    def meta(offset: int) -> bytes:
        where = struct.pack(">HHHII", 1, 0, 1, offset, len(plan))
        where += b"".join(
            struct.pack(">HHHII", n + 2, 0, 1, offset + len(plan), len(av1)) for n in range(count)
        )
        return box(b"meta", b"\0" * 4
            + box(b"hdlr", b"\0" * 8 + b"pict" + b"\0" * 13)
            + box(b"pitm", b"\0" * 4 + struct.pack(">H", 1))
            + box(b"iinf", b"\0" * 4 + struct.pack(">H", len(items)) + infos)
            + box(b"iloc", b"\0" * 4 + b"\x44\0" + struct.pack(">H", len(items)) + where)
            + box(b"iref", b"\0" * 4 + refs)
            + box(b"iprp", properties))  # fmt: skip

    start_box = box(b"ftyp", b"avif\0\0\0\0avifmif1miaf")
    offset = len(start_box) + len(meta(0)) + 8
    return start_box + meta(offset) + box(b"mdat", plan + av1)


def animation(kind: str, frames: int) -> bytes:
    """A moving picture."""
    grey = [Image.new("L", (16, 16), n % 256) for n in range(frames)]
    return encoded(grey[0], kind, save_all=True, append_images=grey[1:])


def pages(count: int) -> bytes:
    """A TIFF of many pages, each 16 x 16."""
    out = io.BytesIO()
    red((16, 16)).save(out, "TIFF", save_all=True, append_images=[red((16, 16))] * (count - 1))
    return out.getvalue()


def noise(seed: int, size: int) -> bytes:
    """Bytes without meaning."""
    return np.random.default_rng(seed).bytes(size)


def tiff_exif() -> bytes:
    """A TIFF with masses of numbers in its EXIF."""
    numbers = b"\1\0\0\0" * 4_800_000
    inner = struct.pack("<HHHIII", 1, 33_434, 5, 2_400_000, 16, 0)
    place = 16 + len(numbers)
    return tiff_of(16, 16, 1, (34_665, 4, 1, place), data=numbers + inner)
