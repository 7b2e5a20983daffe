"""Which device and precision are chosen, with stand-ins for what is not here; and how a device that
computes something else is found out.
"""

import importlib.abc
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch

from models import device, processor, torch_loader
from models.device import CPU, choose_backend, choose_device, choose_precision
from models.errors import BadDevice, DeviceUnfit, ModelUnavailable
from models.loader import fetch, load

Here = Callable[..., None]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    """Say how many devices of each kind there are; none of the others."""

    def stand_in(**counts: int) -> None:
        monkeypatch.setattr(device, "may_have", lambda kind: kind in counts)
        monkeypatch.setattr(device, "devices", lambda kind: counts.get(kind, 0))

    return stand_in


@pytest.mark.parametrize(
    ("counts", "backend", "chosen"),
    [
        ({}, "auto", "cpu"),
        ({"cuda": 2, "gpu": 1}, "auto", "cuda"),
        ({"xpu": 1, "gpu": 1}, "auto", "xpu"),
        ({"mps": 1}, "auto", "mps"),
        ({"gpu": 1}, "auto", "gpu"),
        ({"gpu": 1}, "torch", "cpu"),
        ({"cuda": 1, "gpu": 1}, "openvino", "gpu"),
        ({"cuda": 1}, "openvino", "cpu"),
        # a driver is installed, and nothing is in the machine
        ({"cuda": 0, "mps": 1}, "auto", "mps"),
    ],
)
def test_auto_takes_the_first_device_that_the_backend_can_use(
    here: Here, counts: dict[str, int], backend: str, chosen: str
) -> None:
    here(**counts)
    assert choose_device("auto", backend) == chosen


@pytest.mark.parametrize(
    ("name", "chosen"),
    [("cpu", "cpu"), ("CUDA:1", "cuda:1"), ("xpu", "xpu"), ("mps", "mps"), ("GPU.1", "gpu:1")],
)
def test_a_device_is_named(here: Here, name: str, chosen: str) -> None:
    here(cuda=2, xpu=1, mps=1, gpu=2)
    assert choose_device(name) == chosen


@pytest.mark.parametrize("name", ["cpu:0", "mps:1", "cuda:", "cuda:-1", "gpu 0", "privateuseone"])
def test_what_is_no_name_of_a_device_is_told(here: Here, name: str) -> None:
    here(cuda=2, mps=2, gpu=1)
    with pytest.raises(BadDevice, match="use auto, cpu, "):
        choose_device(name)


