"""CPU-seconds of a request against those of its parts alone. Knows nothing of waiting times."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import torch

from app.images.decode import decode
from app.images.limits import ImageLimits
from benchmarks import pictures
from benchmarks.bodies import Bodies, multipart
from benchmarks.inside import decoded, encoder
from benchmarks.limit.pieces import pieces_alone
from benchmarks.limit.starts import stand_in
from benchmarks.load import drive
from benchmarks.pictures import SMALL
from benchmarks.record import Cell, Result
from benchmarks.rounds import Effort, Spread, figure, in_turns
from benchmarks.servers import Server
from benchmarks.sides import FIELDS, WARM_SECONDS, ours
from benchmarks.usage import cpu_seconds
from models import ImageSpec, catalog
from models.encoder import Encoder
from models.info import Pixels

CONNECTIONS: Final = 32
FILES: Final = 64
SIZES: Final = (1, 8, 16, 32)
LARGE: Final = 32  # the batch whose time is compared with the tower's arithmetic
REST_SECONDS: Final = 0.5
REST_LOOKS: Final = 60


def cpu(effort: Effort) -> Result:
    """One run: the service, the encoder, decoding and a bare echo, in turns."""
    images = pictures.jpegs(SMALL, FILES)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        bodies = multipart(images, FIELDS, folder / "forms")
        batch = _batch_size(bodies, folder, effort)
        server = stack.enter_context(ours(folder))
        echo = stack.enter_context(stand_in("echo", folder))
        alone = stack.enter_context(encoder())
        for side in (server, echo):
            drive(f"{side.url}/classify", bodies, CONNECTIONS, WARM_SECONDS)
            side.pause()
        pixels = decoded(images, alone.info.image)
        turns: dict[str, Callable[[], float]] = {
            "service": lambda: _per_request(server, bodies, 2 * effort.seconds),
            "echo": lambda: _per_request(echo, bodies, effort.seconds),
            "decode": lambda: _decoding(images, alone.info.image, effort.seconds),
        }
        for size in sorted({*SIZES, batch}):
            turns[f"encode {size}"] = partial(
                _encoding, alone, pixels[:size], max(1.0, effort.seconds / 2)
            )
        precision = alone.info.precision
        turns["matrix"] = lambda: matrix_seconds(precision, max(1.0, effort.seconds / 2))
        times = in_turns(turns, effort.rounds)
        rest = pieces_alone(images[0].read_bytes())
    return _result(times, rest, batch)


def _result(times: dict[str, list[float]], rest: dict[str, float], batch: int) -> Result:
    median = {name: statistics.median(values) for name, values in times.items()}
    whole = median["service"]

    def share(part: float) -> str:
        return f"{100 * part / whole:.0f} %"

    parts = {
        f"encoder alone, batches of {batch}": f"encode {batch}",
        "decode alone, a thread per core": "decode",
        "bare ASGI echo of the same requests": "echo",
    }
    total = sum(median[key] for key in parts.values())
    unexplained = whole - total - sum(rest.values())
    rows: list[list[Cell]] = [["the service", _ms(times["service"]), "100 %"]]
    rows += [[name, _ms(times[key]), share(median[key])] for name, key in parts.items()]
    rows += [["encoder + decode + echo", figure(1000 * total), share(total)]]
    rows += [[name, figure(1000 * spent), share(spent)] for name, spent in rest.items()]
    rows += [["what no part explains", figure(1000 * unexplained), share(unexplained)]]
    rows += [
        [f"(encoder alone, batches of {size})", _ms(times[f"encode {size}"]), ""]
        for size in SIZES
        if size != batch
    ]
    arithmetic = "(the tower's operations at the rate of a matrix product, one thread)"
    rows += [[arithmetic, _ms(times["matrix"]), ""]]
    notes = [
        f"{CONNECTIONS} connections, 640x480, 10 labels, ViT-B-32; user and system time of all "
        "threads from /proc, the load generator not counted.",
        f"Under this load the service made batches of {batch} images on average, counted by a "
        "second server with a counting encoder.",
        "Waiting OpenMP threads spin for a while, which counts as CPU time in the service as "
        "alone.",
        f"The matrix product is {_TOKENS * LARGE:,} x {_WIDTH} by {_WIDTH} x {4 * _WIDTH} in "
        "torch, in the precision served; the tower has "
        f"{_OPERATIONS / 1e9:.1f} GFLOP for each image.",
    ]
    columns = ["what", "CPU ms per request, median (range)", "share"]
    title = "CPU time of a request against its parts"
    large = median[f"encode {LARGE}"] / median["matrix"]
    bars = {"limit.cpu": whole / total, "limit.cpu.matrix": large}
    return Result(title, columns, rows, notes, bars)


def _batch_size(bodies: Bodies, folder: Path, effort: Effort) -> int:
    """Images in a batch on average, as the service makes them under this load."""
    with stand_in("counting", folder) as server:
        drive(f"{server.url}/classify", bodies, CONNECTIONS, WARM_SECONDS)
        before = server.client.get("/batches").json()
        drive(f"{server.url}/classify", bodies, CONNECTIONS, effort.seconds)
        after = server.client.get("/batches").json()
    batches = int(after["batches"] - before["batches"])
    images = int(after["images"] - before["images"])
    return max(1, round(images / max(1, batches)))


def _per_request(server: Server, bodies: Bodies, seconds: float) -> float:
    """CPU-seconds for each request that came in, those included that the generator left behind.

    When it ends it has one on each connection, which the server works off all the same.
    """
    server.resume()
    try:
        before = cpu_seconds(server.process.pid)
        load = drive(f"{server.url}/classify", bodies, CONNECTIONS, seconds)
        after = _at_rest(server)
    finally:
        server.pause()
    if load.errors or not load.requests:
        raise RuntimeError(f"{load.requests} answers in {seconds:g} s, {load.errors} errors")
    return (after - before) / (load.requests + CONNECTIONS)


def _at_rest(server: Server) -> float:
    """The CPU-seconds so far, once they hardly grow any more."""
    spent = cpu_seconds(server.process.pid)
    for _ in range(REST_LOOKS):
        time.sleep(REST_SECONDS)
        now = cpu_seconds(server.process.pid)
        if now - spent < 0.1 * REST_SECONDS:
            return now
        spent = now
    raise RuntimeError("the server does not come to rest")


def _decoding(images: Sequence[Path], spec: ImageSpec, seconds: float) -> float:
    files = [path.read_bytes() for path in images]
    with ThreadPoolExecutor() as threads:

        def once() -> None:
            list(threads.map(lambda data: decode(data, spec, ImageLimits()), files))

        return _cpu_of(once, seconds) / len(files)


def _encoding(alone: Encoder, batch: Sequence[Pixels], seconds: float) -> float:
    return _cpu_of(lambda: alone.submit_images(batch).result(), seconds) / len(batch)


# a ViT-B-32 at 224 pixels: the catalogue has its operations
_OPERATIONS: Final = 1e9 * catalog()["ViT-B-32/openai"].gflops
_WIDTH: Final = 768
_TOKENS: Final = 50


def matrix_seconds(precision: str, seconds: float) -> float:
    """CPU-seconds that the operations for one image take at the rate of one matrix product."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    a = torch.randn(_TOKENS * LARGE, _WIDTH, dtype=dtype)
    b = torch.randn(_WIDTH, 4 * _WIDTH, dtype=dtype)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        spent = _cpu_of(lambda: a @ b, seconds)
    finally:
        torch.set_num_threads(threads)
    return spent * _OPERATIONS / (2 * a.shape[0] * b.numel())


def _cpu_of(work: Callable[[], object], seconds: float) -> float:
    """CPU-seconds of this process for one call, on average over about `seconds`."""
    work()
    calls, start, end = 0, time.process_time(), time.perf_counter() + seconds
    while not calls or time.perf_counter() < end:
        work()
        calls += 1
    return (time.process_time() - start) / calls


def _ms(times: Sequence[float]) -> str:
    return Spread.of(1000 * value for value in times).text()
