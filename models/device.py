"""Choose the device and the precision a model runs in. Knows nothing of models.

Imports torch only where there may be a GPU.
"""

import contextlib
import functools
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast, get_args

from models import processor
from models.errors import BadDevice, ModelUnavailable
from models.info import Backend, Precision

CPU: Final = "cpu"

# Intel's GPUs by OpenVINO, without a torch that knows them
OPENVINO_GPU: Final = "gpu"

# in the order in which auto takes them, and what they are called
DEVICES: Final[Mapping[str, str]] = {
    "cuda": "CUDA devices",
    "xpu": "Intel GPUs for PyTorch (XPU)",
    "mps": "Apple GPUs",
    OPENVINO_GPU: "Intel GPUs for OpenVINO",
}
OF_BACKEND: Final[Mapping[str, Sequence[str]]] = {
    "openvino": (OPENVINO_GPU,),
    "torch": ("cuda", "xpu", "mps"),
}
NAMES: Final = "cpu, cuda[:N], xpu[:N], mps or gpu[:N]"
NAME: Final = re.compile(r"(?P<kind>cpu|mps|cuda|xpu|gpu)(?:(?<!cpu)(?<!mps)[:.](?P<number>\d+))?")


def has_torch() -> bool:
    """Whether torch and open_clip are installed."""
    return all(map(importlib.util.find_spec, ("torch", "open_clip")))


def torch_or_error(what: str) -> None:
    """Nothing where torch and open_clip are installed.

    Raises:
        ModelUnavailable: they are not, and `what` needs them.
    """
    if not has_torch():
        raise ModelUnavailable(
            f"{what} needs PyTorch: pip install torch open_clip_torch; or export the model where "
            "that is installed (openvocab models export) and use --model exported:DIR"
        )


@contextlib.contextmanager
def importing_torch(what: str) -> Iterator[None]:
    """For what imports torch.

    Raises:
        ModelUnavailable: it is not installed, or one of its libraries cannot be loaded.
    """
    torch_or_error(what)
    try:
        yield
    except (ImportError, OSError) as error:
        raise ModelUnavailable(f"{what} needs PyTorch, which cannot be loaded: {error}") from None


# how libraries of C++ say that the system gives them no memory, and Python no thread
SHORTAGE: Final = re.compile(
    r"bad_alloc|out of memory|failed to allocate|can't allocate memory|can't start new thread",
    re.IGNORECASE,
)


