"""Why a forward pass in another thread than the main one may be slower: one hypothesis a row."""

import contextlib
import os
import statistics
import sys
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from benchmarks.checkpoint import open_clip_folder
from benchmarks.levers.worker import Worker, working
from benchmarks.record import Cell, Result
from benchmarks.rounds import Effort, Spread, figure, in_turns

PASSIVE: Final = {"OMP_WAIT_POLICY": "passive"}
ONE_ARENA: Final = {"MALLOC_ARENA_MAX": "1"}
# glibc: give nothing back to the system between passes (mallopt(3))
KEPT: Final = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}


@dataclass(frozen=True, slots=True)
class Case:
    """What runs where, as thread_worker.py takes it, and with which environment variables."""

    name: str
    mode: str
    env: dict[str, str] = field(default_factory=dict)


CASES: Final = (
    Case("main thread", "main"),
    Case("another thread, the only one that runs torch", "other"),
    Case("another thread, in turn with the main one (two OpenMP pools)", "turns"),
    Case("the same, idle OpenMP threads sleep at once", "turns", PASSIVE),
    Case("another thread, gradients recorded (inference mode is per thread)", "grad"),
    Case("another thread, a third one busy in Python (interpreter lock)", "other+busy"),
    Case("the same, switch interval 0.1 ms instead of 5 ms (as in the service)", "other+quick"),
    Case("main thread, another busy in Python", "main+busy"),
    Case("another thread, a third one decodes JPEGs", "other+decode"),
    Case("main thread, another decodes JPEGs", "main+decode"),
    Case("another thread, one malloc arena for all", "other", ONE_ARENA),
    Case("another thread, freed memory is kept", "other", KEPT),
    Case("main thread, freed memory is kept", "main", KEPT),
)


def threads(effort: Effort) -> Result:
    """A bf16 pass of the image tower at batch 1, in a process for each case, in turns."""
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(_started(case)) for case in CASES]
        for worker in workers:
            worker.answer()
        seconds = max(0.5, effort.seconds / 4)
        turns = {
            case.name: partial(worker.ask, str(seconds))
            for case, worker in zip(CASES, workers, strict=True)
        }
        answers_by_case = in_turns(turns, effort.rounds)
    first = statistics.median(answer["seconds"] for answer in answers_by_case[CASES[0].name])
    rows = [_row(name, answers, first) for name, answers in answers_by_case.items()]
    columns = [
        "where", "ms, median (range)", "against the main thread", "cores busy", "page faults",
        "torch threads",
    ]  # fmt: skip
    notes = [
        "Cores busy: CPU time divided by wall time. Page faults: minor faults per pass.",
        "A pass takes the interpreter lock for each operation. A thread that is busy in Python, "
        "such as an event loop under load, releases it only after the switch interval: that is "
        "what slows a pass down, not the thread it runs in.",
    ]
    return Result("A forward pass in another thread, ViT-B-32, bf16, batch 1", columns, rows, notes)


def _row(name: str, answers: list[dict[str, Any]], first: float) -> list[Cell]:
    spread = Spread.of(1000 * answer["seconds"] for answer in answers)
    busy, faults = (statistics.median(answer[x] for answer in answers) for x in ("cores", "faults"))
    times = f"{figure(spread.median / 1000 / first)}x"
    return [name, spread.text(), times, figure(busy), round(faults), answers[0]["threads"]]


def _started(case: Case) -> "contextlib.AbstractContextManager[Worker]":
    command = [sys.executable, "-m", "benchmarks.levers.thread_worker", case.mode]
    return working(command, {**os.environ, **case.env, "MODEL": str(open_clip_folder())})
