"""How soon a server on a CPU is ready, and how much memory it and its workers hold."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks import pictures
from benchmarks.bodies import Bodies, multipart
from benchmarks.checkpoint import open_clip_folder
from benchmarks.load import drive
from benchmarks.pictures import SIZES
from benchmarks.record import Cell, Result
from benchmarks.rounds import Effort, Spread, figure
from benchmarks.servers import Server
from benchmarks.sides import FIELDS, ours
from benchmarks.usage import proportional_mb, resident_mb

MODELS: Final = ("pictogram", "everyday")
STARTS: Final = 10
REQUESTS: Final = 1_000
CONNECTIONS: Final = 8
WORKERS: Final = 4
FILES: Final = 64


def light(_effort: Effort) -> Result:
    """Both bundled models with one and four processes, and a ViT-B-32 in bf16."""
    images = pictures.jpegs(SIZES[0], FILES)
    single: dict[str, float] = {}
    several: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bodies = multipart(images, FIELDS, folder / "forms")
        seconds = [_start(folder) for _ in range(STARTS + 1)][1:]  # the first one exports
        for model in MODELS:
            with ours(folder, model=model) as server:
                single[model] = _after_requests(server, bodies, resident=True)
            # workers share a file
            with ours(folder, "--workers", str(WORKERS), model=model, store_url="") as server:
                several[model] = _after_requests(server, bodies, resident=False)
        large = f"local-dir:{open_clip_folder()}"
        with ours(folder, model=large, precision="bf16") as server:
            vit = _after_requests(server, bodies, resident=True)
    starts = Spread.of(seconds)
    rows: list[list[Cell]] = [
        ["exec to the first 200 of /readyz, pictogram, seconds", starts.text()],
        [f"resident after {REQUESTS:,} requests, ViT-B-32 in bf16, MB", figure(vit)],
    ]
    for model in MODELS:
        shared = f"{WORKERS} workers, shared pages counted once, {model}, MB"
        alone = f"resident after {REQUESTS:,} requests, {model}, MB"
        rows += [[alone, figure(single[model])], [shared, figure(several[model])]]
    return Result(
        "A CPU server that maps an exported model",
        ["what", "median (range)"],
        rows,
        [
            f"{STARTS} starts with everything in the page cache, after one that exports the model.",
            f"{WORKERS} workers have one thread each for the model, and share it.",
        ],
        {
            "limit.light.start": statistics.median(seconds),
            "limit.light.memory": single[MODELS[0]],
            "limit.light.workers": several[MODELS[0]],
            "limit.light.vit": vit,
        },
    )


def _start(folder: Path) -> float:
    start = time.perf_counter()
    with ours(folder, model="pictogram"):
        return time.perf_counter() - start


def _after_requests(server: Server, bodies: Bodies, *, resident: bool) -> float:
    """Megabytes once so many requests were answered."""
    count = 0
    while count < REQUESTS:
        count += drive(f"{server.url}/classify", bodies, CONNECTIONS, 1).requests
    return (resident_mb if resident else proportional_mb)(server.process.pid)
