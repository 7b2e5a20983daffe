"""Choose by measuring: with how many images a forward pass costs this machine least for each.

What is measured is the CPU time of all threads, which others on the machine disturb little; threads
that wait for each other spin, so that poor use of many cores shows in it, too.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

Run = Callable[[Any], object]

SIZES: Final = (1, 2, 4, 8, 16, 32)
# all sizes in turn, so that a busy moment meets all; the best pass of each counts
ROUNDS: Final = 6
# for all rounds together; a slow tower has fewer of them, or stops at a smaller size
SECONDS: Final = 8.0
# more images at once take more memory and make others wait: that must be worth it
GAIN: Final = 1.1


def seconds_each(run: Run, shape: tuple[int, int]) -> Mapping[int, float]:
    """CPU seconds per image of forward passes of so many images (3, *shape) uint8."""
    dice, start = np.random.default_rng(0), time.perf_counter()
    batches: dict[int, Any] = {}
    best: dict[int, float] = {}
    for size in SIZES:
        batches[size] = dice.integers(0, 256, (size, 3, *shape), np.uint8)
        run(batches[size])  # a new size is prepared first
        best[size] = _timed(run, batches[size])
        if time.perf_counter() - start > SECONDS / 4:
            break
    for _ in range(ROUNDS - 1):
        for size, batch in batches.items():
            if time.perf_counter() - start > SECONDS:
                break
            best[size] = min(best[size], _timed(run, batch))
    return {size: seconds / size for size, seconds in best.items()}


def images_at_once(seconds: Mapping[int, float]) -> int:
    """The smallest size that is nearly as cheap as the cheapest one."""
    best = min(seconds.values())
    return next(size for size in sorted(seconds) if seconds[size] <= GAIN * best)


def _timed(run: Run, batch: Any) -> float:
    start = time.process_time()
    run(batch)
    return time.process_time() - start
