"""The encoder: arrays and prompts in, unit vectors out, on a thread of its own. Knows no labels."""

import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from models.info import EncoderInfo
from models.tokens import Tokens
from models.towers import TextTower
from models.worker import DeviceThread

Pixels = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]

# seconds a piece of text work may take, so that an image behind it waits no longer than 50 ms
TEXT_STEP: Final = 0.03
PROMPTS_PER_TOKENIZER_STEP: Final = 256
# prompts a forward pass: beyond these the caches (CPU) or the kernels (GPU) gain nothing more
MAX_PROMPTS: Final = {"cpu": 64, "cuda": 1024}


class Encoder:
    """A CLIP dual encoder that takes work without blocking its caller.

    Vectors come back as float32 rows of unit length, whatever the precision inside.
    """

    def __init__(
        self,
        info: EncoderInfo,
        model: Any,
        tokens: Tokens,
        trimmed: TextTower | None,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.info = info
        self._model = model
        self._tokens = tokens
        self._trimmed = trimmed
        self._device = torch.device(info.device)
        self._dtype = next(model.parameters()).dtype
        self._mean = torch.tensor(mean, device=self._device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=self._device).view(1, 3, 1, 1)
        self._work_per_second = 20_000.0  # token positions; corrected by each measured step
        self._thread = DeviceThread("encoder", info.in_flight)

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

    def warm_up(self) -> None:
        """One image and one prompt through the towers, so that the first caller does not pay."""
        image = np.zeros((3, self.info.image.height, self.info.image.width), np.uint8)
        self.submit_images([image]).result()
        self.submit_texts(["warm up"]).result()

    def close(self) -> None:
        """End the thread; work that waits fails with EncoderClosed."""
        self._thread.close()

    def _launch_images(self, batch: list[Pixels]) -> Callable[[], Vectors]:
        rows = self._image_rows(np.stack(batch))
        return lambda: rows.cpu().numpy()

    @torch.inference_mode()
    def _image_rows(self, batch: Pixels) -> torch.Tensor:
        try:
            staged = torch.from_numpy(batch)
            if self._device.type == "cuda":
                staged = staged.pin_memory()
            pixels = staged.to(self._device, non_blocking=True).float()
            # the same three operations, in the same order, as torchvision's ToTensor and Normalize
            pixels = pixels.div_(255).sub_(self._mean).div_(self._std)
            return _unit(self._model.encode_image(pixels.to(self._dtype)))
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
        lengths = self._lengths(ids)
        # neighbours of like length waste no positions on padding
        order = torch.argsort(lengths, stable=True)
        vectors = np.empty((len(prompts), self.info.embedding_width), np.float32)
        done = 0
        while done < len(prompts):
            begun = time.perf_counter()
            rows = order[done : done + self._step_size(int(lengths[order[done]]))]
            longest = int(lengths[rows].max())
            vectors[rows.numpy()] = self._text_rows(ids[rows, :longest]).cpu().numpy()
            done += len(rows)
            self._note_speed(len(rows) * longest, time.perf_counter() - begun)
            if done < len(prompts):
                yield
        return vectors

    def _lengths(self, ids: torch.Tensor) -> torch.Tensor:
        if self._trimmed is None:
            return torch.full((len(ids),), ids.shape[1])
        return self._trimmed.lengths(ids)

    @torch.inference_mode()
    def _text_rows(self, ids: torch.Tensor) -> torch.Tensor:
        try:
            on_device = ids.to(self._device)
            if self._trimmed is None:
                return _unit(self._model.encode_text(on_device))
            return _unit(self._trimmed.encode(on_device))
        except torch.OutOfMemoryError:
            if len(ids) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(ids) // 2
        return torch.cat([self._text_rows(ids[:half]), self._text_rows(ids[half:])])

    def _step_size(self, length: int) -> int:
        fits = int(self._work_per_second * TEXT_STEP / length)
        return max(1, min(fits, MAX_PROMPTS[self._device.type]))

    def _note_speed(self, work: int, seconds: float) -> None:
        # half old, half new: one slow step must not make all later ones tiny
        self._work_per_second = 0.5 * self._work_per_second + 0.5 * work / max(seconds, 1e-6)


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows.float(), dim=-1)
