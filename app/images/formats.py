"""Which format a file is of, by its first bytes. Knows no decoder."""

import struct
from typing import Final

# brands of ISO base media files (ISO/IEC 23008-12) that are HEIF with HEVC inside
HEIC_BRANDS: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
AVIF_BRANDS: Final = (b"avif", b"avis")

# what reading the numbers of a damaged file raises
CUT_SHORT: Final = (struct.error, IndexError, OverflowError)

# sizes of a BMP's second header, and its least and most bits for each pixel
BMP_HEADERS: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})


def looks_like_image(data: bytes) -> bool:
    """Whether the first bytes are those of a format that `decode` accepts, or HEIC."""
    return (
        data[:3] in (b"\xff\xd8\xff", b"GIF")
        or data[:4] in (b"\x89PNG", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
        or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
        or _is_bmp(data)
        or (data[4:8] == b"ftyp" and data[8:12] in (*AVIF_BRANDS, *HEIC_BRANDS))
    )


def _is_bmp(data: bytes) -> bool:
    # the four bytes at 6 are reserved, and some cameras write their name there
    if data[:2] != b"BM" or len(data) < 26:
        return data[:2] == b"BM" and data[6:10] == b"\0\0\0\0"
    offset, header = struct.unpack_from("<II", data, 10)
    return header in BMP_HEADERS and 14 + header <= offset


def image_type(data: bytes) -> str:
    """The media type to send a picture with, by its first bytes."""
    if data[4:8] == b"ftyp":
        return "image/heic" if is_heic(data) else "image/avif"
    known = {b"\xff\xd8": "jpeg", b"\x89P": "png", b"GI": "gif", b"BM": "bmp", b"RI": "webp"}
    if data[:2] in (b"II", b"MM"):
        return "image/tiff"
    # a drawing can contain scripts: show it as text
    return f"image/{known[data[:2]]}" if data[:2] in known else "application/octet-stream"


def is_heic(data: bytes) -> bool:
    """Whether the file says that it is HEIF with HEVC inside (AVIF shares its container)."""
    return data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS and b"avif" not in data[:64]


def png_chunk(data: bytes, name: bytes) -> bytes | None:
    """The body of a PNG's chunk that stands before its pixels; None where there is none."""
    place = data.find(name, 0, max(0, data.find(b"IDAT")))
    if place < 0:
        return None
    size = int.from_bytes(data[place - 4 : place])
    return data[place + 4 : place + 4 + size]


# a JPEG's frames, and the markers before them that no length follows (ITU T.81, table B.1)
FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
BARE: Final = frozenset({0x01, *range(0xD0, 0xDA)})
SCAN: Final = 0xDA


def unusual_jpeg(data: bytes) -> str | None:
    """Why a JPEG is one that decoders do not read, None for an ordinary one."""
    place = 2
    while data[place : place + 1] == b"\xff" and place + 5 <= len(data):
        marker = data[place + 1]
        if marker in FRAMES:
            return _unusual_frame(marker, data[place + 4])
        if marker == SCAN:
            break
        if marker == 0xFF:  # may stand before any marker
            place += 1
        else:
            place += 2 if marker in BARE else 2 + int.from_bytes(data[place + 2 : place + 4])
    return None


def _unusual_frame(process: int, bits: int) -> str | None:
    if bits != 8:
        return f"with {bits} bits a channel"
    if process in (0xC3, 0xC7, 0xCB, 0xCF):
        return "without loss (process 14)"
    return "with hierarchical frames" if process in (0xC5, 0xC6, 0xCD, 0xCE) else None
