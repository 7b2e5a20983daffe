"""OpenVINO's image tower gives torch's rows, is optional, and its failure is no outage."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import openvino_tower
from models.device import choose_backend
from models.encoder import Encoder
from models.errors import BadDevice
from models.loader import load
from models.openvino_tower import compile_tower

CPU, GPU = torch.device("cpu"), torch.device("cuda")
EXACT = 1e-5  # 1 - cosine, float32


def pictures(count: int, edge: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (3, edge, edge), np.uint8) for _ in range(count)]


@pytest.mark.parametrize("architecture", ["pictogram", "ViT-B-32", "RN50"])
def test_rows_equal_those_of_torch_at_every_batch_size(
    architecture: str, random_checkpoint: Callable[[str], Path]
) -> None:
    name = architecture
    if name != "pictogram":
        name = f"local-dir:{random_checkpoint(architecture)}"
    encoders = [load(name, backend=b, precision="fp32") for b in ("openvino", "torch")]
    assert [e.info.backend for e in encoders] == ["openvino", "torch"]
    # the image tower alone differs: what is stored of texts stays good
    assert encoders[0].info.fingerprint == encoders[1].info.fingerprint
    for count in (1, 3, 2):
        images = pictures(count, encoders[0].info.image.height)
        found, expected = (e.submit_images(images).result() for e in encoders)
        assert found.dtype == np.float32
        assert float(np.abs(1 - (found * expected).sum(1)).max()) < EXACT
    for encoder in encoders:
        encoder.close()


def test_the_automatic_choice_is_openvino_on_a_cpu_that_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert choose_backend("auto", CPU, installed=True) == "openvino"
    assert choose_backend("auto", CPU, installed=False) == "torch"
    assert choose_backend("auto", GPU, installed=True) == "torch"
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    monkeypatch.setattr(openvino_tower.importlib.util, "find_spec", lambda name: None)
    encoder = load("pictogram")
    assert encoder.info.backend == "torch"
    encoder.close()


@pytest.mark.parametrize(
    ("wanted", "device", "installed", "said"),
    [
        ("tvm", CPU, True, "unknown"),
        ("openvino", GPU, True, "runs on a CPU"),
        ("openvino", CPU, False, "openvocab[openvino]"),
    ],
)
def test_what_cannot_be_had_is_one_line(
    wanted: str, device: torch.device, installed: bool, said: str
) -> None:
    with pytest.raises(BadDevice, match="backend") as caught:
        choose_backend(wanted, device, installed)
    assert said in str(caught.value)


def test_a_tower_that_does_not_compile_is_served_by_torch(
    plain_pictogram: Encoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def other(self: Any, batch: np.ndarray) -> np.ndarray:
        rows = np.zeros((len(batch), plain_pictogram.info.embedding_width), np.float32)
        rows[:, 0] = 1
        return rows

    monkeypatch.setattr(openvino_tower.CompiledTower, "__call__", other)
    with caplog.at_level(logging.WARNING):
        assert compile_tower(plain_pictogram._vision, (64, 64), "fp32", 0) is None
        encoder = load("pictogram", backend="openvino")
    assert "torch serves it" in caplog.text
    assert encoder.info.backend == "torch"
    image = pictures(1, 64)
    np.testing.assert_allclose(
        encoder.submit_images(image).result(),
        plain_pictogram.submit_images(image).result(),
        atol=1e-6,
    )
    encoder.close()
