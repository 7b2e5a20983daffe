"""The parts that image files are put together from. Knows no attack."""

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from PIL import Image

Tag = tuple[int, int, int, bytes | int]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as a file of Pillow's."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*arguments) for arguments in chunks)


def chunk(name: bytes, body: bytes) -> bytes:
    """A PNG's chunk with its length and its checksum."""
    check = zlib.crc32(body, zlib.crc32(name))
    return struct.pack(">I4s", len(body), name) + body + struct.pack(">I", check)


def header(width: int, height: int, depth: int = 8, colours: int = 2, laced: int = 0) -> bytes:
    """The body of IHDR."""
    return struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, laced)


def black(width: int, height: int, channels: int = 3) -> bytes:
    """The body of an IDAT for a black picture; a row takes few bytes."""
    size = height * (1 + width * channels)
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    # what follows a full flush refers to nothing before it, so a piece can be repeated
    piece = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    end = packer.compress(bytes(size % 1_000_000)) + packer.flush()
    adler = struct.pack(">I", size % 65_521 << 16 | 1)  # RFC 1950, section 9: of zeros
    return b"\x78\xda" + piece * (size // 1_000_000) + end + adler


def segment(marker: int, body: bytes = b"") -> bytes:
    """A JPEG's segment with its length."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def frame(marker: int, width: int, height: int, channels: int = 1) -> bytes:
    """A JPEG's frame header, without subsampling."""
    parts = b"".join(bytes([n + 1, 0x11, 0]) for n in range(channels))
    return segment(marker, struct.pack(">BHHB", 8, height, width, channels) + parts)


def tables(codes: bytes) -> bytes:
    """A quantization table, and for DC and AC one Huffman table of these codes, 8 bits each."""
    counts = bytes([0] * 7 + [len(codes)] + [0] * 8)
    quantization = segment(0xDB, b"\0" + b"\1" * 64)
    return quantization + b"".join(
        segment(0xC4, bytes([place]) + counts + codes) for place in (0x00, 0x10)
    )


def scan(components: bytes = b"\1", first: int = 0, last: int = 63) -> bytes:
    """The header of a JPEG's scan."""
    chosen = b"".join(bytes([component, 0]) for component in components)
    return segment(0xDA, bytes([len(components)]) + chosen + bytes([first, last, 0]))


def tiff(tags: Sequence[Tag], data: bytes = b"", big: bool = False, after: int = 0) -> bytes:
    """A little-endian TIFF: header, `data` from byte 16 on, then one directory.

    A tag is its number, type, count, and its value or, where bytes, what is put there as it is.
    """
    start = 16 + len(data)
    wide = "<Q" if big else "<I"
    head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, start) if big else b""
    head = head or struct.pack("<2sHI", b"II", 42, start).ljust(16, b"\0")
    body = bytearray(struct.pack("<Q" if big else "<H", len(tags)))
    for tag, kind, count, value in tags:
        payload = value if isinstance(value, bytes) else struct.pack(wide, value)
        body += struct.pack("<HH", tag, kind) + struct.pack(wide, count)
        body += payload.ljust(8 if big else 4, b"\0")
    return head + data + body + struct.pack(wide, after)


def box(name: bytes, body: bytes) -> bytes:
    """A box of an ISO base media file."""
    return struct.pack(">I4s", 8 + len(body), name) + body


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP of these chunks."""
    body = b"".join(
        name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) & 1)
        for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def gif(width: int, height: int, *blocks: bytes) -> bytes:
    """A GIF with a palette of two colours."""
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, 0x80, 0, 0)
        + b"\0\0\0\xff\0\0"
        + (b"".join(blocks))
    )


def gif_picture(width: int, height: int) -> bytes:
    """A picture of a GIF; the data are those of two pixels."""
    return b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\0"


def bmp(width: int, height: int, compression: int, data: bytes, bits: int = 8) -> bytes:
    """A BMP with an empty palette of 256 colours."""
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 256, 0)
    palette = bytes(range(256)) * 4
    start = 14 + len(head) + len(palette)
    return struct.pack("<2sIHHI", b"BM", start + len(data), 0, 0, start) + head + palette + data


def exif_block(orientation: int) -> bytes:
    """An EXIF block that says how the picture is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "none"
    return exif.tobytes()
