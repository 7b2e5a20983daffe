"""A second model in a process: what it costs while it is loaded, and what it leaves behind."""

import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import pictures
from benchmarks.bodies import Bodies, multipart
from benchmarks.load import drive
from benchmarks.pictures import SIZES
from benchmarks.record import Cell, Result
from benchmarks.rounds import Effort, Spread, figure, in_turns
from benchmarks.servers import Server, wait_until
from benchmarks.sides import FIELDS, ours
from benchmarks.usage import MB, cpu_seconds, resident_mb, settle

DEFAULT, OTHER = "pictogram", "everyday"

REQUESTS: Final = 200
CONNECTIONS: Final = 8
FILES: Final = 32

# turns of each side at least: what is to be seen is small
TURNS: Final = 16

CYCLES: Final = 100
SHOWN: Final = (1, 10, 25, 50, 75, CYCLES)

# seconds without a request after which the other model goes
IDLE: Final = 0.1
LOAD_SECONDS: Final = 120.0


def models(effort: Effort) -> Result:
    """Memory of two models in one process, and the speed of one while the other idles."""
    images = pictures.jpegs(SIZES[0], FILES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bodies = {
            model: multipart(images, {**FIELDS, "model": model}, folder / f"{model}-forms")
            for model in (DEFAULT, OTHER)
        }
        bare = _without_model()
        sizes = {model: _alone(folder, model, bodies[model]) - bare for model in bodies}
        with (
            ours(folder, model=DEFAULT) as single,
            ours(folder, model=DEFAULT, more_models=OTHER) as double,
        ):
            _until(double, OTHER, "loaded")
            _load(single, bodies[DEFAULT])
            for form in bodies.values():
                _load(double, form)
            settle(double.process.pid)
            together = resident_mb(double.process.pid)
            turns = in_turns(
                {
                    "alone": lambda: _turn(single, double, bodies[DEFAULT], effort.seconds),
                    "beside": lambda: _turn(double, single, bodies[DEFAULT], effort.seconds),
                },
                max(TURNS, effort.rounds),
            )
    # of two turns that follow each other: what drifts on the machine meets both alike
    pairs = [
        alone.cpu / beside.cpu
        for alone, beside in zip(turns["alone"], turns["beside"], strict=True)
    ]
    beside = together - bare - sum(sizes.values())
    rows: list[list[Cell]] = [["resident without any model, MB", figure(bare)]]
    rows += [[f"{model} alone adds, MB", figure(size)] for model, size in sizes.items()]
    rows += [
        ["resident with both in one process, MB", figure(together)],
        ["of that, beyond what each adds alone, MB", figure(beside)],
    ]
    for side, title in (("alone", DEFAULT), ("beside", f"{DEFAULT} while {OTHER} idles")):
        cpu, rate = ([getattr(turn, kind) for turn in turns[side]] for kind in ("cpu", "rate"))
        rows.append([f"CPU ms per request, {title}", Spread.of(cpu).text()])
        rows.append([f"requests/s, {title}", Spread.of(rate).text()])
    rows.append(["requests for the same CPU time, beside against alone", Spread.of(pairs).text()])
    return Result(
        f"Two models in one process: {DEFAULT} and {OTHER}",
        ["what", "median (range)"],
        rows,
        [
            f"Memory after {REQUESTS} requests for each model over {CONNECTIONS} connections: "
            "weights, and what batches of that size need while they are computed.",
            f"Speed in {len(pairs)} rounds per side, one side paused while the other is measured. "
            "The last row compares pairs of rounds by CPU time, because requests per second depend "
            "on other load.",
        ],
        {"limit.models.beside": beside, "limit.models.rate": statistics.median(pairs)},
    )


def cycles(_effort: Effort) -> Result:
    """A model is loaded and unloaded a hundred times."""
    images = pictures.jpegs(SIZES[0], 1)
    sizes: dict[int, tuple[float, float]] = {}
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {"more_models": OTHER, "loaded_models": 2, "model_idle": IDLE}
        with ours(folder, model=DEFAULT, **settings) as server:
            for cycle in range(1, CYCLES + 1):
                start = time.perf_counter()
                answer = server.client.post(
                    "/classify",
                    files={"image": images[0].read_bytes()},
                    data={**FIELDS, "model": OTHER},
                )
                answer.raise_for_status()
                seconds.append(time.perf_counter() - start)
                loaded = resident_mb(server.process.pid)
                _until(server, OTHER, "idle")
                if cycle in SHOWN:
                    settle(server.process.pid)
                    sizes[cycle] = loaded, resident_mb(server.process.pid)
    ratio = sizes[CYCLES][1] / sizes[1][1]
    rows: list[list[Cell]] = [
        [cycle, round(loaded), round(after)] for cycle, (loaded, after) in sizes.items()
    ]
    return Result(
        f"Loading and unloading {OTHER} beside {DEFAULT}",
        ["cycles", "MB loaded", "MB unloaded"],
        rows,
        [
            f"{figure(ratio, 4)} times as much at the end as after the first time.",
            "A request that loads the model takes "
            f"{Spread.of(seconds[1:]).text()} s, median (range).",
        ],
        {"limit.cycles": ratio},
    )


def _alone(folder: Path, model: str, bodies: Bodies) -> float:
    """Megabytes of a server with one model."""
    with ours(folder, model=model) as server:
        _load(server, bodies)
        settle(server.process.pid)
        return resident_mb(server.process.pid)


def _load(server: Server, bodies: Bodies) -> None:
    count = 0
    while count < REQUESTS:
        count += drive(f"{server.url}/classify", bodies, CONNECTIONS, 1).requests


@dataclass(frozen=True, slots=True)
class _Turn:
    """Answers a second, and CPU milliseconds for each."""

    rate: float
    cpu: float


def _turn(server: Server, idle: Server, bodies: Bodies, seconds: float) -> _Turn:
    """A server under load while the other one stands still."""
    idle.pause()
    try:
        before = cpu_seconds(server.process.pid)
        load = drive(f"{server.url}/classify", bodies, CONNECTIONS, seconds)
        spent = cpu_seconds(server.process.pid) - before
        return _Turn(load.rate, 1000 * spent / load.requests)
    finally:
        idle.resume()


def _without_model() -> float:
    """Megabytes of a process that has imported what serves, and loaded nothing."""
    code = (
        "import models.loader, openvino, app.server.run\n"
        "print(*[line.split()[1] for line in open('/proc/self/status') if 'VmRSS' in line])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    return int(process.stdout) * 1024 / MB


def _until(server: Server, model: str, state: str) -> None:
    """Wait for a state of a model, as GET /models tells it."""

    def reached() -> bool:
        listed = server.client.get("/models").json()["models"]
        return any(entry["name"] == model and entry["state"] == state for entry in listed)

    wait_until(reached, LOAD_SECONDS)
