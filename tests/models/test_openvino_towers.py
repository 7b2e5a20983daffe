"""OpenVINO's towers give torch's rows, are optional, and their failure is no outage."""

import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import openvino_towers
from models.device import choose_backend
from models.encoder import Encoder
from models.errors import BadDevice
from models.info import Floats, Pixels
from models.loader import load
from models.openvino_towers import CompiledImages
from models.sizes import batch_size
from models.torch_loader import compile_images
from models.tracing import image_graph

CPU, GPU = "cpu", "cuda"
EXACT = 1e-5  # 1 - cosine, float32


def pictures(count: int, edge: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (3, edge, edge), np.uint8) for _ in range(count)]


@pytest.mark.parametrize("architecture", ["pictogram", "short-ViT-B-32", "short-RN50"])
@pytest.mark.usefixtures("exported_here")
def test_rows_equal_those_of_torch_at_every_size(
    architecture: str, random_checkpoint: Callable[[str], Path], exports: Path
) -> None:
    name = architecture
    if name != "pictogram":
        name = f"local-dir:{random_checkpoint(architecture)}"
    plain = load(name, backend="torch", precision="fp32")
    # from a folder, and with the image tower alone compiled in a process that has torch
    others = [load(name, precision="fp32", exports=exports), load(name, precision="fp32")]
    assert [e.info.backend for e in (plain, *others)] == ["torch", "openvino", "openvino"]
    for encoder in others:
        # the same vectors: what is stored of texts stays good
        assert encoder.info.fingerprint == plain.info.fingerprint
        for count in (1, 3, 2, 9):  # 9 are filled up to 10
            images = pictures(count, plain.info.image.height)
            rows, expected = (e.submit_images(images).result() for e in (encoder, plain))
            assert rows.dtype == np.float32
            assert float(np.abs(1 - (rows * expected).sum(1)).max()) < EXACT
            prompts = [f"a {'very ' * n}small café" for n in range(4 * min(count, 3))]
            rows, expected = (e.submit_texts(prompts).result() for e in (encoder, plain))
            assert rows.dtype == np.float32
            assert float(np.abs(1 - (rows * expected).sum(1)).max()) < EXACT
        encoder.close()
    plain.close()


def test_a_tower_is_traced_in_one_pass(
    plain_pictogram: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Further ones, of torch.jit's own check, took most of the time of an export."""
    vision, passes = plain_pictogram.images.vision, []
    forward = vision.traceable
    monkeypatch.setattr(
        vision, "traceable", lambda pixels: (passes.append(len(pixels)), forward(pixels))[1]
    )
    image_graph(vision, (64, 64))
    assert passes == [2]


def test_compiled_towers_meet_few_sizes_however_many_images_and_prompts_there_are(
    exports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is prepared for a size is held for good: 2 to 3 MB each."""
    sizes: dict[int, set[tuple[int, ...]]] = {}
    called = openvino_towers.CompiledGraph.__call__

    def watched(graph: Any, *inputs: np.ndarray) -> np.ndarray:
        sizes.setdefault(id(graph), set()).add(tuple(len(each) for each in inputs))
        return called(graph, *inputs)

    monkeypatch.setattr(openvino_towers.CompiledGraph, "__call__", watched)
    encoder = load("pictogram", exports=exports)
    for count in range(1, 25):
        encoder.submit_images(pictures(count, encoder.info.image.height)).result()
        encoder.submit_texts([f"{'very ' * (n % 7)}small {n}" for n in range(3 * count)]).result()
    encoder.close()
    images, texts = sorted(sizes.values(), key=lambda each: len(next(iter(each))))
    assert len(images) <= 12  # of 15 that are less than twice the measured 8
    assert len(texts) <= 20  # each tree was of another size before


def test_what_only_a_new_size_needed_is_released(exports: Path) -> None:
    encoder = load("pictogram", exports=exports)
    encoder.submit_images(pictures(7, encoder.info.image.height)).result()
    plugin = [
        part
        for part in Path("/proc/self/smaps").read_text().split("VmFlags")
        if "intel_cpu_plugin" in part
    ]
    encoder.close()
    size, resident = (
        sum(int(figure) for part in plugin for figure in re.findall(rf"{name}: +(\d+)", part))
        for name in ("Size", "Rss")
    )
    assert size > 50_000
    assert resident < 10_000  # kB; with the code that prepares a graph it is 20,000


def test_openvino_starts_no_thread_and_reports_to_nobody() -> None:
    code = (
        "import os, sys, numpy, models\n"
        "def threads(): return len(os.listdir('/proc/self/task'))\n"
        "before = threads(); import openvino\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
        "assert threads() == before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)
    # nor with its frontend of torch, which is imported here
    assert "models.tracing" in sys.modules
    assert "openvino_telemetry" not in sys.modules


def test_the_automatic_choice_is_openvino_on_a_cpu_that_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert choose_backend("auto", CPU, installed=True) == "openvino"
    assert choose_backend("auto", CPU, installed=False) == "torch"
    assert choose_backend("auto", GPU, installed=True) == "torch"
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    monkeypatch.setattr("models.loader.available", lambda: False)
    encoder = load("pictogram")
    assert encoder.info.backend == "torch"
    encoder.close()


@pytest.mark.parametrize(
    ("requested", "device", "installed", "message"),
    [
        ("tvm", CPU, True, "unknown"),
        ("openvino", GPU, True, "runs on a CPU"),
        ("torch", "gpu:1", True, "OpenVINO's"),
        ("openvino", CPU, False, "openvocab[openvino]"),
    ],
)
def test_what_cannot_be_had_is_one_line(
    requested: str, device: str, installed: bool, message: str
) -> None:
    with pytest.raises(BadDevice, match="backend") as caught:
        choose_backend(requested, device, installed)
    assert message in str(caught.value)


def test_a_tower_that_does_not_compile_is_served_by_torch(
    plain_pictogram: Encoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def other(self: Any, batch: np.ndarray) -> np.ndarray:
        rows = np.zeros((len(batch), plain_pictogram.info.embedding_width), np.float32)
        rows[:, 0] = 1
        return rows

    monkeypatch.setattr(openvino_towers.CompiledImages, "__call__", other)
    with caplog.at_level(logging.WARNING):
        assert compile_images(plain_pictogram.images.vision, (64, 64), "fp32", 0) is None
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


class Recorded(CompiledImages):
    """Says how many images each pass had; a pass gives its images back."""

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self.sizes: list[int] = []

    def forward(self, batch: Pixels) -> Floats:
        self.sizes.append(len(batch))
        return batch.astype(np.float32)


@pytest.mark.parametrize("at_once", [1, 3, 8, 9])
def test_all_passes_but_the_last_have_a_size_without_filling(at_once: int) -> None:
    for count in range(1, 70):
        tower = Recorded(at_once)
        assert tower(np.arange(count, dtype=np.uint8)).tolist() == list(range(count))
        assert all(batch_size(size) == size for size in tower.sizes[:-1])
        assert len(tower.sizes) == max(1, count // at_once)


UNLOADED = """
import gc, os, signal, sys
from pathlib import Path
from models.loader import load

encoder = load("pictogram", device="cpu", precision="fp32", threads=1, exports=Path(sys.argv[1]))
encoder.close()
del encoder
gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_process_that_unloaded_a_model_outlives_a_signal(exports: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNLOADED, str(exports)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