@contextlib.contextmanager
def with_room(what: str) -> Iterator[None]:
    """For what takes much memory, and threads.

    Raises:
        ModelUnavailable: the system, or a limit of this process, leaves too little of them.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        lines = str(error).splitlines() or [""]
        reason = next(filter(SHORTAGE.search, lines), None)
        if reason is None and not isinstance(error, MemoryError):
            raise
        why = (reason or lines[0]).strip() or type(error).__name__
        raise ModelUnavailable(
            f"{what} cannot be loaded: too little memory is free, or too few threads are permitted "
            f"({why})"
        ) from None


def kind_of(device: str) -> str:
    """`cuda` of `cuda:1`."""
    return device.partition(":")[0]


def choose_device(requested: str, backend: str = "auto") -> str:
    """`requested` is "auto" or a name; auto takes the first of DEVICES that is here and that the
    backend can use.
    """
    if requested == "auto":
        kinds = OF_BACKEND.get(backend, DEVICES)
        return next((kind for kind in kinds if may_have(kind) and devices(kind)), CPU)
    name = NAME.fullmatch(requested.lower())
    if name is None:
        raise BadDevice(f"device {requested!r} is not a device name; use auto, {NAMES}")
    kind, number = name["kind"], int(name["number"] or 0)
    if kind == CPU:
        return CPU
    if kind == OPENVINO_GPU and not importlib.util.find_spec("openvino"):
        raise BadDevice(f"device {requested!r} needs pip install 'openvocab[openvino]'")
    if kind != OPENVINO_GPU:
        torch_or_error(f"device {requested!r}")
    count = devices(kind)
    if number >= count:
        raise BadDevice(f"device {requested!r} does not exist here: {count} {DEVICES[kind]} found")
    return f"{kind}:{number}" if name["number"] else kind


def may_be_gpu(backend: str) -> bool:
    """Whether auto may take a GPU; asks no driver, which a fork of this process would not survive.

    `devices` knows for certain.
    """
    return any(map(may_have, OF_BACKEND.get(backend, DEVICES)))


def may_have(kind: str) -> bool:
    """Whether it is worth to ask for devices of a kind: torch and OpenVINO are slow to import."""
    if kind == OPENVINO_GPU:
        return processor.may_have_intel_gpu() and bool(importlib.util.find_spec("openvino"))
    if not importlib.util.find_spec("torch"):
        return False  # nothing installed here could use it
    if kind == "cuda":
        return processor.may_have_gpu()
    if kind == "xpu":  # torch's ordinary wheels have nothing for it
        return "xpu" in importlib.metadata.version("torch")
    return processor.is_apple_silicon()


@functools.cache
def openvino_core() -> Any:
    """OpenVINO's library, loaded once and never unloaded.

    Its CPU plugin gives the thread that loads it a stack for signals. Two plugins that are unloaded
    again leave the stack of one of them, which is gone: the next signal ends the process.
    """
    import openvino

    return openvino.Core()


def openvino_ran() -> bool:
    """Whether this process has used OpenVINO: its threads are in no process forked from it."""
    return openvino_core.cache_info().currsize > 0


def devices(kind: str) -> int:
    """How many devices of a kind there are; imports what knows."""
    if kind == OPENVINO_GPU:
        names = openvino_core().available_devices
        return sum(name.partition(".")[0] == "GPU" for name in names)
    with importing_torch(f"device {kind!r}"):
        import torch

    if kind == "mps":
        return int(torch.backends.mps.is_available())
    there: int = getattr(torch, kind).device_count()
    return there


def choose_precision(requested: str, device: str, fixed: Precision | None) -> Precision:
    """`requested` is "auto" or a precision; auto takes what the device does fast.

    `fixed` is the catalogue's word for a model that always runs in one precision. bf16 is chosen
    on GPUs that have it and on CPUs with native bf16 instructions: elsewhere it is emulated, and
    slower than fp32. Apple's GPUs and OpenVINO's do fp16 fast.
    """
    if requested not in ("auto", *get_args(Precision)):
        raise BadDevice(
            f"precision {requested!r} is unknown; use auto, {', '.join(get_args(Precision))}"
        )
    if fixed is not None:
        if requested not in ("auto", fixed):
            raise BadDevice(f"this model always runs in {fixed}, not in {requested}")
        return fixed
    if requested != "auto":
        if requested == "fp16" and device == CPU:
            raise BadDevice("precision fp16 needs a GPU; use bf16 or fp32 on a CPU")
        if requested == "bf16" and kind_of(device) == OPENVINO_GPU:
            raise BadDevice("OpenVINO's GPUs do not compute in bf16; use fp16 or fp32")
        return cast(Precision, requested)
    if kind_of(device) in ("mps", OPENVINO_GPU):
        return "fp16"
    return "bf16" if has_fast_bf16(device) else "fp32"


def allowed_precisions(
    requested: str, device: str, fixed: Precision | None
) -> tuple[Precision, ...]:
    """As `choose_precision`, and after it what else may be measured to be faster on a CPU."""
    chosen = choose_precision(requested, device, fixed)
    if (requested, device, fixed) != ("auto", CPU, None) or not processor.may_gain_by_bf16():
        return (chosen,)
    return ("bf16", "fp32") if chosen == "bf16" else ("fp32", "bf16")


def choose_backend(requested: str, device: str, installed: bool) -> Backend:
    """`requested` is "auto" or a backend; auto takes OpenVINO on a CPU where it is `installed`."""
    if requested not in ("auto", *get_args(Backend)):
        raise BadDevice(
            f"backend {requested!r} is unknown; use auto, {', '.join(get_args(Backend))}"
        )
    by_openvino = kind_of(device) in (CPU, OPENVINO_GPU)
    if requested == "openvino" and not by_openvino:
        raise BadDevice(f"backend openvino runs on a CPU or on {OPENVINO_GPU}, not on {device}")
    if requested == "torch" and kind_of(device) == OPENVINO_GPU:
        raise BadDevice(f"device {device} is OpenVINO's; backend torch has cuda, xpu and mps")
    if requested == "openvino" and not installed:
        raise BadDevice("backend openvino needs pip install 'openvocab[openvino]'")
    if requested == "auto":
        return "openvino" if by_openvino and installed else "torch"
    return cast(Backend, requested)


def has_fast_bf16(device: str) -> bool:
    """Whether a CPU, or a GPU of torch's, has instructions for bf16."""
    if device == CPU:
        return processor.has_fast_bf16()
    import torch

    if kind_of(device) == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    able = torch.xpu.get_device_capability(device)
    return bool(able.get("has_subgroup_matrix_multiply_accumulate"))
