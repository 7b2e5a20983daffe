"""Both towers compiled by OpenVINO for a CPU or a GPU of Intel's.

Knows them by their inputs and outputs only.
"""

import importlib.util
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.device import CPU, openvino_core
from models.info import Floats, Pixels, Precision
from models.open_files import read_at
from models.pages import release
from models.sizes import batch_size, tree_size
from models.token_tree import Tree
from models.tokens import Ids

# 1 - cosine against torch in float32: rounding in another order, or in 8 bits of mantissa
TOLERANCE: Final[dict[Precision, float]] = {"fp32": 1e-5, "bf16": 5e-3, "fp16": 1e-3}

HINTS: Final[dict[Precision, str]] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}

# of one pass where nothing was measured
IMAGES_AT_ONCE: Final = 8
# of one pass on a GPU
MOST_IMAGES: Final = 64

# of one call: more gain nothing, and one call delays an image behind it
MOST_NODES: Final = 256
MOST_PROMPTS: Final = 64


def available() -> bool:
    """Whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def library() -> Path:
    """The folder of OpenVINO's files."""
    import openvino

    return Path(openvino.__file__).parent


def compiled(graph: Any, precision: Precision, threads: int, device: str = CPU) -> Any:
    """A graph (or the path of its IR) ready to be called; `threads` 0: as many as cores.

    `device` is a CPU, or a GPU as `gpu` or `gpu:1`.

    Raises:
        RuntimeError: OpenVINO cannot read or compile it.
    """
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
    }
    if device == CPU:
        options["ENABLE_CPU_PINNING"] = False  # decoding shares the cores
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
    name = device.upper().replace(":", ".")  # as OpenVINO spells it
    return openvino_core().compile_model(graph, name, options)


class CompiledGraph:
    """Arrays of any size in, rows out; called by one thread only.

    OpenVINO prepares a graph for each size that it meets, and holds that for good. What only this
    needed is released each time: code of its compiler, copied weights, buffers of smaller sizes.
    """

    def __init__(self, graph: Any, precision: Precision, threads: int, device: str) -> None:
        """As `compiled`, which see. Raises RuntimeError."""
        self._compiled = compiled(graph, precision, threads, device)
        self._releasable = [library(), *([Path(graph).parent] if isinstance(graph, str) else [])]
        self._sizes: set[int] = set()

    def __call__(self, *inputs: npt.NDArray[Any]) -> Floats:
        """The only output; the first input's length is the size."""
        rows: Floats = self._compiled(inputs)[0]
        if len(inputs[0]) not in self._sizes:
            self._sizes.add(len(inputs[0]))
            release(*self._releasable)
        return rows


class CompiledImages:
    """Pixels in, unit rows out; called by one thread only."""

    def __init__(
        self,
        graph: Any,
        precision: Precision,
        threads: int,
        device: str = CPU,
        at_once: int = IMAGES_AT_ONCE,
    ) -> None:
        """`graph`: (B, 3, H, W) uint8 -> (B, D) float32 of unit length. Raises RuntimeError.

        A batch of twice as many or more runs in several passes: what a tower keeps of an image
        while it runs is many times its pixels, and must fit into the processor's caches
        (measure.py). None is smaller than `at_once`: a pass of another size than the last one is
        prepared anew, which takes a small tower longer than several images.
        """
        self._graph = CompiledGraph(graph, precision, threads, device)
        self.at_once = at_once

    def __call__(self, batch: Pixels) -> Floats:
        """(B, 3, H, W) uint8 -> (B, D) float32 of unit length."""
        passes = len(batch) // self.at_once
        if passes <= 1:
            return self.forward(batch)
        rows = []
        for left in range(passes, 1, -1):  # all but the last pass at a size without filling
            size = batch_size(-(-len(batch) // left))
            rows.append(self.forward(batch[:size]))
            batch = batch[size:]
        return np.concatenate([*rows, self.forward(batch)])

    def forward(self, batch: Pixels) -> Floats:
        """The same in one pass, however many they are."""
        return self._graph(_filled(batch, batch_size(len(batch))))[: len(batch)]

    def launch(self, batch: Pixels) -> Callable[[], Floats]:
        """The rows, computed at once and fetched later."""
        rows = self(batch)
        return lambda: rows


class Rows:
    """A matrix in a file of numpy's, of which rows are read and none are kept.

    Mapped, each row that is used would hold 64 kB of what lies around it.
    """

    def __init__(self, path: Path) -> None:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
        self.dtype: np.dtype[Any] = table.dtype
        self.width: int = table.shape[1]
        self._start = int(table.offset)
        # open as long as this lives: an export that replaces this one renames it
        self._file = path.open("rb", buffering=0)
        weakref.finalize(self, self._file.close)

    def __getitem__(self, ids: Ids) -> npt.NDArray[Any]:
        """(n,) -> (n, width)"""
        used, places = np.unique(ids, return_inverse=True)
        size = self.width * self.dtype.itemsize
        file = self._file.fileno()
        parts = [read_at(file, size, self._start + size * row) for row in used.tolist()]
        return np.frombuffer(b"".join(parts), self.dtype).reshape(-1, self.width)[places]


class CompiledTrees:
    """Trees of tokens in, unit rows out; called by one thread only.

    Embeddings of tokens are looked up here, not in the graph: of a table that stays in its file,
    only what prompts use is ever read, and all processes share it.
    """

    def __init__(
        self,
        graph: Any,
        embeddings: Rows,
        positions: npt.NDArray[Any],
        eos_id: int | None,
        precision: Precision,
        threads: int,
        device: str,
    ) -> None:
        """`graph`: nodes (n, W), mask (n, n), ends (p,) -> (p, D). Raises RuntimeError.

        `embeddings` are those of the tokens, `positions` (L, W).
        """
        self._graph = CompiledGraph(graph, precision, threads, device)
        self._embeddings = embeddings
        self._positions = positions
        self.eos_id = eos_id
        self.most_nodes = MOST_NODES

    def of_tree(self, tree: Tree) -> Floats:
        """(p, D) float32 of unit length, in the tree's order."""
        count = len(tree.tokens)
        size = tree_size(count)
        nodes = np.zeros((size, self._embeddings.width), np.float32)
        nodes[:count] = self._embeddings[tree.tokens]
        nodes[:count] += self._positions[tree.positions]
        mask = np.full((size, size), -np.inf, np.float32)
        mask[:count, :count][tree.visible] = 0
        mask[count:] = 0  # a node that sees none has no softmax
        ends = _filled(tree.ends, tree_size(len(tree.ends)))
        return self._graph(nodes, mask, ends)[: len(tree.ends)]


class CompiledPrompts:
    """Prompts at full length in, unit rows out; called by one thread only."""

    def __init__(self, graph: Any, precision: Precision, threads: int, device: str) -> None:
        """`graph`: ids (N, L) int64 -> (N, D) float32 of unit length. Raises RuntimeError."""
        self._graph = CompiledGraph(graph, precision, threads, device)
        self.most_prompts = MOST_PROMPTS

    def at_full_length(self, ids: Ids) -> Floats:
        """(N, L) -> (N, D) float32 of unit length."""
        return self._graph(_filled(ids, batch_size(len(ids))))[: len(ids)]


def _filled(batch: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """(B, ...), with zeros behind it up to (size, ...)."""
    if size == len(batch):
        return batch
    filled = np.zeros((size, *batch.shape[1:]), batch.dtype)
    filled[: len(batch)] = batch
    return filled
