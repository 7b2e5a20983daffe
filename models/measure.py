"""Choose by measuring: what forward passes of the image tower cost on this machine.

Precision, backend and images per pass are compared by the CPU time of all threads, which others on
the machine disturb little; threads that wait for each other spin, so that poor use of many cores
shows in it, too. Numbers of threads differ by the clock alone.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np

from models.info import Precision

Run = Callable[[Any], object]
Key = TypeVar("Key")

# images of a pass
SIZES: Final = (1, 2, 4, 8, 16, 32)
# images of a batch, by which everything but the images of a pass is chosen
BATCHES: Final = (1, 8, 32)
# all sizes of all candidates in turn, so that a busy moment meets all; the best pass of each counts
ROUNDS: Final = 4
# for each candidate, half of them for the first round; a slow tower stops at a smaller size
SECONDS: Final = 6.0
# what a larger pass (it takes more memory and makes others wait), a lower precision or more threads
# (decoding lacks them) must gain
GAIN: Final = 1.1
# what torch must gain where batches count, for 800 MB in each process and a start of seconds
GAIN_OF_TORCH: Final = 1.15


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of all cores together, and by the clock."""

    cpu: float
    wall: float

    def best(self, other: "Cost") -> "Cost":
        """The lower of each."""
        return Cost(min(self.cpu, other.cpu), min(self.wall, other.wall))

    def each(self, images: int) -> "Cost":
        """Per image."""
        return Cost(self.cpu / images, self.wall / images)


# the cost per image by the number of images
Costs = Mapping[int, Cost]


def costs(
    runs: Mapping[Key, Run], shape: tuple[int, int], sizes: Sequence[int] = SIZES
) -> Mapping[Key, Costs]:
    """What an image costs in forward passes of so many images (3, *shape) uint8.

    All candidates are timed at the same sizes: the smallest one at least.
    """
    dice, start, seconds = np.random.default_rng(0), time.perf_counter(), SECONDS * len(runs)
    batches: dict[int, Any] = {}
    best: dict[tuple[Key, int], Cost] = {}
    image = 0.0  # seconds that one takes with all candidates
    for size in sizes:
        if batches and time.perf_counter() - start + 2 * size * image > seconds / 2:
            break
        batches[size] = dice.integers(0, 256, (size, 3, *shape), np.uint8)
        for key, run in runs.items():
            best[key, size] = _timed(run, batches[size])
        image = sum(best[key, size].wall for key in runs) / size
    for _ in range(ROUNDS - 1):
        for size, batch in batches.items():
            if time.perf_counter() - start > seconds:
                break
            for key, run in runs.items():
                best[key, size] = best[key, size].best(_timed(run, batch))
    return {key: {size: best[key, size].each(size) for size in batches} for key in runs}


def images_at_once(passes: Costs) -> int:
    """The smallest size that is nearly as cheap as the cheapest one."""
    best = min(cost.cpu for cost in passes.values())
    return next(size for size in sorted(passes) if passes[size].cpu <= GAIN * best)


def in_passes(passes: Costs, at_once: int) -> Costs:
    """What an image of BATCHES costs where larger ones run in passes of `at_once`."""
    return {
        batch: passes[min(batch, at_once)] for batch in BATCHES if min(batch, at_once) in passes
    }


def fastest_precision(measured: Mapping[Precision, Costs]) -> Precision:
    """fp32, or what is clearly faster: by the geometric mean over BATCHES."""
    means = {
        precision: math.exp(sum(math.log(cost.cpu) for cost in batches.values()) / len(batches))
        for precision, batches in measured.items()
    }
    best = min(means, key=lambda precision: means[precision])
    exact = means.get("fp32")
    return "fp32" if exact is not None and exact < GAIN * means[best] else best


def torch_is_worth_it(torch: Costs, openvino: Costs) -> bool:
    """Whether torch is clearly faster with every batch, and no slower with a single image.

    Where a size was not measured, because the tower is slow, nothing says so.
    """
    if any(batch not in costs for batch in BATCHES for costs in (torch, openvino)):
        return False
    gains = {batch: openvino[batch].cpu / torch[batch].cpu for batch in BATCHES}
    return all(gain >= (1 if batch == 1 else GAIN_OF_TORCH) for batch, gain in gains.items())


def fewest_threads(measured: Mapping[int, Costs]) -> int:
    """The fewest threads that are nearly as fast, by the clock, as the fastest at every size.

    The most where none are.
    """
    most = max(measured)
    best = {size: min(costs[size].wall for costs in measured.values()) for size in measured[most]}
    for threads in sorted(measured):
        if all(cost.wall <= GAIN * best[size] for size, cost in measured[threads].items()):
            return threads
    return most


def _timed(run: Run, batch: Any) -> Cost:
    """Of the second of two passes: one of another size than the last is prepared first."""
    run(batch)
    cpu, wall = time.process_time(), time.perf_counter()
    run(batch)
    return Cost(time.process_time() - cpu, time.perf_counter() - wall)
