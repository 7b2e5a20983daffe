"""Images that are made to take time or memory, by name. Knows nothing of who decodes them."""

import struct
import zlib
from collections.abc import Callable
from functools import reduce
from typing import Final

from benchmarks.reliability.hostile.makers import (
    animation,
    avif_grid,
    avif_lies,
    exif,
    filled,
    gif_blocks,
    gif_dispose,
    jpeg_bare_scans,
    jpeg_flood,
    jpeg_scans,
    pages,
    png_flood,
    png_of,
    red,
    tiff_exif,
    tiff_of,
    tiff_tile,
    webp_canvas,
)
from benchmarks.reliability.hostile.parts import (
    black,
    bmp,
    box,
    encoded,
    frame,
    gif,
    gif_picture,
    header,
    png,
    scan,
    segment,
    tables,
    tiff,
)

Maker = Callable[[], bytes]

# those that take no time to make
QUICK: Final = frozenset(
    {
        "png: a header of 10 gigapixels",
        "jpeg: a header of 4 gigapixels",
        "gif: a picture of 4 gigapixels that is wiped out",
        "gif: the same behind an empty block",
        "webp: a canvas of 268 megapixels",
        "webp: a canvas of 4 gigapixels",
        "tiff: a tile's size in a type of its own",
        "tiff: a directory that follows itself",
        "bmp: a pixel a row in run lengths",
        "bmp: a size of 2**62",
        "bmp: a height of -1",
        "bmp: the least height",
    }
)


