"""A model on a GPU: the same answers as on a CPU, whatever happens beside. Run by `-m gpu`.

OPENVOCAB_GPU names the device (`cuda`); `cpu` rehearses all that a CPU can do of it.
"""

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from app.classify.templates import presets
from app.images.decode import decode
from app.images.limits import ImageLimits
from benchmarks.gpu.memory import after_loads, in_own_process, used
from models.catalog import catalog
from models.encoder import Encoder
from models.loader import load
from models.torch_towers import TorchPrompts, TorchTrees

DEVICE = os.environ.get("OPENVOCAB_GPU", "cuda")
ON_GPU = DEVICE != "cpu"
BUNDLED = next(iter(catalog()))
# batches of the soak: a rehearsal shows that it runs, not that it holds
BATCHES = 10_000 if ON_GPU else 40

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        ON_GPU and not torch.cuda.is_available(),
        reason="no CUDA device here; OPENVOCAB_GPU=cpu rehearses these tests",
    ),
]
needs_gpu = pytest.mark.skipif(not ON_GPU, reason="only a GPU has this")

Pixels = npt.NDArray[np.uint8]

# a tower without causal mask, with a sigmoid's bias, as SigLIP has them
SIGLIP_LIKE = {
    "embed_dim": 128,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {"image_size": 96, "layers": 3, "width": 128, "patch_size": 16, "head_width": 64},
    "text_cfg": {
        "context_length": 32, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 2,
        "no_causal_mask": True, "pool_type": "last",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def source(
    random_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """What `load` takes for one of the models that are compared."""
    siglip: list[Path] = []

    def name(model: str) -> str:
        if model == "bundled":
            return BUNDLED
        if model != "siglip-like":
            return f"local-dir:{random_checkpoint(model)}"
        if not siglip:
            folder = tmp_path_factory.mktemp("siglip-like")
            torch.manual_seed(0)
            built = open_clip.CustomTextCLIP(
                **{k: v for k, v in SIGLIP_LIKE.items() if k != "custom_text"}  # type: ignore[arg-type]
            )
            built.logit_scale.data.fill_(math.log(100))
            config = {"model_cfg": SIGLIP_LIKE, "preprocess_cfg": {}}
            (folder / "open_clip_config.json").write_text(json.dumps(config))
            save_file(built.state_dict(), folder / "open_clip_model.safetensors")
            siglip.append(folder)
        return f"local-dir:{siglip[0]}"

    return name


def on_device(source: str, precision: str = "fp32", **options: Any) -> Encoder:
    return load(source, device=DEVICE, precision=precision, backend="torch", **options)


def pictures(encoder: Encoder, samples: dict[str, Path]) -> list[Pixels]:
    spec, limits = encoder.info.image, ImageLimits()
    return [decode(path.read_bytes(), spec, limits).pixels for path in samples.values()]


def logits(encoder: Encoder, pixels: list[Pixels], labels: list[str]) -> npt.NDArray[np.float32]:
    rows = encoder.submit_images(pixels).result()
    texts = encoder.submit_texts([f"a photo of a {label}." for label in labels]).result()
    return np.asarray(encoder.info.scale * rows @ texts.T, np.float32)


@pytest.mark.parametrize("model", ["bundled", "ViT-B-32", "RN50", "siglip-like"])
def test_fp32_answers_as_on_a_cpu(
    source: Callable[[str], str], samples: dict[str, Path], model: str
) -> None:
    cpu = load(source(model), device="cpu", precision="fp32", backend="torch")
    gpu = on_device(source(model))
    labels, pixels = list(samples), pictures(cpu, samples)
    apart = np.abs(logits(cpu, pixels, labels) - logits(gpu, pixels, labels)).max()
    cpu.close()
    gpu.close()
    assert apart < 1e-3


@pytest.mark.parametrize("precision", ["bf16", "fp16"] if ON_GPU else ["bf16"])
def test_half_precision_keeps_the_best_label(
    source: Callable[[str], str], samples: dict[str, Path], precision: str
) -> None:
    exact = on_device(source("ViT-B-32"))
    half = on_device(source("ViT-B-32"), precision)
    pixels, labels = pictures(exact, samples), list(samples)
    agree = (
        logits(exact, pixels, labels).argmax(1) == logits(half, pixels, labels).argmax(1)
    ).mean()
    exact.close()
    half.close()
    assert agree >= 0.99


@pytest.mark.parametrize("colour", [0, 128, 255])
def test_a_picture_of_one_colour_is_finite(source: Callable[[str], str], colour: int) -> None:
    for model in ("ViT-B-32", "RN50"):
        encoder = on_device(source(model), "fp16" if ON_GPU else "bf16")
        spec = encoder.info.image
        plain = np.full((3, spec.height, spec.width), colour, np.uint8)
        rows = encoder.submit_images([plain]).result()
        encoder.close()
        assert np.isfinite(rows).all()
        assert np.linalg.norm(rows[0]) == pytest.approx(1, abs=1e-3)


def test_recorded_passes_equal_plain_ones_under_load(
    source: Callable[[str], str], samples: dict[str, Path]
) -> None:
    encoder = on_device(source("ViT-B-32"), max_batch=64 if ON_GPU else 8)
    if ON_GPU:
        assert encoder.images.recorded is not None, "nothing was recorded"
    most = 64 if ON_GPU else 8
    spec = encoder.info.image
    dice = np.random.default_rng(0)
    pool = [dice.integers(0, 256, (3, spec.height, spec.width), np.uint8) for _ in range(most)]
    plain = [encoder.images.vision.rows(torch.from_numpy(pixels[None]).to(DEVICE)).cpu().numpy()[0]
             for pixels in pool]  # fmt: skip
    ended = threading.Event()

    def builds() -> int:
        rounds = 0
        while not ended.is_set():
            encoder.submit_texts([f"a photo of thing {n}" for n in range(50)]).result()
            rounds += 1
        return rounds

    def batches(seed: int) -> float:
        rng, worst = np.random.default_rng(seed), 0.0
        for turn in range(BATCHES // 8):
            # every size comes up, and then by chance
            size = turn % most + 1 if turn < most else int(rng.integers(1, most + 1))
            chosen = rng.integers(0, most, size)
            rows = encoder.submit_images([pool[n] for n in chosen]).result()
            expected = np.stack([plain[n] for n in chosen])
            worst = max(worst, float(np.abs(1 - (rows * expected).sum(1)).max()))
        return worst

    with ThreadPoolExecutor(9) as threads:
        building = threads.submit(builds)
        worst = max(threads.map(batches, range(8)))
        ended.set()
        assert building.result() > 0
    encoder.close()
    assert worst < 1e-3


def test_a_model_is_loaded_and_recorded_while_another_one_answers(
    source: Callable[[str], str],
) -> None:
    serving = on_device(source("bundled"), max_batch=8)
    spec, most = serving.info.image, 32  # larger batches are not recorded, and take memory
    dice = np.random.default_rng(0)
    batch = [dice.integers(0, 256, (3, spec.height, spec.width), np.uint8) for _ in range(most)]
    expected = serving.submit_images(batch[:1]).result()[0]
    ended = threading.Event()

    def answers() -> float:
        worst, size = 0.0, 0
        while not ended.is_set():
            size = size % most + 1
            rows = serving.submit_images(batch[:size]).result()
            worst = max(worst, float(np.abs(1 - rows[0] @ expected)))
            serving.submit_texts([f"a photo of thing {n}" for n in range(16 * size)]).result()
        return worst

    with ThreadPoolExecutor(1) as threads:
        answering = threads.submit(answers)
        try:
            for _ in range(3):
                other = on_device(source("bundled"), max_batch=8)
                assert other.images.recorded is not None or not ON_GPU, "nothing was recorded"
                rows = other.submit_images(batch[:1]).result()
                assert np.abs(1 - rows[0] @ expected) < 1e-3
                other.close()
        finally:
            ended.set()
        assert answering.result() < 1e-3
    serving.close()


@needs_gpu
def test_out_of_memory_halves_the_batch_and_recovers(source: Callable[[str], str]) -> None:
    encoder = on_device(source("ViT-B-32"), "fp32", max_batch=1)  # larger ones are not recorded
    spec = encoder.info.image
    batch = [np.full((3, spec.height, spec.width), n % 256, np.uint8) for n in range(1024)]
    expected = np.concatenate([encoder.submit_images(batch[i : i + 64]).result()
                               for i in range(0, len(batch), 64)])  # fmt: skip
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 6e8) / total)
    try:
        rows = encoder.submit_images(batch).result()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert np.abs(rows - expected).max() < 1e-3
    assert np.abs(encoder.submit_images(batch[:3]).result() - expected[:3]).max() < 1e-3
    encoder.close()


def test_a_device_that_fails_ends_the_process_before_any_answer(tmp_path: Path) -> None:
    program = """
import sys, torch
from app.server.build import end_process
from models.loader import load
encoder = load(sys.argv[1], device=sys.argv[2], backend="torch")
encoder.on_device_lost(end_process)
def broken(_pixels):
    if sys.argv[2] == "cpu":
        raise RuntimeError("CUDA error: device-side assert triggered")
    index = torch.full((1,), 10**6, device=sys.argv[2])
    rows = torch.zeros(4, device=sys.argv[2])[index]
    torch.cuda.synchronize()
    return rows
encoder.images.recorded = None
encoder.images.vision.rows = broken
import numpy as np
spec = encoder.info.image
try:
    encoder.submit_images([np.zeros((3, spec.height, spec.width), np.uint8)]).result()
finally:
    print("answered")
"""
    process = subprocess.run(
        [sys.executable, "-c", program, BUNDLED, DEVICE],
        capture_output=True, text=True, timeout=200, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.returncode == 71, process.stderr[-2000:]
    assert "answered" not in process.stdout


def test_memory_comes_back_when_a_model_goes(source: Callable[[str], str]) -> None:
    elsewhere = used(DEVICE).on_device
    model = source("ViT-B-32" if ON_GPU else "bundled")
    _, second, *_, last = in_own_process(after_loads, model, DEVICE, 6, elsewhere)
    # the first load pays for what stays
    assert last.resident <= second.resident * 1.05
    assert last.on_device <= second.on_device * 1.05 + 2


def test_the_tree_of_prompts_equals_the_full_context(source: Callable[[str], str]) -> None:
    encoder = on_device(source("ViT-B-32"))
    prompts = [f"{start} {label}." for label in presets()["imagenet-1k"].labels[:20]
               for start in ("a photo of a", "a drawing of the", "")]  # fmt: skip
    assert isinstance(encoder.texts, TorchTrees)
    model = TorchPrompts(encoder.images.vision._model)
    full = model.at_full_length(encoder.tokens(prompts))
    tree = encoder.submit_texts(prompts).result()
    encoder.close()
    assert np.abs(1 - (full * tree).sum(1)).max() < 1e-5
