"""Both towers in torch, arrays in and unit rows out. Knows no tokenizer, no prompts, no threads."""

from collections.abc import Callable
from typing import Any, Final

import torch

from models.cuda_graphs import Graphs
from models.image_tower import VisionTower
from models.info import Floats, Pixels
from models.text_tower import TextTower
from models.token_tree import Tree
from models.tokens import Ids

# beyond these, the caches (CPU), the mask of a tree or the kernels gain nothing
MOST_NODES: Final = {"cpu": 512}
MOST_PROMPTS: Final = {"cpu": 64}
MOST_ON_GPU: Final = 1024


class TorchImages:
    """The image tower; a batch that does not fit into the device's memory is halved."""

    def __init__(self, vision: VisionTower, recorded: Graphs | None = None) -> None:
        self.vision = vision
        self.recorded = recorded

    def launch(self, batch: Pixels) -> Callable[[], Floats]:
        """(B, 3, H, W); what is returned waits for the (B, D) rows."""
        if self.recorded is not None and len(batch) <= self.recorded.most:
            return self.recorded.launch(batch)
        rows = self._rows(batch)
        return lambda: rows.cpu().numpy()

    def _rows(self, batch: Pixels) -> torch.Tensor:
        device = self.vision.device
        try:
            staged = torch.from_numpy(batch)
            pinned = device.type == "cuda"
            if pinned:
                staged = staged.pin_memory()  # or the copy would wait for the batch before
            return self.vision.rows(staged.to(device, non_blocking=pinned))
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(batch) // 2
        return torch.cat([self._rows(batch[:half]), self._rows(batch[half:])])


class TorchTrees:
    """The text tower over trees of tokens."""

    def __init__(self, tower: TextTower) -> None:
        self.tower = tower
        self.eos_id = tower.eos_id
        self.most_nodes = MOST_NODES.get(tower.module.positional_embedding.device.type, MOST_ON_GPU)

    @torch.inference_mode()
    def of_tree(self, tree: Tree) -> Floats:
        """(p, D), in the tree's order. Raises MemoryError where the device has no room for it."""
        try:
            return _unit(self.tower.encode(tree))
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise MemoryError(str(error)) from error


class TorchPrompts:
    """The text tower at full length."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._device = next(model.parameters()).device
        self.most_prompts = MOST_PROMPTS.get(self._device.type, MOST_ON_GPU)

    @torch.inference_mode()
    def at_full_length(self, ids: Ids) -> Floats:
        """(N, L) -> (N, D). Raises MemoryError where the device has no room for them."""
        try:
            return _unit(self.model.encode_text(torch.from_numpy(ids).to(self._device)))
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise MemoryError(str(error)) from error


def _unit(rows: torch.Tensor) -> Floats:
    vectors: Floats = torch.nn.functional.normalize(rows.float(), dim=-1).cpu().numpy()
    return vectors
