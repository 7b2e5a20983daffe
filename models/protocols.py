"""What the service asks of an encoder, in this process or elsewhere. Knows none of them."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.info import EncoderInfo


class AnyEncoder(Protocol):
    """Takes work without blocking its caller; models.encoder.Encoder says what comes back."""

    @property
    def info(self) -> EncoderInfo:
        """What it is."""
        ...

    def submit_images(
        self, images: Sequence[npt.NDArray[np.uint8]]
    ) -> Future[npt.NDArray[np.float32]]:
        """B arrays (3, H, W) of the size in `info.image` -> (B, D), unit rows."""
        ...

    def submit_texts(self, prompts: Sequence[str]) -> Future[npt.NDArray[np.float32]]:
        """N prompts -> (N, D), unit rows; PromptTooLong through the future."""
        ...

    @property
    def busy_since(self) -> float | None:
        """The `time.monotonic()` at which this process began what it works on, None if it waits."""
        ...

    @property
    def slowest(self) -> float:
        """Seconds that the longest piece of work so far took."""
        ...

    def close(self) -> None:
        """Take no more work."""
        ...
