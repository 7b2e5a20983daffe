"""Choose the device and the precision a model runs in. Knows nothing of models.

Imports torch only where there may be a GPU.
"""

import importlib.util
from typing import Final, cast, get_args

from models import processor
from models.errors import BadDevice, ModelUnavailable
from models.info import Backend, Precision

CPU: Final = "cpu"


def torch_or_error(what: str) -> None:
    """Nothing where torch and open_clip are installed.

    Raises:
        ModelUnavailable: they are not, and `what` needs them.
    """
    if not all(map(importlib.util.find_spec, ("torch", "open_clip"))):
        raise ModelUnavailable(
            f"{what} needs PyTorch: pip install torch open_clip_torch; or export the model where "
            "that is installed (openvocab models export) and use --model exported:DIR"
        )


def choose_device(wanted: str) -> str:
    """`wanted` is "auto" or a torch device name; auto takes a GPU where there is one."""
    if wanted == CPU or (wanted == "auto" and not processor.may_have_gpu()):
        return CPU
    if wanted == "auto" and importlib.util.find_spec("torch") is None:
        return CPU  # nothing installed here could use the GPU
    torch_or_error(f"device {wanted!r}")
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else CPU
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
    return str(device)


def choose_precision(wanted: str, device: str, fixed: Precision | None) -> Precision:
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
        if wanted == "fp16" and device == CPU:
            raise BadDevice("precision fp16 needs a GPU; use bf16 or fp32 on a CPU")
        return cast(Precision, wanted)
    return "bf16" if _has_fast_bf16(device) else "fp32"


def choose_backend(wanted: str, device: str, installed: bool) -> Backend:
    """`wanted` is "auto" or a backend; auto takes OpenVINO on a CPU where it is `installed`."""
    if wanted not in ("auto", *get_args(Backend)):
        raise BadDevice(f"backend {wanted!r} is unknown; use auto, {', '.join(get_args(Backend))}")
    if wanted == "openvino" and device != CPU:
        raise BadDevice(f"backend openvino runs on a CPU, not on {device}")
    if wanted == "openvino" and not installed:
        raise BadDevice("backend openvino needs pip install 'openvocab[openvino]'")
    if wanted == "auto":
        return "openvino" if device == CPU and installed else "torch"
    return cast(Backend, wanted)


def _has_fast_bf16(device: str) -> bool:
    if device == CPU:
        return processor.has_fast_bf16()
    import torch

    return torch.cuda.get_device_capability(device) >= (8, 0)
