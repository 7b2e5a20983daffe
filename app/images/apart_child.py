"""The process that draws and decodes what `app.images.apart` sends it; started as a script.

Imports nothing of ours. Once its decoders are loaded it can open no file and no connection, and its
memory and its time are bounded: whatever a file makes of a decoder, it happens here.
"""

import contextlib
import io
import re
import struct
import sys
from functools import partial
from typing import IO, Any, Final, NoReturn
from xml.parsers import expat

from PIL import Image, ImageOps

try:
    import resource
except ImportError:  # Windows
    BOUNDS = False
else:
    BOUNDS = True

# request: kind, pixels of the largest picture, edge of a drawing, bytes that follow
REQUEST: Final = struct.Struct("<BIIQ")
# answer: how it ended, width and height of the picture and of the pixels, channels, whether parts
# are not drawn, bytes of the colour profile and of the pixels, which follow
ANSWER: Final = struct.Struct("<BIIIIB?QQ")

SVG, JPEG_2000, JPEG_XL = 1, 2, 3
DONE, DAMAGED, TOO_LARGE, EMPTY = 0, 1, 2, 3
# the rest of an answer without pixels
NOTHING: Final = (0, 0, 0, False, 0, 0)

MEMORY: Final = 1_500_000_000

# more pixels are reduced before they are handed over
MOST: Final = 16_000_000

# seconds of computing for one picture
SECONDS: Final = 3

# what a drawing has that is not drawn: letters, and what lies outside of the file
LETTERS: Final = re.compile(r"<(?:[\w.-]+:)?(?:text|foreignObject)\b", re.IGNORECASE)
OUTSIDE: Final = re.compile(
    r"<(?:[\w.-]+:)?(?:image|use|feimage)\b[^<>]*?href\s*+=\s*+[\"']\s*+(?!#|data:)", re.IGNORECASE
)
# of how many bytes a profile may be
PROFILE: Final = 1_000_000

NUMBER: Final = re.compile(r"-?\d*\.?\d+(?:e[+-]?\d+)?", re.IGNORECASE)
LENGTH: Final = re.compile(r"\s*(\d*\.?\d+(?:e[+-]?\d+)?)\s*(px|pt|pc|mm|cm|in|em|ex)?\s*$", re.I)
UNITS: Final = {"pt": 4 / 3, "pc": 16.0, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96.0,
                "em": 16.0, "ex": 8.0}  # fmt: skip
# what physical units are drawn at (CSS Values 4, section 6.2)
DPI: Final = 96.0

CODING: Final = re.compile(rb"^\s*<\?xml[^>]*?encoding\s*=\s*[\"']([\w.-]+)[\"']")
CODINGS: Final = frozenset({"utf-8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "windows-1252"})

# a drawing that says no size (CSS 2.1, section 10.3.2, halved as browsers draw icons)
USUAL: Final = 100.0


class TooLarge(Exception):
    """Over the limit of pixels: width and height."""


class Empty(Exception):
    """A drawing that draws nothing."""


def main() -> None:
    """Answer requests until the other side closes."""
    source, out = sys.stdin.buffer, sys.stdout.buffer
    Image.MAX_IMAGE_PIXELS = None
    Image.init()
    decoders: dict[int, Any] = {SVG: None, JPEG_2000: partial(_opened, "JPEG2000"), JPEG_XL: None}
    try:
        import resvg_py

        decoders[SVG] = resvg_py.svg_to_bytes
        # what is only loaded with the first drawing is loaded now
        resvg_py.svg_to_bytes(svg_string="<svg xmlns='http://www.w3.org/2000/svg'/>")
    except (ImportError, ValueError):
        pass
    try:
        import pillow_jxl  # noqa: F401

        decoders[JPEG_XL] = partial(_opened, "JXL")
    except ImportError:
        pass
    Image.new("RGB", (1, 1)).save(io.BytesIO(), "PNG")
    _confine()
    while len(head := source.read(REQUEST.size)) == REQUEST.size:
        kind, pixels, edge, size = REQUEST.unpack(head)
        _give_time()
        _answer(out, decoders[kind], kind, source.read(size), pixels, edge)


def _confine() -> None:
    for coding in (*CODINGS, "utf-16-le", "utf-16-be"):
        "".encode(coding)  # a codec is loaded from a file
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # no file, socket or pipe beside the three that are open
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))


def _give_time() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    until = int(used.ru_utime + used.ru_stime) + SECONDS + 1
    resource.setrlimit(resource.RLIMIT_CPU, (until, most))


