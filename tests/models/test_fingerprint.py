"""The fingerprint: the same for the same model, another for any change that matters."""

from typing import Any

import numpy as np
import pytest
import torch

from models.fingerprint import fingerprint

BASE: dict[str, Any] = {
    "weights": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)},
    "architecture": {"class": "CLIP"},
    "precision": "fp32",
    "preprocessing": {"mean": (0.5, 0.5, 0.5), "size": 64},
    "tokens": np.array([[1, 2, 3]]),
}


def test_equal_models_have_one_fingerprint() -> None:
    copy = {**BASE, "weights": {name: w.clone() for name, w in BASE["weights"].items()}}
    assert fingerprint(**BASE) == fingerprint(**copy)
    assert len(fingerprint(**BASE)) == 32


@pytest.mark.parametrize(
    "change",
    [
        {"weights": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1.0, 1.0000001])}},
        {"weights": {"a": torch.arange(6.0).reshape(3, 2), "b": torch.ones(2)}},
        {"weights": {"a": torch.arange(6.0).reshape(2, 3), "c": torch.ones(2)}},
        {"weights": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2).half()}},
        {"architecture": {"class": "CoCa"}},
        {"precision": "bf16"},
        {"preprocessing": {"mean": (0.5, 0.5, 0.4), "size": 64}},
        {"tokens": np.array([[1, 2, 4]])},
    ],
    ids=["weight", "shape", "name", "dtype", "architecture", "precision", "pixels", "tokenizer"],
)
def test_a_change_gives_another_fingerprint(change: dict[str, Any]) -> None:
    assert fingerprint(**{**BASE, **change}) != fingerprint(**BASE)


def test_scalars_and_bfloat16_have_digests_too() -> None:
    weights = {"scale": torch.tensor(1.5), "w": torch.ones(3, dtype=torch.bfloat16)}
    other = {"scale": torch.tensor(1.6), "w": torch.ones(3, dtype=torch.bfloat16)}
    assert fingerprint(**{**BASE, "weights": weights}) != fingerprint(**{**BASE, "weights": other})
