"""How much memory of a device is in use, in plain numbers. Knows nothing of models."""

from dataclasses import dataclass

import torch


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
