"""Resident memory after many requests against after a few."""

import tempfile
from pathlib import Path
from typing import Final

from benchmarks import pictures
from benchmarks.bodies import Bodies, multipart
from benchmarks.load import drive
from benchmarks.pictures import SIZES
from benchmarks.record import Cell, Result
from benchmarks.rounds import Effort, figure
from benchmarks.servers import Server
from benchmarks.sides import FIELDS, ours
from benchmarks.usage import resident_mb

FILES: Final = 64
CONNECTIONS: Final = 32
FEW, MANY = 500, 10_000
LONGEST_SECONDS: Final = 300


def memory(_effort: Effort) -> Result:
    """pictogram under 32 connections with small pictures."""
    images = pictures.jpegs(SIZES[0], FILES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bodies = multipart(images, FIELDS, folder / "forms")
        with ours(folder, model="pictogram") as server:
            points = [_after(server, bodies, 0, FEW)]
            while points[-1][0] < MANY:
                points.append(_after(server, bodies, points[-1][0], points[-1][0] + MANY // 8))
    rows: list[list[Cell]] = [[count, round(size)] for count, size in points]
    ratio = points[-1][1] / points[0][1]
    return Result(
        "Resident memory under load, pictogram, 366x274, 32 connections",
        ["requests so far", "MB"],
        rows,
        [f"{figure(ratio, 4)} times as much at the end as at the first row."],
        {"limit.memory": ratio},
    )


def _after(server: Server, bodies: Bodies, count: int, least: int) -> tuple[int, float]:
    """Requests so far and megabytes, once at least `wanted` were answered."""
    for _ in range(LONGEST_SECONDS):
        count += drive(f"{server.url}/classify", bodies, CONNECTIONS, 1).requests
        if count >= least:
            return count, resident_mb(server.process.pid)
    raise RuntimeError(f"{count} of {least} requests within {LONGEST_SECONDS} s")
