"""What a GPU is used for: encoder, end to end, one request, a cold label set, memory, peers.

    python -m benchmarks.gpu

Runs from the repository with torch, open_clip and what `app` imports. Weights are random: speed
does not depend on their values. "In process" is decoding, batching, encoding and scoring without a
network; "over HTTP" is `openvocab serve` with as many workers as `--workers` names, asked on the
same machine. OPENVOCAB_GPU names the device; `cpu` rehearses every step with a small model, and
its figures mean nothing.
"""

import argparse
import asyncio
import io
import json
import multiprocessing
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from app.classify.batching import Batcher, BatchPolicy
from app.classify.embedding import encode_images
from app.classify.templates import presets
from app.images.decode import Decoder, decode
from app.images.limits import ImageLimits
from benchmarks.checkpoint import open_clip_folder, random_checkpoint, transformers_folder
from benchmarks.gpu.memory import after_loads, beside_another, in_own_process, used
from benchmarks.inside import class_vectors, fresh_ensemble, imagenet_templates
from benchmarks.pictures import SMALL, jpeg
from benchmarks.rounds import median_seconds, seconds_of
from benchmarks.servers import free_port, serving
from models.encoder import Encoder
from models.loader import load
from models.torch_towers import TorchImages

DEVICE: Final = os.environ.get("OPENVOCAB_GPU", "cuda")
REHEARSAL: Final = DEVICE == "cpu"
RESULTS: Final = Path(__file__).parents[1] / "results" / "gpu.json"
SECONDS: Final = 0.3 if REHEARSAL else 5.0
PICTURES: Final = 4 if REHEARSAL else 64
CONCURRENCY: Final = 4 if REHEARSAL else 256
LOADS: Final = 3 if REHEARSAL else 100
LABELS: Final = ["cat", "dog", "car", "tree", "house", "boat", "chair", "bird", "shoe", "cup"]

Row = dict[str, Any]


def row(name: str, value: float, unit: str, bar: float | None, below: bool = False) -> Row:
    """A figure, and whether it is on the right side of its bar."""
    met = None if bar is None else (value <= bar if below else value >= bar)
    return {"name": name, "value": round(value, 3), "unit": unit, "bar": bar, "met": met}


def settle() -> None:
    """Wait until the device has done what it was given."""
    if not REHEARSAL:
        torch.cuda.synchronize()


def matrix_rate() -> float:
    """Floating-point operations a second of a large bf16 matrix product, the best of five."""
    size, rounds = (512, 2) if REHEARSAL else (8192, 20)
    a, b = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    a @ b
    best = 0.0
    for _ in range(5):
        settle()
        start = time.perf_counter()
        for _ in range(rounds):
            a @ b
        settle()
        best = max(best, rounds * 2 * size**3 / (time.perf_counter() - start))
    return best


def torch_images(encoder: Encoder) -> TorchImages:
    """Its image tower, which on a GPU is in torch."""
    assert isinstance(encoder.images, TorchImages)
    return encoder.images


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
            torch_images(encoder).vision.rows(pixels)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return float(counter.get_total_flops())


def encoder_rate(encoder: Encoder, batch: int) -> float:
    """Images a second with two batches in flight, host to host."""
    spec = encoder.info.image
    dice = np.random.default_rng(0)
    images = [dice.integers(0, 256, (3, spec.height, spec.width), np.uint8) for _ in range(batch)]
    waiting = [encoder.submit_images(images) for _ in range(2)]
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        waiting.pop(0).result()
        count += batch
        waiting.append(encoder.submit_images(images))
    for future in waiting:
        future.result()
    return (count + 2 * batch) / (time.perf_counter() - start)


def one_by_one(encoder: Encoder) -> float:
    """Median milliseconds of one image, host to host."""
    spec = encoder.info.image
    image = np.zeros((3, spec.height, spec.width), np.uint8)
    times = []
    for _ in range(8 if REHEARSAL else 300):
        start = time.perf_counter()
        encoder.submit_images([image]).result()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[len(times) // 6 :])


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
            start = time.perf_counter()
            decoded = await decoder.decode(files[(number + len(times)) % len(files)])
            await batcher.submit(decoded.pixels)
            times.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(client(n) for n in range(connections)))
    rate = len(times) / (time.perf_counter() - start)
    decoder.close()
    return rate, 1000 * statistics.median(times)


def worker(source: str, files: list[bytes], workers: int, start: Any, rates: Any) -> None:
    """One of several processes on one GPU."""
    encoder = load(source, device=DEVICE, backend="torch")
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
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            list(pool.map(lambda data: decode(data, spec, limits), files))
            count += len(files)
    return count / (time.perf_counter() - start)