def bombs() -> dict[str, Maker]:
    """The attacks by name; each is made when it is called."""
    deflated = zlib.compress(b"\0" * 1_000_000, 9)
    return {
        "png: a header of 10 gigapixels": lambda: png(
            (b"IHDR", header(100_000, 100_000)), (b"IDAT", black(10, 10)), (b"IEND", b"")
        ),
        "png: 3.6 gigapixels that are there": lambda: png(
            (b"IHDR", header(60_000, 60_000, 1, 0)),
            (b"IDAT", black(7_500, 60_000, 1)),
            (b"IEND", b""),
        ),
        "png: colour profiles that inflate": lambda: png_flood(b"iCCP", b"x\0\0" + deflated),
        "png: texts that inflate": lambda: png_flood(b"zTXt", b"x\0\0" + deflated),
        "png: texts that are no UTF-8": lambda: png_flood(
            b"iTXt", b"x\0\1\0\0\0" + zlib.compress(b"\xff" * 1_000_000, 9)
        ),
        "png: empty pixels": lambda: png_flood(b"IDAT", b""),
        "png: private chunks": lambda: png_flood(b"prVt", b""),
        "png: EXIF": lambda: png_of((b"eXIf", exif(5, 2_400_000))),
        "jpeg: EXIF in crumbs": lambda: jpeg_flood(segment(0xE1, b"Exif\0\0" + b"y" * 10)),
        "jpeg: EXIF in large parts": lambda: jpeg_flood(segment(0xE1, b"Exif\0\0" + b"y" * 60_000)),
        "jpeg: comments": lambda: jpeg_flood(segment(0xFE)),
        "jpeg: junk": lambda: jpeg_flood(b"\0"),
        "jpeg: fill bytes": lambda: jpeg_flood(b"\xff"),
        "jpeg: stuffed zeros": lambda: jpeg_flood(b"\xff\0"),
        "jpeg: quantization tables": lambda: jpeg_flood(
            segment(0xDB, (b"\0" + b"\1" * 64) * 1_000)
        ),
        "jpeg: Photoshop's resources": lambda: jpeg_flood(
            segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 5_000)
        ),
        "jpeg: comments in what has no length": lambda: jpeg_flood(
            segment(0xF0, segment(0xFE) * 16_000)
        ),
        "jpeg: a header of 4 gigapixels": lambda: (
            b"\xff\xd8" + tables(b"\0") + frame(0xC0, 65_500, 65_500) + scan() + b"\xff\xd9"
        ),
        "jpeg: scans of 49 megapixels": lambda: jpeg_scans(7_000, 7_000, 20_000),
        "jpeg: scans of 1 megapixel": lambda: jpeg_scans(1_000, 1_000, 100_000),
        "jpeg: empty scans of 49 megapixels": lambda: jpeg_bare_scans(7_000, 7_000, 100_000),
        "gif: a picture of 4 gigapixels that is wiped out": lambda: gif_dispose(65_535, 65_535),
        "gif: the same behind an empty block": lambda: gif_dispose(
            65_535, 65_535, b"!\xf9\0" + bytes([len(gif_picture(1, 1))]) + gif_picture(1, 1) + b"\0"
        ),
        "gif: comments": lambda: gif_blocks(b"!\xfe\0"),
        "gif: blocks of a byte": lambda: filled(
            gif(40, 30, b"!\xff"), b"\1x", b"\0" + gif_picture(2, 1) + b";"
        ),
        "gif: 5,000 frames": lambda: animation("GIF", 5_000),
        "webp: a canvas of 268 megapixels": lambda: webp_canvas(16_384, 16_384),
        "webp: a canvas of 4 gigapixels": lambda: webp_canvas(65_000, 65_000),
        "webp: 2,000 frames": lambda: animation("WEBP", 2_000),
        "tiff: 9 million strips": lambda: tiff_of(
            1, 2, 1, (273, 3, 9_000_000, 16), (278, 4, 1, 1), data=b"\1\0" * 9_000_000, layout=False
        ),
        "tiff: 18 million strips in bytes": lambda: tiff_of(
            1, 2, 1, (273, 1, 18_000_000, 16), (278, 4, 1, 1), data=b"\1" * 18_000_000, layout=False
        ),
        "tiff: a tile of 529 megapixels": lambda: tiff_tile(23_000),
        "tiff: a tile's size in a type of its own": lambda: tiff_of(
            16,
            16,
            8,
            (322, 9, 1, 46_000),
            (323, 9, 1, 46_000),
            (324, 4, 1, 16),
            (325, 4, 1, 9),
            data=zlib.compress(b""),
            layout=False,
        ),
        "tiff: bits for 9 million samples": lambda: tiff_of(
            16, 16, 1, (339, 3, 9_000_000, 16), data=b"\1\0" * 9_000_000
        ),
        "tiff: 2 million rationals of resolution": lambda: tiff_of(
            16, 16, 1, (282, 5, 2_400_000, 16), data=b"\1\0\0\0" * 4_800_000
        ),
        "tiff: 2 million rationals of EXIF": tiff_exif,
        "tiff: a palette of 18 million": lambda: tiff_of(
            16, 16, 1, (320, 1, 18_000_000, 16), data=b"\1" * 18_000_000
        ).replace(struct.pack("<HHII", 262, 3, 1, 1), struct.pack("<HHII", 262, 3, 1, 3)),
        "tiff: 900,000 tags": lambda: tiff(
            [(1_000 + n % 60_000, 3, 1, 1) for n in range(900_000)], big=True
        ),
        "tiff: a directory that follows itself": lambda: tiff(
            [(256, 4, 1, 16), (257, 4, 1, 16), (273, 4, 1, 16)], b"\0" * 256, after=272
        ),
        "tiff: a directory that ends too soon": lambda: tiff_of(
            1, 2, 1, (273, 3, 9_000_000, 16), (278, 4, 1, 1), data=b"\1\0" * 9_000_000, layout=False
        )[:-4],
        "tiff: a strip that inflates": lambda: tiff_of(16, 16, 8, data=black(16, 2_000_000, 1)),
        "tiff: 500 pages": lambda: pages(500),
        "tiff: differences within a tile of one pixel": lambda: tiff_of(
            5_000_000, 1, 1, (258, 3, 1, 16), (317, 3, 1, 2), (322, 4, 1, 1), data=bytes(10_000_000)
        ),
        "tiff: 16 bits in rows of a megapixel": lambda: tiff_of(
            1_000_000, 16, 8, (258, 3, 1, 16), data=zlib.compress(bytes(range(256)) * 125_000)
        ),
        "bmp: a pixel a row in run lengths": lambda: bmp(
            50_000, 1_000, 1, b"\1\1\0\0" * 1_000 + b"\0\1"
        ),
        "bmp: runs that overflow their row": lambda: bmp(1_000, 1_000, 1, b"\xff\1" * 9_900_000),
        "bmp: a size of 2**62": lambda: bmp(2**31 - 1, 2**31 - 1, 0, b"", 24),
        "bmp: a height of -1": lambda: bmp(40, -1, 1, b"\1\1"),
        "bmp: the least height": lambda: bmp(40, -(2**31), 1, b"\1\1"),
        "avif: 2 million rationals of EXIF": lambda: encoded(
            red(), "AVIF", exif=b"Exif\0\0" + exif(5, 2_400_000, 275)
        ).replace(struct.pack("<HHI", 275, 5, 2_400_000), struct.pack("<HHI", 274, 5, 2_400_000)),
        "avif: boxes within boxes": lambda: (
            box(b"ftyp", b"avif\0\0\0\0avifmif1")
            + box(b"meta", bytes(4) + reduce(lambda i, _: box(b"iprp", i), range(3_000), b""))
        ),
        "avif: a grid of cells larger than they say": lambda: avif_grid(512, 13, 13, 8_000),
        "avif: a picture larger than it says": lambda: avif_lies(8_000, 8_000),
        "avif: a grid of 65,025 cells": lambda: avif_grid(64, 255, 255),
        "avif: a grid of 49 megapixels": lambda: avif_grid(512, 13, 13),
    }
