"""From the bytes of an image file to the pixels a model expects. Knows neither torch nor HTTP."""

import asyncio
import contextlib
import ctypes
import io
import logging
import math
import os
import re
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import jpeg_factory

from app.errors import DamagedImage, Invalid, Overloaded, TooLarge, UnsupportedImage
from app.images import png, profiles, tiff
from app.images.apart import Apart, Kind, kind_apart, unavailable
from app.images.formats import CUT_SHORT, is_heic, looks_like_image, unusual_jpeg
from app.images.frames import has_more
from app.images.limits import ImageLimits, Room, check, check_size, pixels_at_once
from app.images.notes import Notes
from app.images.pixels import Picture, fit, reduction, to_rgb
from app.images.screening import held_beside, screen
from app.images.tiff import Directory, directory, is_read_here
from app.images.unsupported import kind_of
from app.images.views import WHOLE, Cut, Look, Region
from models import ImageSpec
from models.info import Pixels

# proc(5): a path at a line's end, whose folders may have spaces, and bytes that are no text
LIBTIFF: Final = re.compile(rb"/.*/libtiff[^/\n]*$", re.MULTILINE)


def quieten() -> None:
    """Silence decoders' remarks on odd files, which nobody here can act on."""
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    # libtiff writes to the standard error by itself, a line for each row that is damaged
    with contextlib.suppress(OSError, AttributeError):
        if match := LIBTIFF.search(Path("/proc/self/maps").read_bytes()):
            libtiff = ctypes.CDLL(os.fsdecode(match[0]))
            libtiff.TIFFSetErrorHandler(None)
            libtiff.TIFFSetWarningHandler(None)


def enable_heic() -> None:
    """Have Pillow read HEIC, too; needs pi-heif."""
    from pi_heif import register_heif_opener

    register_heif_opener()


FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
HEIC: Final = "HEIF"
FORMAT_NAMES: Final = "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"

# what Pillow's complaint of a large picture holds
PIXELS: Final = re.compile(r"(\d+) pixels")

# a JPEG that is decoded at a part of its size may have so many times the pixels: each is still read
MOST_REDUCED: Final = 4

# bytes of a pixel's numbers, if there are as many pixels as there may be
DEEP: Final = 16

# pixels that a picture from another process takes here, mostly
PIXELS_APART: Final = 4_000_000

# modes whose numbers a profile of RGB is about
COLOURS: Final = ("RGB", "RGBA", "RGBX", "P", "PA")

# levels by which pixels of one colour may differ once they were resampled
ROUNDING: Final = 1

# the TIFF tag
ORIENTATION: Final = 274

# more is not searched for an orientation
EXIF_BYTES: Final = 262_144

# EXIF orientation (CIPA DC-008, 4.6.4) -> what brings the picture upright; 1 is upright
UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """`pixels` (3, H, W) uint8 for the encoder; width and height as a viewer shows the picture.

    `format` is Pillow's name of what the file is. `views` are the pixels of each cut of each of
    `regions`; `pixels` is the first. `notes` are what had to be guessed.
    """

    views: tuple[tuple[Pixels, ...], ...]
    width: int
    height: int
    format: str
    regions: tuple[Region, ...]
    notes: Notes

    @property
    def pixels(self) -> Pixels:
        """Those of a picture with a single view."""
        return self.views[0][0]


# holds room for so many pixels, and frees it
Taken = Callable[[int], contextlib.AbstractContextManager[Any]]