def cold_seconds(encoder: Encoder, labels: int) -> float:
    """Seconds to embed labels in the 80 ImageNet templates, nothing cached."""
    ensemble, names = fresh_ensemble(encoder), presets()["imagenet-1k"].labels[:labels]
    return seconds_of(partial(class_vectors, ensemble, names, imagenet_templates()))


def over_http(source: str, files: list[bytes], workers: int) -> float:
    """Answers a second of `openvocab serve` to many connections that send a picture each time."""
    settings = {
        "device": DEVICE, "backend": "torch", "store_url": "memory://" if workers == 1 else "",
        "image_cache_bytes": 0, "log_level": "warning",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "OPENVOCAB_DATA_DIR": folder}
        env |= {
            f"OPENVOCAB_{name.upper()}": str(value)
            for name, value in settings.items()
            if value != ""
        }
        port = free_port()
        command = [sys.executable, "-m", "app", "serve", "--port", str(port), "--model", source]
        command += ["--workers", str(workers)]
        with serving(command, port, Path(folder) / "server.log", env):
            path = "/classify?labels=" + ",".join(LABELS)
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
            requests = [
                f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data for data in files
            ]
            askers = 1 if REHEARSAL else 4
            context = multiprocessing.get_context("spawn")
            with context.Pool(askers) as pool:
                arguments = (port, requests, max(1, CONCURRENCY // askers), 2 * SECONDS)
                return sum(pool.starmap(ask, [arguments] * askers))


def ask(port: int, requests: list[bytes], connections: int, seconds: float) -> float:
    """Answers a second to so many connections of one process; the first third does not count."""

    async def client(number: int, start: float) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        count = turn = 0
        while time.perf_counter() < start + seconds:
            writer.write(requests[(number + turn) % len(requests)])
            turn += 1
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"content-length: (\d+)", head.lower())[1])  # type: ignore[index]
            await reader.readexactly(length)
            if not head.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(head.decode())
            count += time.perf_counter() > start + seconds / 3
        writer.close()
        return count

    async def every() -> float:
        start = time.perf_counter()
        return sum(await asyncio.gather(*(client(n, start) for n in range(connections))))

    return asyncio.run(every()) / (seconds * 2 / 3)


def compiled_rates(encoder: Encoder, batch: int) -> tuple[float, float]:
    """Images a second of the tower alone: by torch.compile, and recorded (or plain on a CPU)."""
    spec = encoder.info.image
    pixels = torch.zeros((batch, 3, spec.height, spec.width), dtype=torch.uint8, device=DEVICE)

    def rate(run: Callable[[], object]) -> float:
        for _ in range(3):
            run()
        settle()
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < SECONDS / 2:
            run()
            settle()
            count += batch
        return count / (time.perf_counter() - start)

    host = pixels.cpu().numpy()
    images = torch_images(encoder)
    recorded = rate(lambda: images.launch(host)())  # noqa: PLW0108
    if REHEARSAL:
        return recorded, recorded  # compiling needs a C++ compiler and a minute
    compiled = torch.compile(torch_images(encoder).vision.rows, mode="reduce-overhead")
    return rate(lambda: compiled(pixels)), recorded


def tutorial_ms(folder: Path, files: list[bytes]) -> float:
    """Median milliseconds of what tutorials do for one picture and ten labels, in fp32."""
    import open_clip

    source = f"local-dir:{folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(source, device=DEVICE)
    model.eval()
    tokenizer = open_clip.get_tokenizer(source)
    prompts = [f"a photo of a {label}." for label in LABELS]

    @torch.no_grad()
    def answer(data: bytes) -> None:
        picture = preprocess(Image.open(io.BytesIO(data)).convert("RGB")).unsqueeze(0).to(DEVICE)
        rows = model.encode_text(tokenizer(prompts).to(DEVICE), normalize=True)
        vector = model.encode_image(picture, normalize=True)
        (model.logit_scale.exp() * vector @ rows.T).softmax(dim=-1)[0].tolist()

    return _median(answer, files)


def pipeline_ms(folder: Path, files: list[bytes]) -> float:
    """The same for transformers' pipeline."""
    from transformers import pipeline

    classifier = pipeline("zero-shot-image-classification", model=str(folder), device=DEVICE)

    def answer(data: bytes) -> None:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        classifier(picture, candidate_labels=LABELS, hypothesis_template="a photo of a {}.")

    return _median(answer, files)


def _median(answer: Callable[[bytes], None], files: list[bytes]) -> float:
    answer(files[0])
    turns = cycle(files)
    return 1000 * median_seconds(lambda: answer(next(turns)), SECONDS)


