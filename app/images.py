"""From the bytes of an image file to the pixels a model expects. Knows neither torch nor HTTP."""

import asyncio
import contextlib
import hashlib
import io
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from app.errors import DamagedImage, Invalid, TooLarge, UnsupportedImage
from models import ImageSpec

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
HEIC: Final = "HEIF"
FORMAT_NAMES: Final = "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"
WHITE: Final = (255, 255, 255)

# brands of ISO base media files (ISO/IEC 23008-12) that are HEIF with HEVC inside
HEIC_BRANDS: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

# a picture this many times longer than the model's edge is cut to its middle before it is scaled
EXTREME_RATIO: Final = 32

_RESAMPLING: Final = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The largest file in bytes and the largest picture in pixels (width x height)."""

    bytes: int = 20_000_000
    pixels: int = 50_000_000


@dataclass(frozen=True, slots=True)
class Decoded:
    """`pixels` (3, H, W) uint8 for the encoder; width and height as a viewer shows the picture."""

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int
    sha256: str


class Decoder:
    """Decodes in threads, so that neither the event loop nor the encoder waits for it."""

    def __init__(
        self, spec: ImageSpec, limits: ImageLimits, threads: int, heic: bool = False
    ) -> None:
        # our own limit is checked from the header, before Pillow's would matter
        Image.MAX_IMAGE_PIXELS = None
        # Pillow warns of odd metadata in files from strangers; nobody here can act on it
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        self._formats = (*FORMATS, HEIC) if heic else FORMATS
        if heic:
            _enable_heic()
        self._spec = spec
        self.limits = limits
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    async def decode(self, data: bytes) -> Decoded:
        """`decode` in one of the threads; raises what it raises."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, decode, data, self._spec, self.limits, self._formats
        )

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def decode(
    data: bytes, spec: ImageSpec, limits: ImageLimits, formats: tuple[str, ...] = FORMATS
) -> Decoded:
    """Decode one image file of these formats (Pillow's names) to what `spec` asks for.

    The first frame counts; EXIF orientation is applied; transparency is laid on white; colour
    profiles are not (nor does the reference). What follows equals open_clip's own transform to
    the bit.

    Raises:
        Invalid, UnsupportedImage, TooLarge, DamagedImage: with field "image".
    """
    if not data:
        raise Invalid("the image is empty", field="image", limit=1, value=0)
    if len(data) > limits.bytes:
        detail = f"the image has {len(data)} bytes, the limit is {limits.bytes}"
        raise TooLarge(detail, field="image", limit=limits.bytes, value=len(data))
    with _opened(data, formats) as image:
        _check_size(image, limits)
        try:
            upright = to_rgb(_upright(image))
        except (Image.DecompressionBombError, MemoryError) as error:
            raise TooLarge(
                f"the image cannot be held in memory ({type(error).__name__})", field="image"
            ) from error
        except Exception as error:
            # decoders raise whatever a damaged file leads them to; the file is at fault
            raise DamagedImage(
                f"the {image.format} file cannot be decoded", field="image"
            ) from error
    return Decoded(
        fit(upright, spec), upright.width, upright.height, hashlib.sha256(data).hexdigest()
    )


def looks_like_image(data: bytes) -> bool:
    """Whether the first bytes are those of a file that `decode` might accept, or tell apart."""
    return data[:3] in (b"\xff\xd8\xff", b"GIF") or data[:2] == b"BM" or data[:4] in (
        b"\x89PNG", b"RIFF", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"
    ) or data[4:8] == b"ftyp"  # fmt: skip


def is_heic(data: bytes) -> bool:
    """Whether the file says that it is HEIF with HEVC inside (AVIF shares its container)."""
    return data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS and b"avif" not in data[:64]


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB: alpha on white, 16 and 32 bits a channel scaled to 8."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = _deep_grey(image)
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        return converted or image
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (*WHITE, 255))
        return Image.alpha_composite(ground, layer).convert("RGB")
    return image.convert("RGB")


