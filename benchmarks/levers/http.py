"""HTTP: event loop and parser, and the forms in which a picture may come. Knows no model."""

import contextlib
import statistics
import tempfile
from pathlib import Path
from typing import Final

from benchmarks import bodies as made
from benchmarks import pictures
from benchmarks.bodies import Bodies
from benchmarks.limit.pieces import cpu_of_reading
from benchmarks.limit.starts import stand_in
from benchmarks.pictures import LARGE, SMALL
from benchmarks.record import Cell, Result
from benchmarks.rounds import Effort, Spread, figure
from benchmarks.sides import FIELDS, LABELS, Side, loaded

FILES: Final = 16
CONNECTIONS: Final = 32
IN_THE_ADDRESS: Final = f"/classify?labels={','.join(LABELS)}&top_k={len(LABELS)}"


def loops(effort: Effort) -> Result:
    """A bare echo of 640x480 pictures under each event loop and HTTP parser of uvicorn."""
    images = pictures.jpegs(SMALL, FILES)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        small = made.raw([_tiny(folder)], folder / "tiny")
        large = made.raw(images, folder / "raw")
        sides: list[Side] = []
        for loop, parser in (("asyncio", "h11"), ("asyncio", "httptools"), ("uvloop", "httptools")):
            options = ["--loop", loop, "--http", parser]
            server = stack.enter_context(stand_in("echo", folder, *options))
            for size, body in (("100 bytes", small), ("110 kB", large)):
                sides.append(Side(f"{loop} + {parser}, {size}", server, "/", body))
        return Result(
            "Event loop and HTTP parser, bare echo, 32 connections",
            ["side", "requests/s, median (range)", "p50 ms"],
            _in_turns(sides, effort),
        )


def bodies(effort: Effort) -> Result:
    """A form, the raw file and base64 in JSON: what each costs to read, and to serve."""
    rows: list[list[Cell]] = []
    for size in (SMALL, LARGE):
        path = pictures.jpegs(size, 1)[0]
        with tempfile.TemporaryDirectory() as name:
            for form, body in _forms([path], Path(name)).items():
                spent = [cpu_of_reading(body) for _ in range(effort.rounds)]
                spread = Spread.of(1000 * value for value in spent)
                kilobytes = round(path.stat().st_size / 1000)
                rows.append([f"reading, {kilobytes:,} kB", form, spread.text(), "", ""])
    images = pictures.jpegs(SMALL, FILES)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        server = stack.enter_context(stand_in("free", folder, model="pictogram"))
        sides = [
            Side(form, server, _path(form), body) for form, body in _forms(images, folder).items()
        ]
        rows += [
            ["requests, 640x480", side, "", rate, p50]
            for side, rate, p50 in _in_turns(sides, effort)
        ]
    columns = ["what", "form", "CPU ms, median (range)", "requests/s, median (range)", "p50 ms"]
    notes = ["Requests: including decoding, with a no-op encoder, 32 connections."]
    return Result("Request formats", columns, rows, notes)


def _in_turns(sides: list[Side], effort: Effort) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    turns = loaded(sides, CONNECTIONS, effort.seconds / 2, effort.rounds)
    for name, loads in turns.items():
        p50 = figure(statistics.median(load.p50 for load in loads))
        rows.append([name, Spread.of(load.rate for load in loads).text(), p50])
    return rows


def _forms(images: list[Path], folder: Path) -> dict[str, Bodies]:
    fields = {"labels": list(LABELS), "top_k": len(LABELS)}
    return {
        "multipart": made.multipart(images, FIELDS, folder / "multipart"),
        "raw": made.raw(images, folder / "raw"),
        "base64 in JSON": made.with_base64(
            images, folder / "json", lambda coded: {"image": coded, **fields}
        ),
    }


def _path(side: str) -> str:
    return IN_THE_ADDRESS if side == "raw" else "/classify"


def _tiny(folder: Path) -> Path:
    path = folder / "tiny.jpg"
    path.write_bytes(b"x" * 100)
    return path
