"""The bundled model against the same server with an encoder that costs nothing."""

import contextlib
import statistics
import tempfile
from pathlib import Path
from typing import Final

from benchmarks import pictures
from benchmarks.bodies import multipart
from benchmarks.limit.starts import stand_in
from benchmarks.load import Load
from benchmarks.pictures import SMALL
from benchmarks.record import Cell, Result
from benchmarks.rounds import Effort, Spread, figure
from benchmarks.sides import FIELDS, Side, loaded, ours

FILES: Final = 64
CONNECTIONS: Final = 32


def pictogram(effort: Effort) -> Result:
    """640 x 480 at 32 connections, in turns."""
    images = pictures.jpegs(SMALL, FILES)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        bodies = multipart(images, FIELDS, folder / "forms")
        real = stack.enter_context(ours(folder, model="pictogram"))
        free = stack.enter_context(stand_in("free", folder, model="pictogram"))
        sides = [
            Side("pictogram", real, "/classify", bodies),
            Side("an encoder that costs nothing", free, "/classify", bodies),
        ]
        loads = loaded(sides, CONNECTIONS, effort.seconds, effort.rounds)
    rows: list[list[Cell]] = [_row(name, turns) for name, turns in loads.items()]
    rates = [statistics.median(x.rate for x in turns) for turns in loads.values()]
    return Result(
        "pictogram, 640x480, 32 connections",
        ["encoder", "requests/s, median (range)", "p50 ms", "p99 ms", "errors"],
        rows,
        bars={"limit.pictogram": 100 * rates[0] / rates[1]},
    )


def _row(name: str, turns: list[Load]) -> list[Cell]:
    p50, p99 = (statistics.median(getattr(x, q) for x in turns) for q in ("p50", "p99"))
    rate = Spread.of(x.rate for x in turns).text()
    return [name, rate, figure(p50), figure(p99), sum(x.errors for x in turns)]