def memory(say: Callable[..., None]) -> None:
    """What a hundred loads leave, and what two models in a process take; in processes of its own.

    On the device where there is one: a rehearsal has resident memory alone.
    """
    loads = in_own_process(after_loads, "pictogram", DEVICE, LOADS, used(DEVICE).on_device)
    once, last = loads[0], loads[-1]
    beside = beside_another("pictogram", "everyday", DEVICE)
    again, another = "after 100 loads of a model, compared with once", "beyond what each adds alone"
    if not REHEARSAL:
        say(f"memory of the device {again}", last.on_device / once.on_device, "x", 1.05, below=True)
        name = f"memory of the device for two models in a process {another}"
        say(name, beside.on_device, "MB", 60, below=True)
    say(f"resident memory {again}", last.resident / once.resident, "x", 1.05, below=True)
    name = f"resident memory of two models in a process {another}"
    say(name, beside.resident, "MB", 60, below=True)


def measured(say: Callable[..., None], workers: list[int]) -> None:
    """Every figure as it is measured, the most important first: name, value, unit, and its bar."""
    files = [jpeg(SMALL, seed) for seed in range(PICTURES)]
    rate = matrix_rate()
    say("measured bf16 matrix rate", rate / 1e12, "TFLOP/s")
    with tempfile.TemporaryDirectory() as folder:
        large, batch = ("RN50", 2) if REHEARSAL else ("ViT-L-14", 256)
        encoder = load(
            random_checkpoint(large, Path(folder)), device=DEVICE, backend="torch", max_batch=batch
        )
        images = encoder_rate(encoder, batch)
        say(f"{large} encoder, batch {batch}", images, "images/s")
        share = 100 * images * operations(encoder) / rate
        say("ViT-L-14 encoder, batch 256, share of the measured bf16 matrix rate", share, "%", 45)
        encoder.close()
    source = f"local-dir:{open_clip_folder()}"
    encoder = load(source, device=DEVICE, backend="torch")
    say("CUDA graphs recorded", float(torch_images(encoder).recorded is not None), "")
    say("encoding within it", one_by_one(encoder), "ms", 1.5, below=True)
    p50 = asyncio.run(requests(encoder, files, 1))[1]
    say("p50 of one request in process, 1 caller", p50, "ms", 6, below=True)
    cold = cold_seconds(encoder, 2 if REHEARSAL else 1000)
    say("cold build of 1,000 labels x 80 templates, ViT-B-32", cold, "s", 3, below=True)
    decoding = decode_rate(encoder, files)
    say("decoding alone, all cores", decoding, "images/s")
    encoder.close()
    served = {}
    for count in workers:
        served[count] = over_http(source, files, count)
        say(f"over HTTP, {count} workers", served[count], "answers/s")
    best = 100 * max(served.values()) / decoding
    name = "ViT-B-32 over HTTP at the best worker count, share of what decoding allows"
    say(name, best, "%", 90)
    memory(say)
    say("tutorial, one picture and 10 labels, fp32", tutorial_ms(open_clip_folder(), files), "ms")
    say("transformers' pipeline, the same", pipeline_ms(transformers_folder(), files), "ms")
    encoder = load(source, device=DEVICE, backend="torch")
    for batch in (1,) if REHEARSAL else (1, 8, 32, 64):
        say(f"ViT-B-32 encoder, batch {batch}", encoder_rate(encoder, batch), "images/s")
    compiled, recorded = compiled_rates(encoder, 2 if REHEARSAL else 32)
    say("ViT-B-32 tower, batch 32, torch.compile", compiled, "images/s")
    say("ViT-B-32 tower, batch 32, recorded graphs", recorded, "images/s")
    encoder.close()
    for count in workers:
        say(f"in process, {count} workers", together(source, files, count), "images/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1] if REHEARSAL else [4, 8, 1, 2]
    )
    args = parser.parse_args()
    if not REHEARSAL and not torch.cuda.is_available():
        raise SystemExit("benchmarks.gpu needs a CUDA device; OPENVOCAB_GPU=cpu rehearses it")
    rows: list[Row] = []

    def say(name: str, value: float, unit: str, bar: float | None = None, **side: bool) -> None:
        line = row(name, value, unit, bar, **side)
        rows.append(line)
        print(json.dumps(line), flush=True)
        document = {
            "what": "a GPU: encoder, end to end, one request, a cold label set, memory",
            "date": datetime.now(UTC).date().isoformat(),
            "device": "rehearsal on a CPU" if REHEARSAL else torch.cuda.get_device_name(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "rows": rows,
        }
        args.out.write_text(json.dumps(document, indent=2) + "\n")

    measured(say, args.workers)
