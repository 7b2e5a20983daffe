"""OpenVINO's graphs, made small before they are kept. Imports no torch."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino
from openvino import opset15
from openvino._offline_transformations import apply_moc_transformations

from models.device import openvino_core

# constants of fewer values are not worth a conversion
LEAST_VALUES: Final = 1_024
LARGEST_HALF: Final = 65_504.0


def keep(graph: Any, path: Path) -> None:
    """Write a graph as it will be served: `path` and, beside it, its weights in float32.

    What every start would do is done once: normalisations go into the convolutions before them,
    and what depends on nothing is computed. Weights lie there as OpenVINO reads them in every
    precision, so that it maps them, which all processes share, and allocates nothing for them but
    what its kernels want in another order.
    """
    # what openvino.convert_model calls, too
    apply_moc_transformations(graph, cf=True)
    write(graph, path)


def write(graph: Any, path: Path) -> None:
    """Write a graph to `path`, and its weights beside it. Raises OSError where there is no room."""
    try:
        openvino.serialize(graph, path, path.with_suffix(".bin"))
    except RuntimeError as error:
        if "iostream" not in str(error):
            raise
        # it does not say which
        raise OSError(f"{path.name} cannot be written, as where a disk is full") from error


def simplify(path: Path, to: Path) -> None:
    """`keep` a graph that was written with halved weights."""
    graph = openvino_core().read_model(path)
    _widen(graph)
    keep(graph, to)


def halve(graph: Any) -> None:
    """Keep weights in 16 bits where that loses nothing, in place."""
    for op in graph.get_ordered_ops():
        if op.get_type_name() != "Constant" or op.get_element_type().to_dtype() != np.float32:
            continue
        values = op.data
        if values.size < LEAST_VALUES or not np.abs(values).max() <= LARGEST_HALF:
            continue
        half = values.astype(np.float16)
        if np.array_equal(half.astype(np.float32), values):
            _replace(op, opset15.convert(opset15.constant(half), "f32"))


def _widen(graph: Any) -> None:
    """Undo `halve`, in place."""
    for op in graph.get_ordered_ops():
        if op.get_type_name() != "Convert":
            continue
        source = op.input_value(0).get_node()
        if source.get_type_name() == "Constant" and source.get_element_type().to_dtype() == "f2":
            _replace(op, opset15.constant(source.data.astype(np.float32)))


def _replace(op: Any, replacement: Any) -> None:
    for reader in list(op.output(0).get_target_inputs()):
        reader.replace_source_output(replacement.output(0))