class Decoder:
    """Decodes in threads, so that neither the event loop nor the encoder waits for it."""

    def __init__(
        self,
        spec: ImageSpec,
        limits: ImageLimits,
        threads: int,
        max_waiting: int = 512,
        heic: bool = False,
        exact: bool = False,
        apart: frozenset[Kind] = frozenset(),
        room: Room | None = None,
    ) -> None:
        """`room` is for what is decoded at once, here and by others that share it."""
        quieten()
        if heic:
            enable_heic()
        self._apart = Apart(apart) if apart else None
        self.limits = limits
        self.room = room or Room(pixels_at_once(limits.pixels, threads))
        self._file_decoded = partial(
            decode,
            spec=spec,
            limits=limits,
            formats=(*FORMATS, HEIC) if heic else FORMATS,
            exact=exact,
            taken=self._taken,
            apart=self._apart,
        )
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._max_waiting = max_waiting
        self.waiting = 0
        self.decoded: Counter[str] = Counter()  # pictures, by their format
        self._begun: dict[int, float] = {}  # of each thread that is decoding

    @property
    def busy_since(self) -> float | None:
        """The `time.monotonic()` at which the oldest decoding under way began, None without any."""
        return min(list(self._begun.values()), default=None)

    async def decode(self, data: bytes, look: Look = WHOLE) -> Decoded:
        """`decode` in one of the threads; raises what it raises, and Overloaded."""
        if self.waiting >= self._max_waiting:
            detail = (
                f"{self.waiting} images are already waiting to be decoded (the limit, "
                "max_queue); try again later"
            )
            raise Overloaded(detail, limit=self._max_waiting, value=self.waiting, retry_after=1)
        loop = asyncio.get_running_loop()
        self.waiting += 1
        try:
            decoded = await loop.run_in_executor(self._threads, self._decode, data, look)
        finally:
            self.waiting -= 1
        self.decoded[decoded.format] += 1
        return decoded

    def _decode(self, data: bytes, look: Look) -> Decoded:
        thread = threading.get_ident()
        self._begun[thread] = time.monotonic()
        try:
            return self._file_decoded(data, look=look)
        finally:
            self._begun.pop(thread, None)

    @contextlib.contextmanager
    def _taken(self, pixels: int) -> Iterator[None]:
        """Room for so many pixels; a thread that waits for it does not hang itself."""
        thread = threading.get_ident()
        decodes = self._begun.pop(thread, None) is not None
        with self.room.taken(pixels):
            if decodes:
                self._begun[thread] = time.monotonic()
            yield

    def close(self) -> None:
        """Let the threads end, and processes that decode for them."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._apart is not None:
            self._apart.close()


def decode(
    data: bytes,
    spec: ImageSpec,
    limits: ImageLimits,
    formats: tuple[str, ...] = FORMATS,
    exact: bool = False,
    taken: Taken = contextlib.nullcontext,
    look: Look = WHOLE,
    apart: Apart | None = None,
) -> Decoded:
    """Decode one image file of these formats (Pillow's names) to what `spec` asks for.

    The first frame counts; EXIF orientation is applied; transparency is laid on white, or on black
    if it would not show there; a colour profile is applied where it changes much. What
    follows equals open_clip's own transform to the bit, except that a JPEG of four times the
    model's size or more is decoded at a half, a quarter or an eighth of its own; `exact` decodes
    that in full too, and so do parts of a picture. It waits until as many pixels as it holds are
    `taken`. `apart` decodes what is not let into this process.

    Raises:
        Invalid: with field "boxes" for a part that lies outside.
        Invalid, UnsupportedImage, TooLarge, DamagedImage: with field "image".
    """
    if not data:
        raise Invalid("the image is empty", field="image", limit=1, value=0)
    if len(data) > limits.bytes:
        detail = f"the image has {len(data)} bytes, the limit is {limits.bytes}"
        raise TooLarge(detail, field="image", limit=limits.bytes, value=len(data))
    file = _File(data, look.spec(spec), limits, look, taken)
    if not looks_like_image(data):
        if (kind := kind_apart(data)) is not None:
            if apart is None or kind not in apart.kinds:
                raise unavailable(kind, FORMAT_NAMES)
            return file.decoded_apart(kind, apart)
        if kind_of(data) is not None:
            raise _unsupported(data)
    file.notes.more = has_more(data)
    file.notes.preview = data[:2] in (b"II", b"MM") and tiff.is_preview(data)
    screened = screen(data, limits.pixels)
    deep = _deep_tiff(screened)
    return file.decoded_deep(screened, deep) if deep else file.decoded(screened, formats, exact)


@dataclass(frozen=True, slots=True)
class _File:
    """One image file, what is wanted of it, and what had to be guessed so far."""

    data: bytes
    spec: ImageSpec
    limits: ImageLimits
    look: Look
    taken: Taken
    notes: Notes = field(default_factory=Notes)

    def decoded(self, screened: bytes, formats: tuple[str, ...], exact: bool) -> Decoded:
        """By Pillow, in this process."""
        limit = self.limits.pixels
        with _opened(screened, formats, self.limits) as image:
            width, height = image.size
            scale = 1 if exact or self.look.cuts else _reduce(image, self.spec)
            whole = scale == 1 or "progressive" in image.info  # its coefficients are held in full
            held = width * height if whole else image.width * image.height
            check_size(width, height, limit if whole else MOST_REDUCED * limit)
            if held > limit:
                check_size(width, height, limit)
            with contextlib.suppress(*CUT_SHORT):
                held += held_beside(screened, held)
            with self.taken(held):
                upright = self._loaded(image, screened, width, height, scale)
                return self._viewed(upright, image.format or "")

    def decoded_apart(self, kind: Kind, apart: Apart) -> Decoded:
        """The same for a format whose decoder runs in a process of its own."""
        with self.taken(PIXELS_APART):
            drawn = apart.decode(kind, self.data, self.limits)
            self.notes.incomplete = drawn.incomplete
            rgb = to_rgb(drawn.image, self.look.background, self.notes)
            rgb = profiles.applied(rgb, drawn.profile)
            return self._viewed(Picture.all_of(rgb, drawn.width, drawn.height), kind.upper())

    def decoded_deep(self, screened: bytes, ifd: Directory) -> Decoded:
        """The same for a TIFF that Pillow does not read, or not as it is meant."""
        width, height = ifd.number(tiff.WIDTH, 0), ifd.number(tiff.HEIGHT, 0)
        check_size(width, height, self.limits.pixels)
        each = tiff.bytes_of_a_pixel(ifd)
        tile = ifd.number(tiff.TILE_WIDTH, 1) * ifd.number(tiff.TILE_HEIGHT, 1)
        most = max(width * height, tile)
        check(most * each, DEEP * self.limits.pixels, "bytes of numbers")
        with self.taken(most * max(1, each // 4)):
            try:
                image = tiff.read(screened, ifd, self.notes)
                turned = ifd.number(ORIENTATION, 1)
                if turned in UPRIGHT:
                    image = image.transpose(UPRIGHT[turned])
                rgb = to_rgb(image, self.look.background, self.notes)
                rgb = profiles.applied(rgb, profiles.of_tiff(screened, ifd))
            except MemoryError as error:
                raise TooLarge("the image cannot be held in memory", field="image") from error
            except Exception as error:
                detail = "the TIFF file cannot be decoded"
                raise DamagedImage(detail, field="image") from error
            return self._viewed(Picture.all_of(rgb, *rgb.size), "TIFF")

    def _loaded(
        self, image: Image.Image, screened: bytes, width: int, height: int, scale: int
    ) -> Picture:
        """`_upright`, with whatever may go wrong as a problem."""
        try:
            frame = _frame(image)
            image.load()
            if frame is not None:
                image = _alone(image, frame)
            declared, profile = None, image.info.get("icc_profile")
            if image.format == "PNG":
                declared, profile = png.declared_white(self.data), profiles.of_png(self.data)
                image = png.completed(image, screened, declared, self.notes)
            if image.mode not in COLOURS:
                profile = None
            picture = self._upright(image, width, height, scale, declared)
            return replace(picture, image=profiles.applied(picture.image, profile))
        except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
            detail = f"the image cannot be held in memory ({type(error).__name__})"
            raise TooLarge(detail, field="image") from error
        except Exception as error:
            _check_kind(self.data, error)
            _check_tiff(self.data, error, tiff.RARE)
            # decoders raise whatever a damaged file leads them to; the file is at fault
            detail = f"the {image.format} file cannot be decoded"
            raise DamagedImage(detail, field="image") from error

    def _upright(
        self, image: Image.Image, width: int, height: int, scale: int, declared: float | None
    ) -> Picture:
        """The first frame, upright, in RGB, of a file of this size that is reduced by `scale`."""
        if scale == 1:
            width, height = image.size  # some formats know their size for certain only now
        # what of the last pixels lies outside the picture
        slack = image.width - width / scale, image.height - height / scale
        orientation = _orientation(image)
        if orientation in UPRIGHT:
            image = image.transpose(UPRIGHT[orientation])
        if orientation >= 5:  # lies on its side
            width, height, slack = height, width, slack[::-1]
        left = slack[0] if orientation in (2, 3, 6, 7) else 0
        top = slack[1] if orientation in (3, 4, 7, 8) else 0
        right, bottom = left + image.width - slack[0], top + image.height - slack[1]
        rgb = to_rgb(image, self.look.background, self.notes, declared)
        return Picture(rgb, width, height, (left, top, right, bottom))

    def _viewed(self, picture: Picture, kind: str) -> Decoded:
        """What is looked at of a picture, at the model's size."""
        width, height, notes, spec = picture.width, picture.height, self.notes, self.spec
        regions = self.look.regions(width, height)
        views = tuple(
            tuple(fit(picture.part(c) if self.look.cuts else picture, spec) for c in region.cuts)
            for region in regions
        )
        if all(
            _is_uniform(_inside(pixels, cut, spec))
            for cuts, region in zip(views, regions, strict=True)
            for pixels, cut in zip(cuts, region.cuts, strict=True)
        ):
            colours = np.array(picture.image.getextrema())
            notes.uniform = bool((colours[:, 0] == colours[:, 1]).all()) and not notes.dark
            notes.became_uniform = not notes.uniform
        return Decoded(views, width, height, kind, regions, notes)


def _inside(pixels: Pixels, cut: Cut, spec: ImageSpec) -> Pixels:
    """The pixels (3, H, W) without the border that fills them up, and without its blurred edge."""
    if spec.resize_mode != "longest":
        return pixels
    ratio = max(cut.height / spec.height, cut.width / spec.width)
    x, y = ((edge - size / ratio) / 2 for edge, size in ((spec.width, cut.width),
                                                          (spec.height, cut.height)))  # fmt: skip
    left, top = (math.ceil(start) + 1 if start >= 1 else 0 for start in (x, y))
    inner = pixels[:, top : spec.height - top, left : spec.width - left]
    return inner if inner.size else pixels


def _is_uniform(pixels: Pixels) -> bool:
    """Whether every pixel has one colour, but for rounding."""
    flat = pixels.reshape(3, -1)
    return bool((flat.max(axis=1) - flat.min(axis=1) <= ROUNDING).all())


def _deep_tiff(data: bytes) -> Directory | None:
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None
    try:
        ifd = directory(data)
        return ifd if is_read_here(ifd) else None
    except CUT_SHORT:
        return None


def _reduce(image: Image.Image, spec: ImageSpec) -> int:
    """Have no more of a JPEG decoded than is needed; by how much it is reduced."""
    # a phone's JPEG with a depth map or a video's frame behind it is called MPO
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return 1
    scale = reduction(image.width, image.height, spec)
    image.draft(image.mode, (image.width // scale, image.height // scale))
    return scale


def _frame(image: Image.Image) -> tuple[int, int, int, int] | None:
    """Where the first frame of a GIF lies, if it does not fill the whole."""
    if not isinstance(image, GifImageFile):
        return None
    box = image.tile[0][1]
    return None if box == (0, 0, *image.size) else box


def _alone(image: Image.Image, frame: tuple[int, int, int, int]) -> Image.Image:
    """A picture with nothing around a frame; Pillow fills that with a colour."""
    canvas = image.convert("RGBA")
    (width, height), (left, top, right, bottom) = image.size, frame
    above, below = (0, 0, width, top), (0, bottom, width, height)
    for side in (above, below, (0, top, left, bottom), (right, top, width, bottom)):
        canvas.paste((0, 0, 0, 0), side)
    return canvas


def _orientation(image: Image.Image) -> int:
    if len(image.info.get("exif") or b"") > EXIF_BYTES:
        return 1
    with contextlib.suppress(Exception):  # garbage in EXIF is no reason to refuse good pixels
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        if isinstance(orientation, int) and orientation in UPRIGHT:
            return orientation
    return 1


def _check_kind(data: bytes, error: Exception) -> None:
    """Raises UnsupportedImage for a sound file of a kind that no decoder reads."""
    kind = None
    if data[:3] == b"\xff\xd8\xff":
        process = unusual_jpeg(data)
        kind = process and f"a JPEG {process}"
    elif data[12:16] == b"CgBI":
        kind = "a PNG as Xcode packs it into apps (CgBI)"
    elif data[:2] == b"BM" and str(error).startswith("Unsupported BMP"):
        kind = "a BMP whose bits are laid out unusually"
    elif data[4:8] == b"ftyp" and b"mvhd" in data and b"pitm" not in data:
        kind = "a sequence of pictures (AVIF or HEIC) without a still one"
    if kind:
        detail = f"this is {kind}, which is not read; convert it to an ordinary one"
        raise UnsupportedImage(detail, field="image", limit=FORMAT_NAMES, value=kind) from error


def _check_tiff(data: bytes, error: Exception, of: frozenset[int] | None = None) -> None:
    """Raises UnsupportedImage for a TIFF, or only for one of some kinds of compression."""
    if data[:2] not in (b"II", b"MM"):
        return
    with contextlib.suppress(*CUT_SHORT):
        ifd = directory(data)
        if of is None or ifd.number(tiff.COMPRESSION, 1) in of:
            detail = f"this is a {tiff.why_not(ifd)}, which is not read; convert it to PNG or JPEG"
            raise UnsupportedImage(detail, field="image", limit=FORMAT_NAMES) from error


def _unsupported(data: bytes) -> UnsupportedImage:
    """The problem of a file of another format, by its name where the first bytes tell it."""
    kind = kind_of(data)
    if kind is None:
        detail = f"the first bytes are not those of {FORMAT_NAMES}"
        return UnsupportedImage(detail, field="image", limit=FORMAT_NAMES)
    detail = f"this is {kind.name}, not {FORMAT_NAMES}; {kind.advice}"
    return UnsupportedImage(detail, field="image", limit=FORMAT_NAMES, value=kind.name)


@contextlib.contextmanager
def _opened(data: bytes, formats: tuple[str, ...], limits: ImageLimits) -> Iterator[Image.Image]:
    if is_heic(data) and HEIC not in formats:
        detail = (
            "HEIC is not enabled here: convert the image to JPEG, or have the operator install "
            "openvocab[heic] and set OPENVOCAB_HEIC=true"
        )
        raise UnsupportedImage(detail, field="image", limit=FORMAT_NAMES, value="HEIC")
    # some plugins make room for the pixels while they open a file; Pillow errs at twice this limit
    Image.MAX_IMAGE_PIXELS = limits.pixels
    try:
        if data[:3] == b"\xff\xd8\xff":
            # a large one may be decoded at a part of its size; Image.open would refuse it
            image: Image.Image = jpeg_factory(io.BytesIO(data))
        else:
            image = Image.open(io.BytesIO(data), formats=formats)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        match = PIXELS.search(str(error))
        value = int(match[1]) if match else None
        detail = f"the image has {value or 'too many'} pixels, the limit is {limits.pixels}"
        raise TooLarge(detail, field="image", limit=limits.pixels, value=value) from None
    except Exception as error:
        if not looks_like_image(data):
            raise _unsupported(data) from None
        if isinstance(error, UnidentifiedImageError):
            _check_tiff(data, error)
        _check_kind(data, error)
        raise DamagedImage("the image header cannot be read", field="image") from error
    with image:
        yield image
