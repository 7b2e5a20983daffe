"""A device's memory, and whether it is lost. Imports torch where there is a GPU to ask."""

import contextlib
import ctypes
import gc
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes: held by tensors, reserved by this process, and all that the device has."""

    allocated: int
    reserved: int
    total: int


def device_memory(name: str) -> DeviceMemory | None:
    """Of a torch device, None for a CPU. The driver is not asked: one that hangs keeps nobody."""
    if not name.startswith("cuda"):
        return None
    import torch

    return DeviceMemory(
        torch.cuda.memory_allocated(name),
        torch.cuda.memory_reserved(name),
        torch.cuda.get_device_properties(name).total_memory,
    )


def is_lost(error: BaseException) -> bool:
    """Whether an error means that this process cannot use its device any more.

    After a CUDA error, or on an Intel GPU that is lost, every later call fails or answers nonsense;
    running out of memory is none.
    """
    torch = sys.modules.get("torch")
    if torch is None or isinstance(error, torch.OutOfMemoryError):
        return False  # without torch there is no GPU
    faults = tuple(filter(None, [getattr(torch, "AcceleratorError", None)]))
    return isinstance(error, faults) or (
        isinstance(error, RuntimeError)
        and any(sign in str(error) for sign in ("CUDA error", "DEVICE_LOST"))
    )


def release_memory() -> None:
    """Give back what a closed encoder held: to the system, and to others who use the GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.cuda.empty_cache()  # nothing where no GPU was used
        if torch.xpu.is_available():
            torch.xpu.empty_cache()
        if torch.backends.mps.is_available():
            torch.mps.empty_cache()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # not every C library can
            ctypes.CDLL(None).malloc_trim(0)
