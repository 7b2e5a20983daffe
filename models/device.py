"""Choose the device and the precision a model runs in. Knows nothing of models."""

from dataclasses import dataclass
from typing import cast, get_args

import torch

from models.errors import BadDevice
from models.info import Backend, Precision

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def choose_device(wanted: str) -> torch.device:
    """`wanted` is "auto" or a torch device name; auto takes a GPU where there is one."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise BadDevice(
            f"device {wanted!r} is not a device name; use auto, cpu or cuda[:N]"
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadDevice(
            f"device {wanted!r} does not exist here: {torch.cuda.device_count()} CUDA devices found"
        )
    if device.type not in ("cpu", "cuda"):
        raise BadDevice(f"device {wanted!r} is not supported; use auto, cpu or cuda[:N]")
    return device


def choose_precision(wanted: str, device: torch.device, fixed: Precision | None) -> Precision:
    """`wanted` is "auto" or a precision; auto takes what the device does fast.

    `fixed` is the catalogue's word for a model that always runs in one precision. bf16 is chosen
    on GPUs that have it and on CPUs with native bf16 instructions: elsewhere it is emulated, and
    slower than fp32.
    """
    if wanted not in ("auto", *get_args(Precision)):
        raise BadDevice(
            f"precision {wanted!r} is unknown; use auto, {', '.join(get_args(Precision))}"
        )
    if fixed is not None:
        if wanted not in ("auto", fixed):
            raise BadDevice(f"this model always runs in {fixed}, not in {wanted}")
        return fixed
    if wanted != "auto":
        if wanted == "fp16" and device.type == "cpu":
            raise BadDevice("precision fp16 needs a GPU; use bf16 or fp32 on a CPU")
        return cast(Precision, wanted)
    return "bf16" if _has_fast_bf16(device) else "fp32"


def choose_backend(wanted: str, device: torch.device, installed: bool) -> Backend:
    """`wanted` is "auto" or a backend; auto takes OpenVINO on a CPU where it is `installed`."""
    if wanted not in ("auto", *get_args(Backend)):
        raise BadDevice(f"backend {wanted!r} is unknown; use auto, {', '.join(get_args(Backend))}")
    if wanted == "openvino" and device.type != "cpu":
        raise BadDevice(f"backend openvino runs on a CPU, not on {device}")
    if wanted == "openvino" and not installed:
        raise BadDevice("backend openvino needs pip install 'openvocab[openvino]'")
    if wanted == "auto":
        return "openvino" if device.type == "cpu" and installed else "torch"
    return cast(Backend, wanted)


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def is_lost(error: BaseException) -> bool:
    """Whether an error means that this process cannot use its device any more.

    After a CUDA error every later call fails, or answers nonsense; running out of memory is none.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return False
    faults = tuple(filter(None, [getattr(torch, "AcceleratorError", None)]))
    return isinstance(error, faults) or (
        isinstance(error, RuntimeError) and "CUDA error" in str(error)
    )


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes: held by tensors, reserved by this process, and all that the device has."""

    allocated: int
    reserved: int
    total: int


def device_memory(name: str) -> DeviceMemory | None:
    """Of a torch device, None for a CPU. The driver is not asked: one that hangs keeps nobody."""
    device = torch.device(name)
    if device.type != "cuda":
        return None
    return DeviceMemory(
        torch.cuda.memory_allocated(device),
        torch.cuda.memory_reserved(device),
        torch.cuda.get_device_properties(device).total_memory,
    )
