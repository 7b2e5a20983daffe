"""JPEG: decoding large ones at a part of their size, and other decoders. Knows no HTTP."""

import importlib
import io
import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from PIL import Image

from app.images.decode import decode
from app.images.limits import ImageLimits
from benchmarks import pictures
from benchmarks.inside import encoder
from benchmarks.levers.tables import COLUMNS, beside_the_first
from benchmarks.pictures import LARGE, MEDIUM, SMALL
from benchmarks.record import Cell, Result
from benchmarks.rounds import Effort, Spread, figure, in_turns, seconds_of
from models.errors import first_line

FILES: Final = 8

Decoder = Callable[[bytes], Any]


def draft(effort: Effort) -> Result:
    """In full against the service's way, with what it changes in pixels and embeddings."""
    rows: list[list[Cell]] = []
    with encoder("fp32") as fp32:
        for size in (SMALL, MEDIUM, LARGE):
            files = [path.read_bytes() for path in pictures.jpegs(size, FILES)]

            def all_of(exact: bool, files: Sequence[bytes] = files) -> list[Any]:
                limits = ImageLimits()
                return [decode(x, fp32.info.image, limits, exact=exact).pixels for x in files]

            full, fast = all_of(True), all_of(False)
            rows_of = [fp32.submit_images(x).result() for x in (full, fast)]
            off = float((1 - (rows_of[0].astype(np.float64) * rows_of[1]).sum(1)).max())
            turns = {
                "in full": partial(_per_file, partial(all_of, True), effort),
                "as the service": partial(_per_file, partial(all_of, False), effort),
            }
            times = in_turns(turns, effort.rounds)
            spreads = [Spread.of(1000 * value for value in seconds) for seconds in times.values()]
            noise = _decibels(full, fast)
            row: list[Cell] = [size.name, *(spread.text() for spread in spreads)]
            row.append(f"{figure(spreads[0].median / spreads[1].median)}x")
            rows.append([*row, noise, f"{max(off, 0):.0e}"])
    columns = [
        "size", "ms in full, median (range)", "ms as the service", "faster by",
        "PSNR", "largest 1-cos, ViT-B-32 fp32",
    ]  # fmt: skip
    return Result("JPEG decoded at a half, a quarter or an eighth of its size", columns, rows)


def decoders(effort: Effort) -> Result:
    """Pillow against the other decoders that are installed, one thread, to 8-bit RGB."""
    others, notes = other_decoders()
    rows: list[list[Cell]] = []
    for size in (SMALL, LARGE):
        files = [path.read_bytes() for path in pictures.jpegs(size, FILES)]
        for name, other in others.items():
            apart = max(int(np.abs(np.int16(by_pillow(x)) - other(x)).max()) for x in files)
            notes.append(f"{name}, {size.name}: largest pixel difference {apart} of 255.")

        def all_of(decoder: Decoder, files: Sequence[bytes] = files) -> list[Any]:
            return [decoder(x) for x in files]

        sides = {
            f"{name}, {size.name}": partial(_per_file, partial(all_of, decoder), effort)
            for name, decoder in {"Pillow": by_pillow, **others}.items()
        }
        rows += beside_the_first(in_turns(sides, effort.rounds))
    return Result("JPEG decoders, one thread", COLUMNS, rows, notes)


def by_pillow(data: bytes) -> Any:
    """(H, W, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def other_decoders() -> tuple[dict[str, Decoder], list[str]]:
    """Those that are installed, which return what `by_pillow` does; a line for each that is not."""
    here: dict[str, Decoder] = {}
    missing: list[str] = []
    for name, made in (
        ("torchvision", _torchvision), ("simplejpeg", _simplejpeg), ("PyTurboJPEG", _turbojpeg),
    ):  # fmt: skip
        try:
            here[name] = made()
        except (ImportError, OSError, RuntimeError) as error:  # without the package, or its library
            missing.append(f"{name}: not compared ({first_line(error)}).")
    return here, missing


def _torchvision() -> Decoder:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    def decoder(data: bytes) -> Any:
        coded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return decode_jpeg(coded, mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()

    return decoder


def _simplejpeg() -> Decoder:
    decoder: Decoder = importlib.import_module("simplejpeg").decode_jpeg  # RGB by default
    return decoder


def _turbojpeg() -> Decoder:
    turbojpeg: Any = importlib.import_module("turbojpeg")
    return partial(turbojpeg.TurboJPEG().decode, pixel_format=turbojpeg.TJPF_RGB)


def _per_file(work: Callable[[], list[Any]], effort: Effort) -> float:
    """Seconds for one of the files that one call decodes."""
    calls = max(1, round(effort.seconds / 4 / max(seconds_of(work), 1e-3)))
    return statistics.median(seconds_of(work) for _ in range(calls)) / FILES


def _decibels(full: Sequence[Any], fast: Sequence[Any]) -> str:
    error = float(
        np.mean([(np.float64(a) - np.float64(b)) ** 2 for a, b in zip(full, fast, strict=True)])
    )
    return "equal" if error == 0 else f"{10 * math.log10(255**2 / error):.0f} dB"
