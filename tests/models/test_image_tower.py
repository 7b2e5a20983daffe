"""Folded batch normalisations and channels-last weights change speed, not answers."""

import copy
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch

from models.image_tower import VisionTower, layout, prepare

EXACT = 1e-5  # 1 - cosine, float32


@pytest.mark.parametrize(("architecture", "edge"), [("short-RN50", 96), ("short-ViT-B-32", 224)])
def test_a_prepared_tower_equals_the_original(
    architecture: str, edge: int, random_checkpoint: Callable[[str], Path]
) -> None:
    model = open_clip.create_model(f"local-dir:{random_checkpoint(architecture)}").eval()
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # fresh statistics would make every fold the identity
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 3)
            torch.nn.init.normal_(module.weight, 1, 0.3)
            torch.nn.init.normal_(module.bias, 0, 0.3)
    prepared = copy.deepcopy(model)
    prepare(prepared.visual)
    norms = [m for m in prepared.visual.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert not norms
    pixels = torch.randint(0, 256, (3, 3, edge, edge), dtype=torch.uint8)
    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    rows = VisionTower(prepared, mean, std).rows(pixels)
    with torch.no_grad():
        values = (pixels.float() / 255 - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(
            std
        ).view(1, 3, 1, 1)
        expected = model.encode_image(values, normalize=True)
    assert float((1 - (rows * expected).sum(1)).abs().max()) < EXACT
    assert (layout(model.visual) is torch.channels_last) == (architecture == "short-RN50")
