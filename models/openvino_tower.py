"""The image tower compiled by OpenVINO for a CPU. Optional: without the package, torch serves.

Knows the tower by its inputs and outputs only.
"""

import importlib.util
import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from models.image_tower import VisionTower
from models.info import Precision

Pixels = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]

# 1 - cosine against torch in float32: rounding in another order, or in 8 bits of mantissa
TOLERANCE: Final[dict[Precision, float]] = {"fp32": 1e-5, "bf16": 5e-3}

HINTS: Final[dict[Precision, str]] = {"fp32": "f32", "bf16": "bf16"}

EXAMPLES: Final = 3

log = logging.getLogger("openvocab.models")


def available() -> bool:
    """Whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


class CompiledTower:
    """Pixels in, unit rows out; called by one thread only."""

    # images in one call: any number
    most: Final = sys.maxsize

    def __init__(
        self, tower: VisionTower, shape: tuple[int, int], precision: Precision, threads: int
    ) -> None:
        """`tower` holds float32 weights; `shape` (H, W); `threads` 0: as many as there are cores.

        Raises:
            RuntimeError: the tower cannot be compiled, or gives other rows than torch.
        """
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        example = _pictures(EXAMPLES, shape)
        # not by convert_model, which tells its makers of each use
        frontend = FrontEndManager().load_by_framework("pytorch")
        with warnings.catch_warnings():
            # torch deprecates tracing, which OpenVINO still uses
            warnings.simplefilter("ignore")
            rows, pixels = _Rows(tower), torch.from_numpy(example)
            decoder = TorchScriptPythonDecoder(rows, example_input=pixels[:2])
        traced = frontend.convert(frontend.load(decoder))
        traced.reshape([-1, 3, *shape])
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            # decoding shares the cores
            "ENABLE_CPU_PINNING": False,
        }
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        self._compiled = openvino.Core().compile_model(traced, "CPU", options)
        expected = tower.rows(torch.from_numpy(example)).numpy()
        for count in range(1, EXAMPLES + 1):  # a trace can hold on to the size it was made with
            apart = np.abs(1 - (self(example[:count]) * expected[:count]).sum(1)).max()
            if not apart < TOLERANCE[precision]:
                raise RuntimeError(f"its rows are {apart:.1e} off")

    def __call__(self, batch: Pixels) -> Vectors:
        """(B, 3, H, W) uint8 -> (B, D) float32 of unit length."""
        rows: Vectors = self._compiled(batch)[0]
        return rows

    def launch(self, batch: Pixels) -> Callable[[], Vectors]:
        """The rows, computed at once and fetched later."""
        rows = self(batch)
        return lambda: rows


def compile_tower(
    tower: VisionTower, shape: tuple[int, int], precision: Precision, threads: int
) -> CompiledTower | None:
    """The compiled tower, or None where this one cannot be compiled: torch serves then."""
    try:
        return CompiledTower(tower, shape, precision, threads)
    except Exception as error:  # a compiler of strangers' graphs fails in many ways
        first = (str(error).splitlines() or [type(error).__name__])[0]
        log.warning("OpenVINO cannot compile the image tower (%s); torch serves it", first)
        return None


class _Rows(torch.nn.Module):
    """A tower's `rows` as a module, which is what can be traced."""

    def __init__(self, tower: VisionTower) -> None:
        super().__init__()
        self._rows = tower.traceable

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._rows(pixels)


def _pictures(count: int, shape: tuple[int, int]) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (count, 3, *shape), np.uint8)
