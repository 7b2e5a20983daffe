"""What this machine's processor can do, and whether there may be a GPU. Imports no torch."""

import contextlib
import ctypes
import functools
import platform
from pathlib import Path
from typing import Final

CPU_INFO: Final = Path("/proc/cpuinfo")

# what decides which kernels run, of the flags that Linux tells
DECISIVE: Final = (
    "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_bf16", "amx_int8",
    # Arm's
    "asimdhp", "sve", "i8mm", "bf16",
)  # fmt: skip
# of PCI
INTEL: Final = "0x8086"

# whose figures hold for no other processor: virtual machines hide the name of some, and Arm's have
# numbers only
NAMES: Final = ("model name", "cpu family", "model", "CPU implementer", "CPU part")

NATIVE_BF16: Final = ("avx512_bf16", "amx_bf16")
BF16_OF_ARM: Final = "bf16"


@functools.cache
def features() -> tuple[str, ...]:
    """The decisive flags that the processor has; none where the system does not tell."""
    starts = ("flags", "Features")
    flags = next((line.split() for line in _cpu_info() if line.startswith(starts)), [])
    return tuple(name for name in DECISIVE if name in flags)


@functools.cache
def model() -> tuple[str, ...]:
    """The processor's name and numbers; none where the system does not tell."""
    told: dict[str, str] = {}
    for line in _cpu_info():
        name, _, value = line.partition(":")
        told.setdefault(name.strip(), value.strip())
    return tuple(told[name] for name in NAMES if name in told)


def _cpu_info() -> list[str]:
    """What the system tells of its processors, line by line; empty where it does not."""
    try:
        return CPU_INFO.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []


def has_fast_bf16() -> bool:
    """Whether bf16 is fast without asking further: elsewhere it may be emulated, and slower."""
    return any(name in features() for name in NATIVE_BF16)


def may_gain_by_bf16() -> bool:
    """Whether bf16 is worth timing: on Arm, torch uses its instructions and OpenVINO does not."""
    return has_fast_bf16() or BF16_OF_ARM in features()


def described() -> str:
    """The processor's architecture, name and features, in a line."""
    return " ".join((platform.machine(), *model(), *features()))


def is_apple_silicon() -> bool:
    """Whether it is one of Apple's own processors, which have a GPU."""
    return (platform.system(), platform.machine()) == ("Darwin", "arm64")


def may_have_intel_gpu(folder: Path = Path("/sys/class/drm")) -> bool:
    """Whether there is a GPU of Intel's that computes; where the system does not tell, maybe."""
    if platform.system() == "Windows":
        return True
    for file in folder.glob("renderD*/device/vendor"):
        with contextlib.suppress(OSError):
            if file.read_text(encoding="ascii").strip() == INTEL:
                return True
    return False


@functools.cache
def may_have_gpu() -> bool:
    """Whether torch has to be asked: a driver of NVIDIA's or AMD's counts a device or more."""
    if Path("/dev/kfd").exists():
        return True
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    except (OSError, AttributeError):
        return False
    return not failed and count.value > 0
