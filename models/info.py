"""What an encoder tells about itself. Plain values: knows neither torch nor a loaded model."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

ResizeMode = Literal["shortest", "shortest-floor", "longest", "squash"]
Interpolation = Literal["bicubic", "bilinear"]
# what crosses the border: vectors and matrices of float32, and pixels (3, H, W) of uint8
Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

Precision = Literal["fp32", "bf16", "fp16"]
Backend = Literal["torch", "openvino"]


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """The geometry of the model's own preprocessing; mean and std stay with the encoder.

    `height` and `width` are pixels. `resize_mode` is open_clip's: "shortest" scales the shorter
    edge and crops the centre, "shortest-floor" too, with the crop's place rounded down as
    transformers does, "longest" scales the longer edge and pads with `fill_color` (grey
    level 0..255), "squash" ignores the aspect ratio.
    """

    height: int
    width: int
    resize_mode: ResizeMode
    interpolation: Interpolation
    fill_color: int


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a model comes from and what it is good for, as the catalogue tells it.

    `figures` is where its accuracy was published.
    """

    description: str
    licence: str
    source: str
    imagenet_top1: float | None = None
    languages: tuple[str, ...] = ("en",)
    templates: str = "imagenet"
    figures: str | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """The image tower as it was timed once on this machine, in one backend and precision.

    Milliseconds per image in batches of so many images: of all cores together (`cpu_ms`), and by
    the clock (`ms`). `threads` 0: as many as the backend takes by itself.
    """

    backend: Backend
    precision: Precision
    threads: int
    cpu_ms: Mapping[int, float] = field(hash=False)
    ms: Mapping[int, float] = field(hash=False)


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """A loaded encoder.

    `scale` is the learned temperature, exp(logit_scale), and `bias` the learned offset of models
    trained with a sigmoid loss (None for softmax-trained ones), both read in float32. `trims_text`
    says that padding is left out and equal beginnings of prompts are computed once, which is exact
    for this text tower.
    `fingerprint` changes whenever any of weights, architecture, precision, preprocessing or
    tokenizer changes. `backend` runs the image tower. `in_flight` is how many image batches are
    worth handing over at once. `images_at_once` is with how many images a forward pass costs least
    for each, as measured when the model was exported (None: as many as come). `threads` are those
    of a forward pass on a CPU (0: as many as the backend takes by itself). `measured` is what
    backend, precision and threads were chosen by; empty where there was nothing to choose.
    `weights_bytes` is the size of the tensors, or of an export's files, which are mapped.
    """

    name: str
    fingerprint: str
    precision: Precision
    device: str
    backend: Backend
    image: ImageSpec
    context_length: int
    embedding_width: int
    scale: float
    bias: float | None
    text_family: str
    trims_text: bool
    in_flight: int
    provenance: Provenance
    images_at_once: int | None = None
    threads: int = 0
    measured: tuple[Timing, ...] = ()
    weights_bytes: int = 0


class AnyEncoder(Protocol):
    """Takes work without blocking its caller; models.encoder.Encoder says what comes back."""

    @property
    def info(self) -> EncoderInfo:
        """What it is."""
        ...

    def submit_images(self, images: Sequence[Pixels]) -> Future[Floats]:
        """B arrays (3, H, W) of the size in `info.image` -> (B, D), unit rows."""
        ...

    def submit_texts(self, prompts: Sequence[str]) -> Future[Floats]:
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
