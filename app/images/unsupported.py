"""Names files of formats that are not read, by their first bytes, so that a refusal helps."""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from app.images.formats import AVIF_BRANDS, HEIC_BRANDS, looks_like_image

_RASTER: Final = "convert it to PNG or JPEG"
_RAW: Final = "develop it to JPEG"
_VIDEO: Final = "send a frame of it as PNG or JPEG"
_NO_PICTURE: Final = "send the picture itself"
_PAGE: Final = "its URL leads to a page, not to the picture"
_UNPACK: Final = "unpack it, or send many pictures to POST /classify/batch"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file is, as a sentence names it, and what its sender can do."""

    name: str
    advice: str = _RASTER


SVG: Final = Kind("an SVG drawing")
JPEG_XL: Final = Kind("a JPEG XL picture")
JPEG_2000: Final = Kind("a JPEG 2000 picture")
_CAMERA: Final = Kind("a camera's raw file", _RAW)
_HTML: Final = Kind("an HTML page", _PAGE)

_MAGIC: Final[tuple[tuple[bytes, Kind], ...]] = (
    (b"\0\0\0\x0cJXL ", JPEG_XL),
    (b"\xff\x0a", JPEG_XL),
    (b"\0\0\0\x0cjP  ", JPEG_2000),
    (b"\xff\x4f\xff\x51", JPEG_2000),
    (b"II\xbc", Kind("a JPEG XR picture")),
    (b"8BPS", Kind("a Photoshop (PSD) file")),
    (b"gimp xcf", Kind("a GIMP (XCF) file")),
    (b"\x76\x2f\x31\x01", Kind("an OpenEXR picture")),
    (b"#?RADIANCE", Kind("a Radiance (HDR) picture")),
    (b"#?RGBE", Kind("a Radiance (HDR) picture")),
    (b"DDS ", Kind("a DirectDraw (DDS) picture")),
    (b"qoif", Kind("a QOI picture")),
    (b"farbfeld", Kind("a farbfeld picture")),
    (b"SIMPLE  =", Kind("a FITS picture")),
    (b"BPG\xfb", Kind("a BPG picture")),
    (b"FLIF", Kind("a FLIF picture")),
    (b"\xd7\xcd\xc6\x9a", Kind("a Windows metafile (WMF)")),
    (b"icns", Kind("an Apple icon (ICNS)")),
    (b"FUJIFILMCCD-RAW", _CAMERA),
    (b"IIU\0", _CAMERA),
    (b"IIRO", _CAMERA),
    (b"IIRS", _CAMERA),
    (b"%PDF", Kind("a PDF document", "send a page of it as PNG or JPEG")),
    (b"%!PS", Kind("a PostScript document")),
    (b"\xc5\xd0\xd3\xc6", Kind("an EPS document")),
    (b"{\\rtf", Kind("an RTF document", _NO_PICTURE)),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Kind("an Office document", _NO_PICTURE)),
    (b"\x1aE\xdf\xa3", Kind("a WebM or Matroska video", _VIDEO)),
    (b"FLV\x01", Kind("a Flash video", _VIDEO)),
    (b"\0\0\x01\xba", Kind("an MPEG video", _VIDEO)),
    (b"\0\0\x01\xb3", Kind("an MPEG video", _VIDEO)),
    (b"0&\xb2u\x8ef\xcf\x11", Kind("a Windows Media file", _VIDEO)),
    (b"OggS", Kind("an Ogg audio or video file", _NO_PICTURE)),
    (b"ID3", Kind("an MP3 audio file", _NO_PICTURE)),
    (b"fLaC", Kind("a FLAC audio file", _NO_PICTURE)),
    (b"PK\x03\x04", Kind("a ZIP archive or an Office document", _UNPACK)),
    (b"Rar!\x1a\x07", Kind("a RAR archive", _UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive", _UNPACK)),
    (b"\x1f\x8b", Kind("a gzip file", "unpack it")),
    (b"BZh", Kind("a bzip2 file", "unpack it")),
    (b"\xfd7zXZ\0", Kind("an xz file", "unpack it")),
    (b"\x28\xb5\x2f\xfd", Kind("a Zstandard file", "unpack it")),
    (b"\x93NUMPY", Kind("a NumPy array", "save its pixels as PNG")),
    (b"\x89HDF", Kind("an HDF5 file", _NO_PICTURE)),
    (b"SQLite format 3", Kind("an SQLite database", _NO_PICTURE)),
    (b"\x7fELF", Kind("a program", _NO_PICTURE)),
    (b"version https://git-lfs", Kind("a Git LFS pointer", "fetch the file with `git lfs pull`")),
)

# brands of ISO base media files that are no MP4 video
_BRANDS: Final = {
    b"crx ": _CAMERA,
    b"qt  ": Kind("a QuickTime video", _VIDEO),
    b"M4A ": Kind("an audio file", _NO_PICTURE),
    b"M4B ": Kind("an audio file", _NO_PICTURE),
    b"jxl ": JPEG_XL,
    b"jp2 ": JPEG_2000,
}

_CHUNKS: Final = {
    b"AVI ": Kind("an AVI video", _VIDEO),
    b"WAVE": Kind("a WAV audio file", _NO_PICTURE),
    b"ILBM": Kind("an Amiga (IFF) picture"),
}

_NETPBM: Final = re.compile(rb"P([1-7Ff])\s")
_NETPBM_NAMES: Final = {
    **dict.fromkeys((b"1", b"4"), "PBM"),
    **dict.fromkeys((b"2", b"5"), "PGM"),
    **dict.fromkeys((b"3", b"6"), "PPM"),
    b"7": "PAM",
}

# bytes of a text that are looked at: drawing programs write long comments
_SEARCHED: Final = 65_536

# declarations and comments, then the name of the first element; possessive, since a comment that
# could also end at a later --> makes for as many ways to read a file as there are sets of comments
_XML: Final = re.compile(
    rb"\s*+(?:(?:<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^>\[]*+(?:\[.*?\]\s*+)?>)\s*+)*+<([a-z][\w:.-]*)",
    re.DOTALL | re.IGNORECASE,
)
_TAGS: Final = {
    b"svg": SVG,
    **dict.fromkeys(
        (b"html", b"head", b"body", b"title", b"meta", b"script", b"div", b"p", b"h1", b"center"),
        _HTML,
    ),
}
_TEXTS: Final = (
    (re.compile(rb"\s*<!doctype\s+html", re.IGNORECASE), _HTML),
    (
        re.compile(rb"\s*(?:data:|iVBORw0KGgo|/9j/|UklGR|R0lGOD)"),
        Kind(
            "a picture in base64",
            "decode it, or send it encoded once, as 'image' in a JSON body or a form's text field",
        ),
    ),
    (
        re.compile(rb"\s*https?://", re.IGNORECASE),
        Kind("a URL", "send it as image_url, where the operator allows that"),
    ),
    (
        re.compile(rb'\s*(?:\{\s*(?:"|\})|\[\s*["\[{\d])'),
        Kind("JSON", "send it with Content-Type: application/json"),
    ),
    (
        re.compile(rb"\[object \w{1,40}\]"),
        Kind("what JavaScript calls an object", "send its bytes, or a FormData that fetch knows"),
    ),
)
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0e-\x1a]")
_FORM: Final = re.compile(rb"[\w%.+*~\[\]-]{1,80}=")


def kind_of(data: bytes) -> Kind | None:
    """What a file is that is of none of the accepted formats; None: its bytes do not tell."""
    for start, kind in _MAGIC:
        if data.startswith(start):
            return kind
    for check in _CHECKS:
        checked = check(data)
        if checked is not None:
            return checked
    return None


def is_form(data: bytes) -> bool:
    """Whether a body that says so may be an urlencoded form, and is no file."""
    if looks_like_image(data):
        return False
    kind = kind_of(data)
    return kind is None or kind.name == "text" or _FORM.match(data) is not None


def _icon(data: bytes) -> Kind | None:
    if data[:2] != b"\0\0" or len(data) < 22 or data[3:4] != b"\0" or data[4:6] == b"\0\0":
        return None
    names = {1: "a Windows icon (ICO)", 2: "a Windows cursor (CUR)"}
    return Kind(names[data[2]]) if data[2] in names else None


def _riff(data: bytes) -> Kind | None:
    return _CHUNKS.get(data[8:12]) if data[:4] in (b"RIFF", b"FORM") else None


def _media(data: bytes) -> Kind | None:
    if data[4:8] in (b"moov", b"mdat", b"wide") and data[:1] == b"\0":
        return _BRANDS[b"qt  "]
    if data[4:8] != b"ftyp" or data[8:12] in (*AVIF_BRANDS, *HEIC_BRANDS):
        return None
    return _BRANDS.get(data[8:12], Kind("an MP4 video", _VIDEO))


def _netpbm(data: bytes) -> Kind | None:
    match = _NETPBM.match(data)
    return Kind(f"a {_NETPBM_NAMES.get(match[1], 'PFM')} picture") if match else None


def _dicom(data: bytes) -> Kind | None:
    return Kind("a DICOM picture", "export it as PNG") if data[128:132] == b"DICM" else None


def _transport_stream(data: bytes) -> Kind | None:
    if data[:1] == data[188:189] == data[376:377] == b"G":
        return Kind("an MPEG video", _VIDEO)
    return None


def _sound(data: bytes) -> Kind | None:
    is_mp3 = data[:1] == b"\xff" and data[1:2] in (b"\xfb", b"\xf3", b"\xf2", b"\xfa")
    return Kind("an MP3 audio file", _NO_PICTURE) if is_mp3 else None


def _metafile(data: bytes) -> Kind | None:
    return Kind("a Windows metafile (EMF)") if data[40:44] == b" EMF" else None


def _pcx(data: bytes) -> Kind | None:
    is_pcx = data[:1] == b"\x0a" and data[1:2] in b"\0\2\3\4\5" and data[2:3] == b"\x01"
    return Kind("a PCX picture") if is_pcx and len(data) >= 128 else None


def _targa(data: bytes) -> Kind | None:
    """TGA has no mark at its beginning: a footer, or a header that makes sense."""
    if data[-18:-2] == b"TRUEVISION-XFILE":
        return Kind("a TGA picture")
    if len(data) < 18:
        return None
    has_map, kind, width, height = data[1], data[2], *struct.unpack_from("<HH", data, 12)
    plausible = (
        has_map in (0, 1)
        and kind in (1, 2, 3, 9, 10, 11)
        and (has_map == 1) == (kind in (1, 9))
        and data[16] in (8, 15, 16, 24, 32)
        and not data[17] & 0xC0
        and 0 < width <= 16_384
        and 0 < height <= 16_384
    )
    return Kind("a TGA picture") if plausible else None


def _text(data: bytes) -> Kind | None:
    start = data[:_SEARCHED].removeprefix(b"\xef\xbb\xbf")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        start = start[2:].replace(b"\0", b"")
    match = _XML.match(start)
    if match is not None:
        tag = match[1].rpartition(b":")[2].lower()
        return _TAGS.get(tag, Kind("an XML document", _NO_PICTURE))
    for pattern, kind in _TEXTS:
        if pattern.match(start):
            return kind
    return Kind("text", _NO_PICTURE) if start and _is_text(start) else None


def _is_text(start: bytes) -> bool:
    if _CONTROL.search(start):
        return False
    try:
        start.decode()
    except UnicodeDecodeError as error:
        return error.start > 0 and error.start >= len(start) - 3  # a character may be cut in two
    return True


_CHECKS: Final[tuple[Callable[[bytes], Kind | None], ...]] = (
    _icon, _riff, _media, _netpbm, _dicom, _transport_stream, _sound, _metafile, _pcx, _targa,
    _text,
)  # fmt: skip
