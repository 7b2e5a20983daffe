"""The image tower's forward pass, and how its weights are laid out for speed. Knows no threads."""

from collections.abc import Sequence
from typing import Any

import torch
from open_clip.modified_resnet import Bottleneck, ModifiedResNet
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class VisionTower:
    """Pixels in, unit rows out, on the device of the model."""

    def __init__(self, model: Any, mean: Sequence[float], std: Sequence[float]) -> None:
        """`mean` and `std` of the three channels, of values in 0..1."""
        weight = next(model.parameters())
        self.device: torch.device = weight.device
        self._model = model
        self._dtype = weight.dtype
        self._layout = layout(model.visual)
        self._mean = torch.tensor(mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=self.device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def rows(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) uint8 on the device -> (B, D) float32 of unit length."""
        return self.traceable(pixels)

    def traceable(self, pixels: torch.Tensor) -> torch.Tensor:
        """The same outside inference mode, in which nothing can be traced."""
        # the same three operations, in the same order, as torchvision's ToTensor and Normalize
        values = pixels.float().div_(255).sub_(self._mean).div_(self._std)
        scaled = values.to(self._dtype, memory_format=self._layout)
        return torch.nn.functional.normalize(self._model.encode_image(scaled).float(), dim=-1)


def layout(tower: nn.Module) -> torch.memory_format:
    """Channels last for a tower of convolutions, whose kernels want that layout."""
    return torch.channels_last if isinstance(tower, ModifiedResNet) else torch.contiguous_format


def prepare(tower: nn.Module) -> None:
    """Change a float32 tower in place to an equal one that is faster (docs/performance.md).

    A batch normalisation that only applies fixed statistics is a scale and a shift, and goes into
    the convolution before it (Jacob et al. 2017, section 3.2).
    """
    for block in tower.modules():
        if isinstance(block, (ModifiedResNet, Bottleneck)):
            for number in "123":
                _fold(block, f"conv{number}", f"bn{number}")
            shortcut = getattr(block, "downsample", None)
            if shortcut is not None:
                _fold(shortcut, "0", "1")
    tower.to(memory_format=layout(tower))


def _fold(parent: nn.Module, convolution: str, norm: str) -> None:
    before, after = getattr(parent, convolution), getattr(parent, norm)
    if isinstance(before, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
        setattr(parent, convolution, fuse_conv_bn_eval(before, after))
        setattr(parent, norm, nn.Identity())
