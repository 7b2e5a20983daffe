"""Memory of a model that comes and goes, and of two in a process: resident, and on the device."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import numpy as np
import torch

from benchmarks.usage import MB, resident_mb
from models.device_state import release_memory
from models.encoder import Encoder
from models.loader import load
from models.pages import limit_arenas

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Used:
    """Megabytes: of this process, and of a GPU as its driver counts them (0 on a CPU)."""

    resident: float
    on_device: float


def used(device: str, elsewhere: float = 0.0) -> Used:
    """What is in use now; `elsewhere` is what other processes have of the device."""
    on_device = 0.0
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(device)
        on_device = (total - free) / MB - elsewhere
    return Used(resident_mb(os.getpid()), on_device)


def after_loads(source: str, device: str, loads: int, elsewhere: float = 0.0) -> list[Used]:
    """What is in use after each time that a model was loaded, used and given back."""
    limit_arenas()
    sizes = []
    for _ in range(loads):
        _ready(source, device).close()
        release_memory()
        sizes.append(used(device, elsewhere))
    return sizes


def as_added(sources: Sequence[str], device: str) -> list[Used]:
    """What is in use without a model, then with each that is loaded beside those before it.

    Each was there once before, so that what runs any model counts for none.
    """
    for source in sources:
        after_loads(source, device, 1)
    sizes = [used(device)]
    encoders: list[Encoder] = []
    for source in sources:
        encoders.append(_ready(source, device, *encoders[:1]))
        release_memory()
        sizes.append(used(device))
    for encoder in reversed(encoders):
        encoder.close()
    return sizes


def beside_another(first: str, second: str, device: str) -> Used:
    """What a model adds beside another one, beyond what it adds alone."""
    _, single, both = in_own_process(as_added, [first, second], device)
    bare, alone = in_own_process(as_added, [second], device)
    return Used(
        (both.resident - single.resident) - (alone.resident - bare.resident),
        (both.on_device - single.on_device) - (alone.on_device - bare.on_device),
    )


def in_own_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of a function in a new process, which has loaded nothing before."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def _ready(source: str, device: str, beside: Encoder | None = None) -> Encoder:
    """A model that has encoded a text and an image."""
    encoder = load(source, device=device, backend="torch", max_batch=1)
    if beside is not None:
        encoder.share_device(beside)
    encoder.submit_texts(["a photo of a cat"]).result()
    spec = encoder.info.image
    encoder.submit_images([np.zeros((3, spec.height, spec.width), np.uint8)]).result()
    return encoder
