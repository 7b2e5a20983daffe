"""Growth with what a server holds and how many ask at once: label sets, connections, workers."""

import os
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks import pictures
from benchmarks.bodies import Bodies, multipart
from benchmarks.load import drive, drive_repeatedly
from benchmarks.pictures import SMALL
from benchmarks.record import Cell, Plot, Points, Result
from benchmarks.registering import TEMPLATE, register
from benchmarks.rounds import Effort, figure
from benchmarks.servers import START_SECONDS, DidNotStart
from benchmarks.sides import FIELDS, LABELS, WARM_SECONDS, ours
from benchmarks.usage import proportional_mb, resident_mb

FILES: Final = 64
STORED: Final = (1, 10, 100, 1_000)
CONNECTIONS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def labelsets(effort: Effort) -> Result:
    """1 to 1,000 label sets of 10 labels in SQLite; requests use all of them in turn."""
    images = pictures.jpegs(SMALL, FILES)
    rows: list[list[Cell]] = []
    series: dict[str, Points] = {"classify": [], "register": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ours(folder, model="pictogram", store_url="") as server:
            stored = 0
            for count in STORED:
                while stored < count:
                    last = register(server, f"set-{stored}", _own_labels(stored), TEMPLATE)
                    stored += 1
                forms = _using(count, images, folder / str(count))
                drive(f"{server.url}/classify", forms, 1, WARM_SECONDS)
                load = drive(f"{server.url}/classify", forms, 1, max(1.0, effort.seconds / 2))
                series["classify"].append((count, load.p50))
                series["register"].append((count, 1000 * last))
                memory = round(resident_mb(server.process.pid))
                rows.append([count, figure(load.p50), figure(1000 * last), memory, load.errors])
    return Result(
        "Label sets stored (pictogram, SQLite, 10 labels each, 640x480, one connection)",
        [
            "label sets",
            "p50 ms of classify",
            "ms to register and build the last",
            "MB resident",
            "errors",
        ],
        rows,
        plot=Plot("label sets stored", "ms", series),
    )


def connections(effort: Effort) -> Result:
    """1 to 256 connections."""
    images = pictures.jpegs(SMALL, FILES)
    rows: list[list[Cell]] = []
    rates: Points = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        forms = multipart(images, FIELDS, folder / "forms")
        with ours(folder) as server:
            for count in CONNECTIONS:
                drive(f"{server.url}/classify", forms, count, WARM_SECONDS)
                load = drive_repeatedly(
                    f"{server.url}/classify", forms, count, effort.seconds, effort.rounds
                )
                rates.append((count, load.rate))
                row: list[Cell] = [count, figure(load.rate), figure(load.p50)]
                rows.append([*row, figure(load.p99), figure(load.max), load.errors])
    return Result(
        "Connections (ViT-B-32, 10 labels, 640x480)",
        ["connections", "requests/s", "p50 ms", "p99 ms", "largest ms", "errors"],
        rows,
        plot=Plot("connections", "requests/s", {"openvocab": rates}),
    )


def workers(effort: Effort) -> Result:
    """One process to one for each core (and twice as many), 32 connections, SQLite.

    Memory is that after the load; a page that processes share counts once.
    """
    images = pictures.jpegs(SMALL, FILES)
    cores = len(os.sched_getaffinity(0))
    counts = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= 2 * cores]
    rows: list[list[Cell]] = []
    notes = []
    series: dict[str, Points] = {}
    for model, title in (("everyday",) * 2, ("pictogram",) * 2, ("", "ViT-B-32")):
        chosen = {"model": model} if model else {}
        for count in counts:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                forms = multipart(images, FIELDS, folder / "forms")
                options = ["--workers", str(count)]
                try:
                    with ours(folder, *options, store_url="", **chosen) as server:
                        _all_serve(folder / "server.log")
                        drive(f"{server.url}/classify", forms, 32, WARM_SECONDS)
                        load = drive_repeatedly(
                            f"{server.url}/classify", forms, 32, effort.seconds, effort.rounds
                        )
                        memory = round(proportional_mb(server.process.pid))
                except DidNotStart as failure:
                    notes.append(f"{title}, {count} workers: {str(failure).splitlines()[-1]}")
                    rows.append([title, count, None, None, None, None])
                    continue
            series.setdefault(title, []).append((count, load.rate))
            row: list[Cell] = [title, count, figure(load.rate), figure(load.p50)]
            rows.append([*row, figure(load.p99), memory])
    return Result(
        f"Worker processes on {cores} cores (10 labels, 640x480, 32 connections, SQLite)",
        ["model", "workers", "requests/s", "p50 ms", "p99 ms", "memory MB"],
        rows,
        notes,
        plot=Plot("workers", "requests/s", series) if series else None,
    )


def _all_serve(log: Path) -> None:
    """The first worker answers early; the server says when all do."""
    end = time.monotonic() + START_SECONDS
    while "Ready: " not in log.read_text(errors="replace"):
        if time.monotonic() > end:
            raise DidNotStart("not all workers began to serve")
        time.sleep(0.05)


def _own_labels(number: int) -> list[str]:
    """10 labels, one of them in this set only."""
    return [*LABELS[:-1], f"thing {number}"]


def _using(count: int, images: list[Path], folder: Path) -> Bodies:
    """Requests that name the label sets in turn, spread over all."""
    step = max(1, count // len(images))
    parts = [
        multipart([image], {"labelset": f"set-{(number * step) % count}"}, folder / str(number))
        for number, image in enumerate(images)
    ]
    index = folder / "index"
    index.write_text("".join(part.index.read_text() for part in parts))
    return Bodies(index, parts[0].kind)
