"""Which kernels of OpenVINO run the image tower, and what they take. Knows nothing of the service.

On one thread, so that the times of kernels add up, and can stand beside rates of one thread.
"""

import time
from collections import Counter
from typing import Any, Final

import numpy as np

from benchmarks.checkpoint import open_clip_folder
from benchmarks.limit.cpu import matrix_seconds
from benchmarks.record import Cell, Result
from benchmarks.rounds import Effort, figure, seconds_of
from models import processor, torch_loader
from models.device import openvino_core
from models.info import Precision
from models.openvino_towers import HINTS
from models.tracing import image_graph

BATCHES: Final = (1, 32)
# kernels below this share of a pass are summed up
LEAST: Final = 0.01
COPIED: Final = 256_000_000


def kernels(effort: Effort) -> Result:
    """ViT-B-32 in the precision that the processor does fast."""
    precision: Precision = "bf16" if processor.has_fast_bf16() else "fp32"
    parts = torch_loader.read(
        "ViT-B-32", f"local-dir:{open_clip_folder()}", "cpu", precision, "openvino"
    )
    weights = sum(tensor.numel() for tensor in parts.model.visual.state_dict().values())
    weights *= 4 if precision == "fp32" else 2
    rows: list[list[Cell]] = []
    tower = compiled(parts, precision)
    for batch in BATCHES:
        rows += by_kernel(tower, batch, parts.shape, effort.seconds)
    product = matrix_seconds(precision, max(1.0, effort.seconds / 2))
    rate = copy_rate(effort.rounds)
    for size, bound, seconds in (
        ("any", "(its operations at the rate of a matrix product)", product),
        (1, "(the bytes of its weights at the rate of a copy)", weights / rate),
    ):
        rows.append([size, bound, figure(1000 * seconds), ""])
    notes = [
        "By OpenVINO's own counters (PERF_COUNT), which slow a pass down a little.",
        f"Weights: {weights / 1e6:,.0f} MB, which a pass of one image reads once; a copy of "
        f"{COPIED / 1e6:,.0f} MB copies {rate / 1e9:.1f} GB/s.",
    ]
    title = f"Kernels of the ViT-B-32 image tower in OpenVINO, {precision}, one thread"
    return Result(title, ["batch", "kernel", "ms per image", "share"], rows, notes)


def compiled(parts: torch_loader.Parts, precision: Precision) -> Any:
    """The image tower as OpenVINO serves it, on one thread, with its counters on."""
    options = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": 1,
        "PERF_COUNT": True,
    }
    graph = image_graph(parts.vision(), parts.shape)
    return openvino_core().compile_model(graph, "CPU", options)


def by_kernel(tower: Any, batch: int, shape: tuple[int, int], seconds: float) -> list[list[Cell]]:
    """Rows for passes of `batch` images: the kernels, the most expensive one first."""
    pixels = np.random.default_rng(0).integers(0, 256, (batch, 3, *shape), np.uint8)
    request = tower.create_infer_request()
    request.infer([pixels])  # prepares this size
    spent: Counter[str] = Counter()
    passes, end = 0, time.perf_counter() + seconds
    while not passes or time.perf_counter() < end:
        request.infer([pixels])
        passes += 1
        for node in request.profiling_info:
            spent[f"{node.node_type}, {node.exec_type}"] += node.real_time.total_seconds()
    whole = spent.total()
    large = [(name, took) for name, took in spent.most_common() if took >= LEAST * whole]
    rest = whole - sum(took for _, took in large)

    def row(name: str, took: float) -> list[Cell]:
        each = figure(1000 * took / passes / batch)
        return [batch, name, each, f"{100 * took / whole:.0f} %"]

    return [row(*kernel) for kernel in [*large, ("all others", rest), ("all", whole)]]


def copy_rate(rounds: int) -> float:
    """Bytes a second that one thread copies from memory to memory, at best."""
    source, target = np.ones(COPIED, np.uint8), np.zeros(COPIED, np.uint8)
    return COPIED / min(seconds_of(lambda: np.copyto(target, source)) for _ in range(rounds + 1))
