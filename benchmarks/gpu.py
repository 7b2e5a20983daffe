"""What a GPU is used for: encoder, end to end, one request, a cold label set. Needs CUDA.

    python -m benchmarks.gpu

Runs from the repository with torch, open_clip and what `app` imports; no server framework is
driven over a network: "end to end" is decoding, batching, encoding and scoring in process, in as
many processes as `--workers` names. Weights are random: speed does not depend on their values.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from app.classify.batching import Batcher, BatchPolicy
from app.classify.concept import Concept
from app.classify.embedding import encode_images
from app.classify.ensemble import Ensemble
from app.classify.templates import presets, template_sets
from app.images.decode import Decoder, decode
from app.images.limits import ImageLimits
from app.stores.lru import ByteLru
from app.stores.memory import MemoryStore
from app.stores.vectors import TwoLevels
from benchmarks.exactness import random_checkpoint
from benchmarks.pictures import SMALL, jpeg
from models.encoder import Encoder
from models.loader import load

RESULTS: Final = Path(__file__).parent / "results" / "gpu.json"
SECONDS: Final = 5.0
PICTURES: Final = 64
CONCURRENCY: Final = 256

Row = dict[str, Any]


def row(name: str, value: float, unit: str, bar: float | None, below: bool = False) -> Row:
    """A figure, and whether it is on the right side of its bar."""
    met = None if bar is None else (value <= bar if below else value >= bar)
    return {"name": name, "value": round(value, 3), "unit": unit, "bar": bar, "met": met}


def matrix_rate() -> float:
    """Floating-point operations a second of a large bf16 matrix product, the best of five."""
    size, rounds = 8192, 20
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    a @ b
    best = 0.0
    for _ in range(5):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(rounds):
            a @ b
        torch.cuda.synchronize()
        best = max(best, rounds * 2 * size**3 / (time.perf_counter() - begun))
    return best


def operations(encoder: Encoder) -> float:
    """Floating-point operations of one image, counted by torch on a plain pass."""
    from torch.utils.flop_counter import FlopCounterMode

    spec = encoder.info.image
    pixels = torch.zeros(
        (1, 3, spec.height, spec.width), dtype=torch.uint8, device=encoder.info.device
    )
    counter = FlopCounterMode(display=False)
    torch.backends.mha.set_fastpath_enabled(False)  # its one operation would count for nothing
    try:
        with counter:
            encoder._vision.rows(pixels)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return float(counter.get_total_flops())


def encoder_rate(encoder: Encoder, batch: int) -> float:
    """Images a second with two batches in flight, host to host."""
    spec = encoder.info.image
    dice = np.random.default_rng(0)
    images = [dice.integers(0, 256, (3, spec.height, spec.width), np.uint8) for _ in range(batch)]
    waiting = [encoder.submit_images(images) for _ in range(2)]
    done, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < SECONDS:
        waiting.pop(0).result()
        done += batch
        waiting.append(encoder.submit_images(images))
    for future in waiting:
        future.result()
    return (done + 2 * batch) / (time.perf_counter() - begun)


def one_by_one(encoder: Encoder) -> float:
    """Median milliseconds of one image, host to host."""
    spec = encoder.info.image
    image = np.zeros((3, spec.height, spec.width), np.uint8)
    times = []
    for _ in range(300):
        begun = time.perf_counter()
        encoder.submit_images([image]).result()
        times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times[50:])


async def requests(
    encoder: Encoder, files: list[bytes], connections: int, threads: int = 1
) -> tuple[float, float]:
    """Decoded, batched and encoded pictures a second, and the median milliseconds of one."""
    decoder = Decoder(encoder.info.image, ImageLimits(), threads, 4 * connections)
    policy = BatchPolicy(max_batch=64, max_queue=4 * connections, in_flight=encoder.info.in_flight)
    batcher: Any = Batcher(encode_images(encoder), policy)
    times: list[float] = []
    end = time.perf_counter() + SECONDS

    async def client(number: int) -> None:
        while time.perf_counter() < end:
            begun = time.perf_counter()
            decoded = await decoder.decode(files[(number + len(times)) % len(files)])
            await batcher.submit(decoded.pixels)
            times.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*(client(n) for n in range(connections)))
    rate = len(times) / (time.perf_counter() - begun)
    decoder.close()
    return rate, 1000 * statistics.median(times)


def worker(source: str, files: list[bytes], workers: int, start: Any, rates: Any) -> None:
    """One of several processes on one GPU."""
    encoder = load(source, device="cuda")
    start.wait(timeout=300)
    threads = max(1, (os.cpu_count() or 1) // workers)
    rates.put(asyncio.run(requests(encoder, files, CONCURRENCY, threads))[0])
    encoder.close()


def together(source: str, files: list[bytes], workers: int) -> float:
    """Pictures a second of several processes."""
    context = multiprocessing.get_context("spawn")
    start, rates = context.Barrier(workers), context.Queue()
    processes = [
        context.Process(target=worker, args=(source, files, workers, start, rates), daemon=True)
        for _ in range(workers)
    ]
    for process in processes:
        process.start()
    total = sum(rates.get(timeout=300) for _ in processes)
    for process in processes:
        process.join()
    return float(total)


def decode_rate(encoder: Encoder, files: list[bytes]) -> float:
    """Pictures a second that all cores decode with nothing else to do."""
    spec, limits = encoder.info.image, ImageLimits()
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        done, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < SECONDS:
            list(pool.map(lambda data: decode(data, spec, limits), files))
            done += len(files)
    return done / (time.perf_counter() - begun)


def cold_seconds(encoder: Encoder, labels: int) -> float:
    """Seconds to embed labels in the 80 ImageNet templates, nothing cached."""
    plenty = 10**10
    store = TwoLevels(ByteLru(plenty), MemoryStore().vectors, encoder.info.embedding_width)
    ensemble = Ensemble(encoder, store, plenty)
    templates = template_sets()["imagenet"].templates
    concepts = [Concept((name,), templates) for name in presets()["imagenet-1k"][:labels]]
    begun = time.perf_counter()
    asyncio.run(ensemble.vectors(concepts))
    return time.perf_counter() - begun


def measured(say: Callable[..., None], workers: list[int]) -> None:
    """Every figure, as it is measured: name, value, unit, and its bar."""
    files = [jpeg(SMALL, seed) for seed in range(PICTURES)]
    rate = matrix_rate()
    say("measured bf16 matrix rate", rate / 1e12, "TFLOP/s")
    with tempfile.TemporaryDirectory() as folder:
        large = load(random_checkpoint("ViT-L-14", Path(folder)), device="cuda", max_batch=256)
        images = encoder_rate(large, 256)
        say("ViT-L-14 encoder, batch 256", images, "images/s")
        share = 100 * images * operations(large) / rate
        say("ViT-L-14 encoder, batch 256, share of the measured bf16 matrix rate", share, "%", 45)
        large.close()
    with tempfile.TemporaryDirectory() as folder:
        source = random_checkpoint("ViT-B-32", Path(folder))
        encoder = load(source, device="cuda")
        recorded = encoder._fast is not None
        say("CUDA graphs recorded", float(recorded), "")
        say("encoding within it", one_by_one(encoder), "ms", 1.5, below=True)
        for batch in (1, 8, 32, 64):
            say(
                f"ViT-B-32 encoder, batch {batch}",
                encoder_rate(encoder, batch),
                "images/s",
            )
        say(
            "p50 of one request in process, 1 caller",
            asyncio.run(requests(encoder, files, 1))[1],
            "ms",
            6,
            below=True,
        )
        say(
            "cold build of 1,000 labels x 80 templates, ViT-B-32",
            cold_seconds(encoder, 1000),
            "s",
            3,
            below=True,
        )
        decoding = decode_rate(encoder, files)
        say("decoding alone, all cores", decoding, "images/s")
        encoder.close()
        rates = {n: together(source, files, n) for n in workers}
        for n, found in rates.items():
            say(f"end to end, {n} workers", found, "images/s")
        best = 100 * max(rates.values()) / decoding
        say(
            "ViT-B-32 end to end at the best worker count, share of what decoding allows",
            best,
            "%",
            90,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks.gpu needs a CUDA device; none was found")
    rows: list[Row] = []

    def say(name: str, value: float, unit: str, bar: float | None = None, **side: bool) -> None:
        found = row(name, value, unit, bar, **side)
        rows.append(found)
        print(json.dumps(found), flush=True)
        document = {
            "what": "a GPU: encoder, end to end, one request, a cold label set",
            "date": datetime.now(UTC).date().isoformat(),
            "device": torch.cuda.get_device_name(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "rows": rows,
        }
        args.out.write_text(json.dumps(document, indent=2) + "\n")

    measured(say, args.workers)


if __name__ == "__main__":
    main()
