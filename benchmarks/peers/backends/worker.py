"""One backend for the image tower of a checkpoint, in a process of its own, timed on request.

Started by the harness with MODEL (an open_clip folder), BACKEND, ONNX (where the exported tower is,
or goes), THREADS. Each line on standard input is `BATCH TIMES`; the answer is a line of JSON: the
seconds of each pass, and the rows of the first one.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch

MODEL = f"local-dir:{os.environ['MODEL']}"
ONNX = Path(os.environ["ONNX"])
THREADS = int(os.environ["THREADS"])
EDGE = 224
CALIBRATED = 64  # pictures that int8 takes its ranges from

Forward = Callable[[Any], Any]


def tower() -> Any:
    model, _, _ = open_clip.create_model_and_transforms(MODEL)
    return model.visual.eval()


def exported() -> str:
    if not ONNX.exists():
        axes = {"pixels": {0: "batch"}, "rows": {0: "batch"}}
        torch.onnx.export(
            tower(), (torch.zeros(2, 3, EDGE, EDGE),), str(ONNX), input_names=["pixels"],
            output_names=["rows"], dynamic_axes=axes, dynamo=False,
        )  # fmt: skip
    return str(ONNX)


def by_torch(precision: str) -> Forward:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    visual = tower().to(dtype)
    return lambda pixels: visual(torch.from_numpy(pixels).to(dtype)).float().numpy()


def by_openvino(precision: str, graph: Any = None) -> Forward:
    import openvino

    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": THREADS,
    }
    compiled = openvino.Core().compile_model(graph or exported(), "CPU", options)
    return lambda pixels: compiled(pixels)[0]


def by_openvino_int8() -> Forward:
    """Weights and activations of 8 bits, by NNCF as it does it for transformers; the rest in bf16.

    Calibrated on other noise than what is timed: random weights have no pictures of their own.
    """
    import nncf
    import openvino

    rng = np.random.default_rng(1)
    noise = [rng.standard_normal((1, 3, EDGE, EDGE), np.float32) for _ in range(CALIBRATED)]
    graph = nncf.quantize(
        openvino.Core().read_model(exported()),
        nncf.Dataset(noise),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=CALIBRATED,
    )
    return by_openvino("bf16", graph)


def by_onnxruntime() -> Forward:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(exported(), options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"pixels": pixels})[0]


BACKENDS: dict[str, Callable[[], Forward]] = {
    "torch fp32": lambda: by_torch("fp32"),
    "torch bf16": lambda: by_torch("bf16"),
    "openvino fp32": lambda: by_openvino("f32"),
    "openvino bf16": lambda: by_openvino("bf16"),
    "openvino int8": by_openvino_int8,
    "onnxruntime fp32": by_onnxruntime,
}


def passes(forward: Forward, batch: int, times: int) -> dict[str, Any]:
    pixels = np.random.default_rng(0).standard_normal((batch, 3, EDGE, EDGE), np.float32)
    rows = forward(pixels)
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        forward(pixels)
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "rows": rows.tolist()}


def main() -> None:
    torch.set_num_threads(THREADS)
    forward = BACKENDS[os.environ["BACKEND"]]()
    print(json.dumps({"ready": True}), flush=True)
    # not before: the export needs what inference mode leaves out
    with torch.inference_mode():
        for line in sys.stdin:
            batch, times = map(int, line.split())
            print(json.dumps(passes(forward, batch, times)), flush=True)


if __name__ == "__main__":
    main()