def fit(image: Image.Image, spec: ImageSpec) -> npt.NDArray[np.uint8]:
    """Scale and crop an RGB picture as open_clip's transform does -> (3, H, W) uint8."""
    resample = _RESAMPLING[spec.interpolation]
    target = (spec.width, spec.height)
    if spec.resize_mode == "squash":
        fitted = image.resize(target, resample)
    elif spec.resize_mode == "longest":
        ratio = max(image.height / spec.height, image.width / spec.width)
        # a thread-thin picture would round to no pixels at all
        size = (max(1, round(image.width / ratio)), max(1, round(image.height / ratio)))
        scaled = image.resize(size, resample)
        fitted = Image.new("RGB", target, (spec.fill_color,) * 3)
        fitted.paste(scaled, ((spec.width - size[0]) // 2, (spec.height - size[1]) // 2))
    else:
        fitted = _shortest(_middle(image), spec, resample)
    return np.ascontiguousarray(np.asarray(fitted).transpose(2, 0, 1))


def _shortest(image: Image.Image, spec: ImageSpec, resample: Image.Resampling) -> Image.Image:
    if spec.width == spec.height:
        # torchvision's Resize: the longer edge is cut down to whole pixels
        edge, short = spec.width, min(image.size)
        size = (int(edge * image.width / short), int(edge * image.height / short))
    else:
        ratio = min(image.height / spec.height, image.width / spec.width)
        size = (round(image.width / ratio), round(image.height / ratio))
        resample = Image.Resampling.BICUBIC  # the reference knows no other here
    scaled = image.resize(size, resample)
    left = round((size[0] - spec.width) / 2.0)
    top = round((size[1] - spec.height) / 2.0)
    return scaled.crop((left, top, left + spec.width, top + spec.height))


def _middle(image: Image.Image) -> Image.Image:
    """Cut away what the centre crop throws away, where scaling it would cost gigabytes."""
    short, long = min(image.size), max(image.size)
    if long <= EXTREME_RATIO * short:
        return image
    keep = EXTREME_RATIO * short
    # an even cut on both sides leaves the centre where it is
    cut = (long - keep) // 2
    if image.width > image.height:
        return image.crop((cut, 0, image.width - cut, image.height))
    return image.crop((0, cut, image.width, image.height - cut))


def _enable_heic() -> None:
    from pi_heif import register_heif_opener

    register_heif_opener()


def _check_size(image: Image.Image, limits: ImageLimits) -> None:
    pixels = image.width * image.height
    if pixels > limits.pixels:
        size = f"{image.width} x {image.height} = {pixels} pixels"
        detail = f"the image has {size}, the limit is {limits.pixels}"
        raise TooLarge(detail, field="image", limit=limits.pixels, value=pixels)


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    with contextlib.suppress(Exception):  # garbage in EXIF is no reason to refuse good pixels
        return ImageOps.exif_transpose(image)
    return image


def _deep_grey(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if image.mode == "F":
        # floating-point pictures come in two habits: 0..1 and 0..255
        scaled = values * 255 if values.max(initial=0) <= 1 else values
    else:
        scaled = values / 257 if values.max(initial=0) <= 65_535 else values / (2**31 - 1) * 255
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8), "L")


@contextlib.contextmanager
def _opened(data: bytes, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    if is_heic(data) and HEIC not in formats:
        detail = (
            "HEIC is not enabled here: convert the image to JPEG, or have the operator install "
            "openvocab[heic] and set OPENVOCAB_HEIC=true"
        )
        raise UnsupportedImage(detail, field="image", limit=FORMAT_NAMES, value="HEIC")
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
    except Exception as error:
        if isinstance(error, UnidentifiedImageError) and not looks_like_image(data):
            detail = f"the first bytes are not those of {FORMAT_NAMES}"
            raise UnsupportedImage(detail, field="image", limit=FORMAT_NAMES) from None
        raise DamagedImage("the image's header cannot be read", field="image") from error
    with image:
        yield image
