"""From towers in torch to OpenVINO's graphs. Imports both."""

import warnings
from typing import Any, Final

import torch
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

from models.image_tower import VisionTower
from models.text_tower import TextTower

PROMPTS: Final = 2
NODES: Final = 7


def image_graph(tower: VisionTower, shape: tuple[int, int]) -> Any:
    """(B, 3, H, W) uint8 -> (B, D) float32 of unit length; `tower` holds float32 weights."""
    example = torch.zeros((2, 3, *shape), dtype=torch.uint8)
    return _traced(_Images(tower), (example,), [[-1, 3, *shape]])


def tree_graph(tower: TextTower) -> Any:
    """Nodes (n, W), mask (n, n) and ends (p,) -> (p, D) float32 of unit length."""
    width = tower.module.positional_embedding.shape[1]
    ends = torch.arange(PROMPTS) + NODES - PROMPTS
    example = torch.zeros(NODES, width), torch.zeros(NODES, NODES), ends
    return _traced(_Trees(tower), example, [[-1, width], [-1, -1], [-1]])


def prompt_graph(model: Any, context: int) -> Any:
    """Ids (N, L) int64 -> (N, D) float32 of unit length, each prompt at full length."""
    example = torch.zeros((PROMPTS, context), dtype=torch.long)
    return _traced(_Prompts(model), (example,), [[-1, context]])


def _traced(module: torch.nn.Module, example: tuple[Any, ...], shapes: list[list[int]]) -> Any:
    # not by convert_model, which tells its makers of each use
    frontend = FrontEndManager().load_by_framework("pytorch")
    with warnings.catch_warnings():
        # torch deprecates tracing, which OpenVINO still uses
        warnings.simplefilter("ignore")
        # no second trace to compare with, which takes most of the time: who exports or compiles a
        # graph compares its rows with the model's own
        once = {"check_trace": False}
        decoder = TorchScriptPythonDecoder(module.eval(), example_input=example, trace_kwargs=once)
        graph = frontend.convert(frontend.load(decoder))
    graph.reshape(dict(enumerate(shapes)))
    return graph


class _Images(torch.nn.Module):
    """A tower's `rows` as a module, which is what can be traced."""

    def __init__(self, tower: VisionTower) -> None:
        super().__init__()
        self._rows = tower.traceable

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._rows(pixels)


class _Trees(torch.nn.Module):
    def __init__(self, tower: TextTower) -> None:
        super().__init__()
        self._pooled = tower.pooled

    def forward(self, nodes: torch.Tensor, mask: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(self._pooled(nodes, mask, ends).float(), dim=-1)


class _Prompts(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self._encode = model.encode_text

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(self._encode(ids).float(), dim=-1)