def _answer(out: IO[bytes], decoder: Any, kind: int, data: bytes, pixels: int, edge: int) -> None:
    incomplete, profile = False, b""
    try:
        if kind == SVG:
            text = _text(data)
            (width, height), image = _render(decoder, text, edge)
            incomplete = bool(LETTERS.search(text) or OUTSIDE.search(text))
        else:
            image = decoder(data, pixels)
            width, height = image.size
            profile = image.info.get("icc_profile") or b""
            image = _handy(image)
    except TooLarge as error:
        width, height = error.args
        out.write(ANSWER.pack(TOO_LARGE, width, height, *NOTHING))
    except Empty:
        out.write(ANSWER.pack(EMPTY, 0, 0, *NOTHING))
    except MemoryError:
        out.write(ANSWER.pack(TOO_LARGE, 0, 0, *NOTHING))
    except Exception:
        out.write(ANSWER.pack(DAMAGED, 0, 0, *NOTHING))
    else:
        channels, raw = len(image.getbands()), image.tobytes()
        profile = profile if len(profile) <= PROFILE else b""
        sizes = len(profile), len(raw)
        out.write(ANSWER.pack(DONE, width, height, *image.size, channels, incomplete, *sizes))
        out.write(profile + raw)
    out.flush()


def _render(draw: Any, text: str, edge: int) -> tuple[tuple[int, int], Image.Image]:
    """The size that a drawing says, and its pixels: the longer edge has `edge` of them."""
    width, height = _size(text)
    side = {"width": edge} if width >= height else {"height": edge}
    png = draw(svg_string=text, skip_system_fonts=True, dpi=DPI, **side)
    image = Image.open(io.BytesIO(bytes(png)))
    if image.width * image.height > MOST:
        raise TooLarge(image.width, image.height)
    layer = image.convert("RGBA")
    if not layer.getchannel("A").getbbox():
        raise Empty
    longer = max(width, height)
    shape = (max(1, round(edge * length / longer)) for length in (width, height))
    if any(abs(a - b) > 1 for a, b in zip(shape, image.size, strict=True)):
        # it was laid out in another shape than it says, as where one edge is a percentage
        width, height = (longer * length / max(image.size) for length in image.size)
    return (max(1, round(width)), max(1, round(height))), layer


def _text(data: bytes) -> str:
    for mark, coding in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"),
                         (b"\xfe\xff", "utf-16-be")):  # fmt: skip
        if data.startswith(mark):
            return data[len(mark) :].decode(coding)
    declared = CODING.match(data)
    coding = declared[1].decode().lower() if declared else "utf-8"
    return data.decode(coding if coding in CODINGS else "utf-8")


def _size(text: str) -> tuple[float, float]:
    """Width and height as the drawing says them, else those of its view."""
    attributes = _root(text)
    box = [float(number) for number in NUMBER.findall(attributes.get("viewBox", ""))][2:4]
    width, height = (_length(attributes.get(name, "")) for name in ("width", "height"))
    if len(box) == 2 and min(box) > 0:
        ratio = box[0] / box[1]
        if width is None and height is None:
            width, height = box
        width = width if width is not None else (height or 0) * ratio
        height = height if height is not None else width / ratio
    return _bounded(width or USUAL), _bounded(height or USUAL)


class _Root(Exception):
    """The attributes of the first element."""


def _root(text: str) -> dict[str, str]:
    """The attributes of the first element; none where there is no such."""

    def start(_name: str, attributes: dict[str, str]) -> NoReturn:
        raise _Root(attributes)

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    try:
        parser.Parse(text.lstrip())  # the one who draws it takes space before the declaration, too
    except _Root as root:
        return dict(root.args[0])
    except expat.ExpatError:
        pass  # the one who draws it will say so
    return {}


def _length(text: str) -> float | None:
    match = LENGTH.match(text)
    return float(match[1]) * UNITS.get((match[2] or "").lower(), 1.0) if match else None


def _bounded(edge: float) -> float:
    return min(max(edge, 1.0), 1_000_000.0)


def _opened(name: str, data: bytes, pixels: int) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=(name,))
    if image.width * image.height > pixels:
        raise TooLarge(*image.size)
    image.load()
    if getattr(image, "jpeg", False):  # in JPEG XL, and is given as it lies; all else comes upright
        with contextlib.suppress(Exception):  # garbage in EXIF is no reason to refuse good pixels
            return ImageOps.exif_transpose(image)
    return image


def _handy(image: Image.Image) -> Image.Image:
    """8 bits a channel, no more than MOST pixels."""
    if image.mode.startswith("I"):
        image = image.point(lambda value: value / 256).convert("L")
    elif image.mode == "F":  # of 0 to 1
        image = image.point(lambda value: value * 255 + 0.5).convert("L")
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    factor = 1
    while image.width * image.height > MOST * factor * factor:
        factor += 1
    return image.reduce(factor) if factor > 1 else image


if __name__ == "__main__":
    main()
