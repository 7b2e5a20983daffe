"""The encoder: arrays and prompts in, unit vectors out, on a thread of its own. Knows no labels."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from models.cuda_graphs import Graphs
from models.device import DeviceMemory, device_memory, is_lost
from models.device_thread import DeviceThread
from models.image_tower import VisionTower
from models.info import EncoderInfo
from models.openvino_tower import CompiledTower
from models.text_tower import Forest, TextTower
from models.tokens import Tokens

Pixels = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]
# which prompts, how many positions they took, their unit rows
Piece = tuple[npt.NDArray[np.int64], int, torch.Tensor]

# seconds a piece of text work may take, so that an image behind it waits no longer than 50 ms
TEXT_STEP: Final = 0.03
PROMPTS_PER_TOKENIZER_STEP: Final = 256
# token positions of a forward pass: below the least, reading the weights once costs more than the
# positions do; beyond the most, the caches (CPU), the mask of a tree or the kernels gain nothing
LEAST_POSITIONS: Final = 64
MOST_NODES: Final = {"cpu": 512, "cuda": 1024}
MOST_PROMPTS: Final = {"cpu": 64, "cuda": 1024}


class Encoder:
    """A CLIP dual encoder that takes work without blocking its caller.

    Vectors come back as float32 rows of unit length, whatever the precision inside.
    """

    def __init__(
        self,
        info: EncoderInfo,
        model: Any,
        tokens: Tokens,
        tower: TextTower | None,
        vision: VisionTower,
        fast: Graphs | CompiledTower | None = None,
    ) -> None:
        self.info = info
        self._model = model
        self._tokens = tokens
        self._tower = tower
        self._vision = vision
        self._fast = fast
        self._device = vision.device
        self._positions_per_second = 20_000.0  # corrected by each measured step
        self._thread = DeviceThread("encoder", info.in_flight)
        self._thread.lost = is_lost

    def submit_images(self, images: Sequence[Pixels]) -> Future[Vectors]:
        """`images`: B arrays (3, H, W) uint8 of the size in `info.image` -> (B, D) float32.

        Raises through the future: whatever the forward pass raised; EncoderClosed.
        """
        batch = list(images)
        return self._thread.submit(lambda: self._launch_images(batch))

    def submit_texts(self, prompts: Sequence[str]) -> Future[Vectors]:
        """N prompts -> (N, D) float32, in the order given.

        Runs in steps of about TEXT_STEP seconds between which images go first. Raises through the
        future: PromptTooLong; whatever the forward pass raised; EncoderClosed.
        """
        return self._thread.submit_steps(self._encode_texts(list(prompts)))

    @property
    def busy_since(self) -> float | None:
        """The `time.monotonic()` at which the device began what it works on, None if it waits."""
        return self._thread.busy_since

    @property
    def slowest(self) -> float:
        """Seconds that the longest piece of work so far took."""
        return self._thread.slowest

    @property
    def busy_seconds(self) -> Mapping[str, float]:
        """Seconds that the device spent so far on images and on text."""
        image, text = self._thread.busy_seconds
        return {"image": image, "text": text}

    def on_device_lost(self, action: Callable[[BaseException], object]) -> None:
        """Called, on the encoder's thread, when the device fails for good; before any answer."""
        self._thread.on_lost = action

    def memory(self) -> DeviceMemory | None:
        """What is in use of the device's own memory; None for a CPU."""
        return device_memory(self.info.device)

    def warm_up(self) -> None:
        """One image and one prompt through the towers, so that the first caller does not pay."""
        image = np.zeros((3, self.info.image.height, self.info.image.width), np.uint8)
        self.submit_images([image]).result()
        self.submit_texts(["warm up"]).result()

    def close(self) -> None:
        """End the thread; work that waits fails with EncoderClosed."""
        self._thread.close()

    def _launch_images(self, batch: list[Pixels]) -> Callable[[], Vectors]:
        pixels = np.stack(batch)
        if self._fast is not None and len(batch) <= self._fast.most:
            return self._fast.launch(pixels)
        rows = self._image_rows(pixels)
        return lambda: rows.cpu().numpy()

    def _image_rows(self, batch: Pixels) -> torch.Tensor:
        try:
            staged = torch.from_numpy(batch)
            if self._device.type == "cuda":
                staged = staged.pin_memory()  # or the copy would wait for the batch before
            return self._vision.rows(staged.to(self._device, non_blocking=True))
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(batch) // 2
        return torch.cat([self._image_rows(batch[:half]), self._image_rows(batch[half:])])

    def _encode_texts(self, prompts: list[str]) -> Generator[None, None, Vectors]:
        ids = torch.empty(len(prompts), self._tokens.context_length, dtype=torch.long)
        for start in range(0, len(prompts), PROMPTS_PER_TOKENIZER_STEP):
            stop = start + PROMPTS_PER_TOKENIZER_STEP
            ids[start:stop] = self._tokens(prompts[start:stop], start)
            if stop < len(prompts):
                yield
        forest = self._forest(ids)
        vectors = np.empty((len(prompts), self.info.embedding_width), np.float32)
        done = 0
        while done < len(prompts):
            begun = time.perf_counter()
            if forest is None:
                rows, positions, found = self._at_full_length(ids, done)
            else:
                rows, positions, found = self._as_tree(forest, done, self._fitting(MOST_NODES))
            vectors[rows] = found.cpu().numpy()
            done += len(rows)
            self._note_speed(positions, time.perf_counter() - begun)
            if done < len(prompts):
                yield
        return vectors

    def _forest(self, ids: torch.Tensor) -> Forest | None:
        if self._tower is None:
            return None
        return Forest(ids.numpy(), self._tower.lengths(ids).numpy())

    @torch.inference_mode()
    def _as_tree(self, forest: Forest, start: int, most: int) -> Piece:
        tree = forest.tree(start, most)
        assert self._tower is not None
        try:
            return tree.rows, len(tree.tokens), _unit(self._tower.encode(tree))
        except torch.OutOfMemoryError:
            if len(tree.rows) == 1:
                raise
        torch.cuda.empty_cache()
        return self._as_tree(forest, start, len(tree.tokens) // 2)

    @torch.inference_mode()
    def _at_full_length(self, ids: torch.Tensor, start: int) -> Piece:
        context = ids.shape[1]
        most = self._fitting(MOST_PROMPTS, context) // context
        rows = np.arange(start, min(start + max(1, most), len(ids)))
        return rows, len(rows) * context, self._full_rows(ids[start : start + len(rows)])

    def _full_rows(self, ids: torch.Tensor) -> torch.Tensor:
        try:
            return _unit(self._model.encode_text(ids.to(self._device)))
        except torch.OutOfMemoryError:
            if len(ids) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(ids) // 2
        return torch.cat([self._full_rows(ids[:half]), self._full_rows(ids[half:])])

    def _fitting(self, most: dict[str, int], each: int = 1) -> int:
        """Positions that should take TEXT_STEP seconds; `most` counts pieces of `each`."""
        positions = int(self._positions_per_second * TEXT_STEP)
        return max(LEAST_POSITIONS, min(positions, most[self._device.type] * each))

    def _note_speed(self, positions: int, seconds: float) -> None:
        # half old, half new: one slow step must not make all later ones tiny
        speed = positions / max(seconds, 1e-6)
        self._positions_per_second = 0.5 * self._positions_per_second + 0.5 * speed


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows.float(), dim=-1)
