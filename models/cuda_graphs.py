"""Recorded forward passes on a GPU: one CUDA graph for each of a ladder of batch sizes.

A forward pass of a small batch is over before its hundreds of kernels have been launched one by
one; a recorded one is launched at once. Pixels are copied on a stream of their own, from pinned
memory, while the batch before is computed. Knows nothing of the tower but its `rows`.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Final

import numpy as np
import torch

from models.errors import first_line
from models.image_tower import VisionTower
from models.info import Floats, Pixels

# 1 - cosine between a recorded pass and a plain one: the same kernels, up to their choice by size
TOLERANCE: Final = 1e-3

# passes before the recording, in which libraries choose their kernels and take their memory
WARM_UPS: Final = 3

# the largest recorded batch: beyond it a pass takes longer than its launches, and each size holds
# memory of its own, pinned and on the device
LARGEST: Final = 256

log = logging.getLogger("openvocab.models")


def ladder(most: int) -> tuple[int, ...]:
    """Batch sizes to record: powers of two, and `most` itself."""
    return tuple(sorted({1 << n for n in range(most.bit_length()) if 1 << n < most} | {most}))


def rung(sizes: tuple[int, ...], count: int) -> int:
    """The smallest recorded size that holds `count` images."""
    return next(size for size in sizes if size >= count)


@dataclass(frozen=True, slots=True)
class _Slot:
    """Memory of one batch on its way: pinned on the host, and where it lands on the device."""

    pinned: torch.Tensor
    landed: torch.Tensor
    answer: torch.Tensor
    done: torch.cuda.Event


@dataclass(frozen=True, slots=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    pixels: torch.Tensor
    rows: torch.Tensor
    slots: Iterator[_Slot]


class Graphs:
    """Recorded passes of one tower; `launch` is called by one thread only."""

    def __init__(
        self, tower: VisionTower, shape: tuple[int, int], most: int, in_flight: int
    ) -> None:
        """`shape` (H, W) of the pixels; `in_flight` batches may be launched and not fetched.

        Raises:
            RuntimeError: the recording failed, or does not give what the plain pass gives.
        """
        self.sizes = ladder(most)
        self.most = most
        self._tower = tower
        self._computing = torch.cuda.Stream(tower.device)  # type: ignore[no-untyped-call]
        self._copying = torch.cuda.Stream(tower.device)  # type: ignore[no-untyped-call]
        pool = torch.cuda.graph_pool_handle()
        # the largest first: the smaller ones fit into its memory
        self._recorded = {
            size: self._record(size, shape, in_flight, pool) for size in reversed(self.sizes)
        }
        self._check(shape)

    def launch(self, batch: Pixels) -> Callable[[], Floats]:
        """(B, 3, H, W), B up to the largest size; what is returned waits for the (B, D) rows."""
        count = len(batch)
        recorded = self._recorded[rung(self.sizes, count)]
        slot = next(recorded.slots)
        slot.pinned[:count].copy_(torch.from_numpy(batch))
        with torch.cuda.stream(self._copying):
            slot.landed.copy_(slot.pinned, non_blocking=True)
        self._computing.wait_stream(self._copying)
        with torch.cuda.stream(self._computing):
            recorded.pixels.copy_(slot.landed)
            recorded.graph.replay()
            slot.answer.copy_(recorded.rows, non_blocking=True)
            slot.done.record(self._computing)

        def fetch() -> Floats:
            slot.done.synchronize()
            return slot.answer[:count].numpy().copy()

        return fetch

    def _record(self, size: int, shape: tuple[int, int], in_flight: int, pool: Any) -> _Recorded:
        device = self._tower.device
        pixels = torch.zeros((size, 3, *shape), dtype=torch.uint8, device=device)
        self._computing.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._computing):
            for _ in range(WARM_UPS):
                self._tower.rows(pixels)
        self._computing.synchronize()
        graph = torch.cuda.CUDAGraph()
        # "global", the default, fails what other models do meanwhile: they take memory, too
        mode = "thread_local"
        with torch.cuda.graph(graph, pool=pool, stream=self._computing, capture_error_mode=mode):
            rows = self._tower.rows(pixels)
        slots = [
            _Slot(
                pinned=torch.zeros(pixels.shape, dtype=torch.uint8, pin_memory=True),
                landed=torch.zeros_like(pixels),
                answer=torch.zeros(rows.shape, pin_memory=True),
                done=torch.cuda.Event(),  # type: ignore[no-untyped-call]
            )
            for _ in range(in_flight)
        ]
        return _Recorded(graph, pixels, rows, cycle(slots))

    def _check(self, shape: tuple[int, int]) -> None:
        dice = np.random.default_rng(0)
        for size in self.sizes:
            batch = dice.integers(0, 256, (size, 3, *shape), np.uint8)
            plain = self._tower.rows(torch.from_numpy(batch).to(self._tower.device)).cpu().numpy()
            # twice: a recording that reads what only its first run wrote is right once
            for _ in range(2):
                apart = float(np.abs(1 - (self.launch(batch)() * plain).sum(1)).max())
                if not apart < TOLERANCE:
                    raise RuntimeError(f"the recorded pass of {size} images is {apart:.1e} off")


def record(tower: VisionTower, shape: tuple[int, int], most: int, in_flight: int) -> Graphs | None:
    """Graphs of a tower on a GPU, or None where it cannot be recorded: plain passes serve then."""
    if tower.device.type != "cuda":
        return None
    try:
        return Graphs(tower, shape, min(most, LARGEST), in_flight)
    except RuntimeError as error:
        why = first_line(error)
        log.warning("no CUDA graphs (%s); forward passes are launched one by one", why)
        return None