@pytest.mark.parametrize("error", [ImportError, OSError])
def test_a_pytorch_that_cannot_be_loaded_is_told_in_a_line(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "libcudart.so: cannot open shared object file"

    class Broken(importlib.abc.MetaPathFinder):
        def find_spec(self, fullname: str, *_: object) -> None:
            if fullname in ("torch", "models.torch_loader"):
                raise error(reason)

    monkeypatch.setattr(
        device, "torch_or_error", lambda _what: None
    )  # it looks as if it were there
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.delitem(sys.modules, "models.torch_loader")
    monkeypatch.delattr("models.torch_loader")
    for asked, call in (
        ("device 'cuda'", lambda: device.devices("cuda")),
        ("model 'ViT-B-32/openai'", lambda: load("ViT-B-32/openai", device="cpu", backend="torch")),
        ("model 'ViT-B-32/openai'", lambda: fetch("ViT-B-32/openai")),
    ):
        with pytest.raises(ModelUnavailable) as told:
            call()
        assert str(told.value) == f"{asked} needs PyTorch, which cannot be loaded: {reason}"


def test_a_device_beyond_those_that_are_here_is_told(here: Here) -> None:
    here(gpu=1)
    with pytest.raises(BadDevice, match="1 Intel GPUs for OpenVINO found"):
        choose_device("gpu:1")


@pytest.mark.parametrize(
    ("name", "able", "precision"),
    [
        ("mps", False, "fp16"),
        ("gpu:1", False, "fp16"),
        ("xpu", True, "bf16"),
        ("xpu", False, "fp32"),
        ("cpu", True, "bf16"),
        ("cpu", False, "fp32"),
    ],
)
def test_the_precision_is_what_the_device_does_fast(
    monkeypatch: pytest.MonkeyPatch, name: str, able: bool, precision: str
) -> None:
    monkeypatch.setattr(processor, "has_fast_bf16", lambda: able)
    units = {"has_subgroup_matrix_multiply_accumulate": able}
    monkeypatch.setattr(torch.xpu, "get_device_capability", lambda _: units)
    assert choose_precision("auto", name, None) == precision
    assert choose_precision("auto", name, "fp32") == "fp32"


def test_what_openvino_does_not_compute_in_is_told() -> None:
    with pytest.raises(BadDevice, match="bf16"):
        choose_precision("bf16", "gpu", None)
    assert choose_backend("auto", "gpu", installed=True) == "openvino"
    assert choose_backend("auto", "xpu", installed=True) == "torch"


def test_a_gpu_of_intels_is_looked_for_before_anything_is_imported(tmp_path: Path) -> None:
    assert not processor.may_have_intel_gpu(tmp_path)
    for number, vendor in enumerate(("0x10de", "0x8086")):
        card = tmp_path / f"renderD{128 + number}" / "device"
        card.mkdir(parents=True)
        (card / "vendor").write_text(f"{vendor}\n")
        assert processor.may_have_intel_gpu(tmp_path) == (vendor == "0x8086")


@pytest.fixture
def apple(here: Here, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A stand-in for Apple's GPU that computes on the CPU; the devices that models went to."""
    here(mps=1)
    moved: list[str] = []

    def move(model: Any, name: str, dtype: torch.dtype) -> None:
        moved.append(name)
        model.to(dtype=dtype)

    monkeypatch.setattr(torch_loader, "move", move)
    return moved


def test_an_untried_device_that_computes_the_same_serves(apple: list[str]) -> None:
    encoder = load("pictogram", backend="torch")
    assert (encoder.info.device, encoder.info.precision, apple) == ("mps", "fp32", ["mps"])
    encoder.close()


def test_a_device_that_computes_something_else_is_found_out(
    apple: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    right = torch_loader.move

    def wrong(model: Any, name: str, dtype: torch.dtype) -> None:
        right(model, name, dtype)
        if name != CPU:
            model.text_projection.data = model.text_projection.flip(0).contiguous()

    monkeypatch.setattr(torch_loader, "move", wrong)
    with pytest.raises(DeviceUnfit, match=r"does not compute on mps in fp32 .* off"):
        load("pictogram", device="mps", backend="torch")
    with caplog.at_level(logging.WARNING):
        encoder = load("pictogram", backend="torch")
    assert encoder.info.device == CPU
    assert "it runs on the CPU" in caplog.text
    encoder.close()


def test_a_device_that_cannot_do_an_operation_is_told_in_a_line(
    apple: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise NotImplementedError("aten::something is not there on mps\nmore")

    monkeypatch.setattr(torch_loader, "move", refuse)
    with pytest.raises(DeviceUnfit, match="does not run on mps: aten::something is not there"):
        load("pictogram", device="mps", backend="torch")


def test_an_encoder_that_fails_to_warm_up_leaves_no_thread(
    apple: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def move(model: Any, *_: object) -> None:
        model.encode_text = None

    def threads() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "encoder"}

    before = threads()
    monkeypatch.setattr(torch_loader, "move", move)
    monkeypatch.setattr(torch_loader, "trimmable_text_tower", lambda _model: None)
    with pytest.raises(TypeError):
        load("pictogram", device="mps", backend="torch")
    assert threads() == before


@pytest.fixture
def intel(here: Here, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """A stand-in for a GPU of Intel's by OpenVINO, which computes on the CPU; what was asked."""
    here(gpu=2)
    compiled = openvino.Core.compile_model
    calls: list[tuple[str, dict[str, Any]]] = []

    def on_cpu(core: Any, graph: Any, name: str, options: dict[str, Any]) -> Any:
        calls.append((name, options))
        return compiled(core, graph, "CPU", options)

    monkeypatch.setattr(openvino.Core, "compile_model", on_cpu)
    return calls


def test_openvinos_gpu_serves_what_was_exported(
    intel: list[tuple[str, dict[str, Any]]], tmp_path: Path
) -> None:
    encoder = load("pictogram", device="gpu:1", exports=tmp_path)
    assert (encoder.info.device, encoder.info.backend) == ("gpu:1", "openvino")
    rows = encoder.submit_texts(["cat"]).result()
    encoder.close()
    assert {name for name, _ in intel} == {"GPU.1"}
    assert not any(
        option in options
        for _, options in intel
        for option in ("ENABLE_CPU_PINNING", "INFERENCE_NUM_THREADS")
    )
    plain = load("pictogram", device="cpu", exports=tmp_path)
    np.testing.assert_allclose(plain.submit_texts(["cat"]).result(), rows, atol=1e-5)
    plain.close()


def test_a_gpu_of_openvinos_that_cannot_compile_gives_way_to_the_cpu(
    here: Here, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here(gpu=1)
    compiled = openvino.Core.compile_model

    def only_cpu(core: Any, graph: Any, name: str, options: dict[str, Any]) -> Any:
        if name != "CPU":
            raise RuntimeError("no kernel for this")
        return compiled(core, graph, name, options)

    monkeypatch.setattr(openvino.Core, "compile_model", only_cpu)
    with pytest.raises(DeviceUnfit, match="gpu"):
        load("pictogram", device="gpu", exports=tmp_path)
    with caplog.at_level(logging.WARNING):
        encoder = load("pictogram", exports=tmp_path)
    assert encoder.info.device == CPU
    assert "it runs on the CPU" in caplog.text
    encoder.close()
