"""Which format a file is of, by its first bytes. Knows no decoder."""

from typing import Final

# brands of ISO base media files (ISO/IEC 23008-12) that are HEIF with HEVC inside
HEIC_BRANDS: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def looks_like_image(data: bytes) -> bool:
    """Whether the first bytes are those of a format that `decode` accepts, or HEIC."""
    return (
        data[:3] in (b"\xff\xd8\xff", b"GIF")
        or data[:4] in (b"\x89PNG", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
        or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
        or (data[:2] == b"BM" and data[6:10] == b"\0\0\0\0")
        or (data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis", *HEIC_BRANDS))
    )


def image_type(data: bytes) -> str:
    """The media type of a format that `decode` accepts, by its first bytes."""
    if data[4:8] == b"ftyp":
        return "image/heic" if is_heic(data) else "image/avif"
    known = {b"\xff\xd8": "jpeg", b"\x89P": "png", b"GI": "gif", b"BM": "bmp", b"RI": "webp"}
    return f"image/{known.get(data[:2], 'tiff')}"


def is_heic(data: bytes) -> bool:
    """Whether the file says that it is HEIF with HEVC inside (AVIF shares its container)."""
    return data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS and b"avif" not in data[:64]
