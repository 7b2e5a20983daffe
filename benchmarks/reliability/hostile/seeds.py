"""Small good files of every format, and small bad ones, for a fuzzer to begin with."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from benchmarks.reliability.hostile import bombs, makers
from benchmarks.reliability.hostile.parts import black, bmp, encoded, exif_block, header, png

HEIC = Path(__file__).parents[3] / "tests" / "data" / "red.heic"

# the bombs that are small already
SMALL = 20_000


def picture(mode: str = "RGB", size: tuple[int, int] = (37, 29)) -> Image.Image:
    """Noise on a slope, in any mode."""
    random = np.random.default_rng(0)
    slope = np.linspace(0, 200, size[0], dtype=np.uint8)[None, :, None]
    pixels = slope + random.integers(0, 40, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(pixels, "RGB")
    if mode in ("I;16", "F", "I"):
        kinds = {"I;16": np.uint16, "F": np.float32, "I": np.int32}
        return Image.fromarray(np.asarray(image.convert("L")).astype(kinds[mode]))
    return image.convert(mode)


def good() -> dict[str, bytes]:
    """Every format in its variants, by `format: variant`."""
    files = _jpegs() | _pngs() | _tiffs() | _other_formats()
    if importlib.util.find_spec("pi_heif"):
        files["heic: plain"] = HEIC.read_bytes()
    return files


def seeds() -> dict[str, bytes]:
    """What is mutated."""
    files = good()
    for name, make in bombs.bombs().items():
        if name in bombs.QUICK and len(data := make()) < SMALL:
            files[name] = data
    return files


def _jpegs() -> dict[str, bytes]:
    rgb = picture()
    plain: dict[str, dict[str, Any]] = {
        "plain": {},
        "progressive": {"progressive": True},
        "restarts": {"restart_marker_blocks": 2},
        "full colour": {"subsampling": 0},
        "exif": {"exif": exif_block(6)},
        "profile": {"icc_profile": b"\0" * 300, "comment": b"none"},
    }
    files = {f"jpeg: {name}": encoded(rgb, "JPEG", **more) for name, more in plain.items()}
    for mode in ("L", "CMYK"):
        files[f"jpeg: {mode}"] = encoded(picture(mode), "JPEG")
    files["jpeg: large"] = encoded(picture(size=(900, 700)).resize((901, 701)), "JPEG", quality=20)
    files["jpeg: several"] = encoded(rgb, "MPO", save_all=True, append_images=[rgb])
    return files


def _pngs() -> dict[str, bytes]:
    modes = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
    files = {f"png: {mode}": encoded(picture(mode), "PNG") for mode in modes}
    files["png: clear colour"] = encoded(picture("P"), "PNG", transparency=3)
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", "a" * 300, zip=True)
    texts.add_itxt("XML:com.adobe.xmp", "<x/>", zip=True)
    files["png: texts"] = encoded(picture(), "PNG", pnginfo=texts, icc_profile=b"\0" * 200)
    files["png: exif"] = encoded(picture(), "PNG", exif=exif_block(5))
    frames = [picture(size=(16, 16)), picture("L", (16, 16)).convert("RGB")]
    files["png: animated"] = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    files["png: laced"] = png(
        (b"IHDR", header(37, 29, laced=1)), (b"IDAT", black(37, 80)), (b"IEND", b"")
    )
    return files


def _tiffs() -> dict[str, bytes]:
    kinds = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    files = {f"tiff: {kind}": encoded(picture(), "TIFF", compression=kind) for kind in kinds}
    files["tiff: group 4"] = encoded(picture("1"), "TIFF", compression="group4")
    for mode in ("L", "P", "RGBA", "CMYK", "I;16", "F", "I", "LAB"):
        files[f"tiff: {mode}"] = encoded(picture(mode), "TIFF")
    small = picture(size=(16, 16))
    files["tiff: pages"] = encoded(small, "TIFF", save_all=True, append_images=[small] * 3)
    files["tiff: exif"] = encoded(picture(), "TIFF", exif=exif_block(8))
    files["tiff: big"] = encoded(picture(), "TIFF", big_tiff=True)
    files["tiff: tile"] = makers.tiff_tile(64)
    return files


def _other_formats() -> dict[str, bytes]:
    rgb, rgba, frames = picture(), picture("RGBA"), [picture(size=(16, 16)), makers.red((16, 16))]
    moving = {"save_all": True, "append_images": frames[1:]}
    runs = b"".join(bytes([37, row]) + b"\0\0" for row in range(29)) + b"\0\1"
    plain = b"\0\x24" + b"ab" * 18 + b"\1\1\0\0" + runs
    wide = encoded(picture("P"), "GIF")
    return {
        "webp: lossy": encoded(rgb, "WEBP"),
        "webp: lossless": encoded(rgba, "WEBP", lossless=True),
        "webp: exif": encoded(rgb, "WEBP", exif=exif_block(3)),
        "webp: animated": encoded(frames[0], "WEBP", **moving),
        "gif: laced": encoded(picture("P"), "GIF", interlace=1),
        "gif: clear": encoded(picture("P"), "GIF", transparency=3, comment=b"none"),
        "gif: animated": encoded(frames[0], "GIF", **moving, disposal=2),
        "gif: pixels outside": wide[:6] + b"\x10\0\x10\0" + wide[10:],
        "bmp: RGB": encoded(rgb, "BMP"),
        "bmp: RGBA": encoded(rgba, "BMP"),
        "bmp: 1": encoded(picture("1"), "BMP"),
        "bmp: P": encoded(picture("P"), "BMP"),
        "bmp: run lengths": bmp(37, 29, 1, runs),
        "bmp: run lengths and plain bytes": bmp(37, 29, 1, plain),
        "bmp: run lengths of 4 bits": bmp(37, 29, 2, runs, 4),
        "avif: plain": encoded(rgb, "AVIF"),
        "avif: alpha": encoded(rgba, "AVIF", exif=exif_block(6)),
        "avif: animated": encoded(frames[0], "AVIF", **moving),
        "avif: grid": makers.avif_grid(64, 2, 2),
    }
