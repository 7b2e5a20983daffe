"""Backends for the image tower, int8 among them, against torch. Knows nothing of the service.

Each backend runs in a process of its own, asked in turns: thread pools of several in one process
would spin against each other.
"""

import contextlib
import os
import statistics
from functools import partial
from typing import Any, Final

import numpy as np

from benchmarks.checkpoint import open_clip_folder
from benchmarks.environments import PEERS, clean_env, environment
from benchmarks.folders import cache
from benchmarks.levers.worker import Worker, WorkerEnded, working
from benchmarks.record import Cell, Result
from benchmarks.rounds import Effort, Spread, figure, in_turns

REFERENCE: Final = "torch fp32"
BACKENDS: Final = (
    REFERENCE, "torch bf16", "openvino fp32", "openvino bf16", "openvino int8", "onnxruntime fp32",
)  # fmt: skip
BATCHES: Final = (1, 8, 32)
MOST_PASSES: Final = 50


def backends(effort: Effort) -> Result:
    """ViT-B-32's image tower at several batch sizes. Raises NoEnvironment."""
    rows: list[list[Cell]] = []
    notes: list[str] = []
    with contextlib.ExitStack() as stack:
        running: dict[str, Worker] = {}
        for name in BACKENDS:
            worker = stack.enter_context(_started(name))
            try:
                # one after the other: the first exports what the others read
                worker.answer()
            except WorkerEnded as ended:
                notes.append(f"{name} does not run: {ended}.")
            else:
                running[name] = worker
        for batch in BATCHES:
            first = {name: worker.ask(f"{batch} 1") for name, worker in running.items()}
            slowest = max(answer["seconds"][0] for answer in first.values())
            passes = round(effort.seconds / slowest / len(running))
            turns = {
                name: partial(_seconds, worker, batch, max(1, min(passes, MOST_PASSES)))
                for name, worker in running.items()
            }
            outputs = {name: np.array(answer["rows"]) for name, answer in first.items()}
            rows += _rows(batch, in_turns(turns, effort.rounds), outputs)
    columns = [
        "batch",
        "backend",
        "ms per image, median (range)",
        "speed-up over torch fp32",
        "largest 1-cos",
    ]
    title = f"Backends for the ViT-B-32 image tower, {_threads()} threads"
    return Result(title, columns, rows, notes)


def _seconds(worker: Worker, batch: int, passes: int) -> float:
    return float(statistics.median(worker.ask(f"{batch} {passes}")["seconds"])) / batch


def _rows(batch: int, times: dict[str, list[float]], outputs: dict[str, Any]) -> list[list[Cell]]:
    expected = outputs[REFERENCE]
    reference = statistics.median(times[REFERENCE])
    rows: list[list[Cell]] = []
    for name, seconds in times.items():
        output = outputs[name]
        norms = np.linalg.norm(output, axis=1) * np.linalg.norm(expected, axis=1)
        off = float((1 - (output * expected).sum(1) / norms).max())
        spread = Spread.of(1000 * value for value in seconds)
        faster = f"{figure(1000 * reference / spread.median)}x"
        apart = "" if name == REFERENCE else f"{max(off, 0):.0e}"
        rows.append([batch, name, spread.text(), faster, apart])
    return rows


def _started(name: str) -> "contextlib.AbstractContextManager[Worker]":
    command = [str(environment("backends") / "python"), str(PEERS / "backends" / "worker.py")]
    onnx = cache("ViT-B-32") / "image-tower.onnx"
    env = clean_env(
        MODEL=str(open_clip_folder()), BACKEND=name, ONNX=str(onnx), THREADS=str(_threads())
    )
    return working(command, env)


def _threads() -> int:
    return len(os.sched_getaffinity(0))
