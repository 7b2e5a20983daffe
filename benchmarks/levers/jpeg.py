"""JPEG: decoding large ones at a part of their size, and another decoder. Knows no HTTP."""

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
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

FILES: Final = 8


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
    """Pillow against torchvision's decoder, one thread, to 8-bit RGB."""
    try:
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg
    except ImportError:
        return Result("JPEG decoders", COLUMNS, [], ["torchvision: not installed."])
    rows: list[list[Cell]] = []
    notes = []
    for size in (SMALL, LARGE):
        paths = pictures.jpegs(size, FILES)
        files = [np.fromfile(path, np.uint8) for path in paths]

        def by_torchvision(files: Sequence[Any] = files) -> list[Any]:
            return [decode_jpeg(torch.from_numpy(x), mode=ImageReadMode.RGB) for x in files]

        def by_pillow(paths: Sequence[Path] = paths) -> list[Any]:
            return [np.asarray(Image.open(path).convert("RGB")) for path in paths]

        pairs = zip(by_pillow(), by_torchvision(), strict=True)
        apart = max(int(np.abs(np.int16(a) - np.int16(b.permute(1, 2, 0))).max()) for a, b in pairs)
        notes.append(f"{size.name}: largest pixel difference {apart} of 255.")
        sides = {
            f"Pillow, {size.name}": partial(_per_file, by_pillow, effort),
            f"torchvision, {size.name}": partial(_per_file, by_torchvision, effort),
        }
        rows += beside_the_first(in_turns(sides, effort.rounds))
    return Result("JPEG decoders, one thread", COLUMNS, rows, notes)


def _per_file(work: Callable[[], list[Any]], effort: Effort) -> float:
    """Seconds for one of the files that one call decodes."""
    calls = max(1, round(effort.seconds / 4 / max(seconds_of(work), 1e-3)))
    return statistics.median(seconds_of(work) for _ in range(calls)) / FILES


def _decibels(full: Sequence[Any], fast: Sequence[Any]) -> str:
    error = float(
        np.mean([(np.float64(a) - np.float64(b)) ** 2 for a, b in zip(full, fast, strict=True)])
    )
    return "equal" if error == 0 else f"{10 * math.log10(255**2 / error):.0f} dB"
