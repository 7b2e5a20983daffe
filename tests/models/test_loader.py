"""Names to encoders: what loads, and the one line that says why something does not."""

import contextlib
import functools
import json
import operator
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from models import BadCheckpoint, BadDevice, ModelError, ModelUnavailable, UnknownModel, catalog
from models.catalog import provenance_of, restricted_licence
from models.device import with_room
from models.encoder import Encoder
from models.loader import fetch, load, load_to_share
from tests.conftest import NO_HUB, AtHub

BUNDLED_MODELS = ("everyday", "pictogram")
BUNDLED = Path(catalog()["pictogram"].loader.removeprefix("local-dir:"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The bundled model in a folder of its own."""
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        shutil.copy(BUNDLED / name, tmp_path)
    return tmp_path


def test_the_bundled_model_always_runs_in_fp32(pictogram: Encoder) -> None:
    assert pictogram.info.precision == "fp32"
    with pytest.raises(BadDevice, match="always runs in fp32"):
        load("pictogram", precision="bf16")


def test_a_local_directory_gives_the_same_model(copy: Path, pictogram: Encoder) -> None:
    encoder = load(f"local-dir:{copy}", precision="fp32", backend="torch")
    assert encoder.info.fingerprint == pictogram.info.fingerprint
    image = np.full((3, encoder.info.image.height, encoder.info.image.width), 90, np.uint8)
    rows = [e.submit_images([image]).result() for e in (encoder, pictogram)]
    np.testing.assert_allclose(*rows, atol=1e-6)  # one is compiled from its export
    encoder.close()


def test_another_precision_is_another_fingerprint(copy: Path, pictogram: Encoder) -> None:
    encoder = load(f"local-dir:{copy}", precision="bf16", device="cpu", backend="torch")
    assert encoder.info.precision == "bf16"
    assert encoder.info.fingerprint != pictogram.info.fingerprint
    # the temperature is read before the cast: bf16 has 8 bits of it
    assert encoder.info.scale == pictogram.info.scale
    encoder.close()


@pytest.mark.parametrize(
    ("part", "option", "value"),
    [
        (("preprocess_cfg",), "mean", [0.1, 0.2, 0.3]),
        # they leave no trace in the weights
        (("model_cfg", "text_cfg"), "heads", 2),
        (("model_cfg", "text_cfg"), "pool_type", "last"),
        (("model_cfg", "vision_cfg"), "head_width", 96),
    ],
)
def test_another_option_is_another_fingerprint(
    copy: Path, part: tuple[str, ...], option: str, value: object
) -> None:
    fingerprints = []
    config = json.loads((copy / "open_clip_config.json").read_text())
    for _ in range(2):
        with contextlib.closing(
            load(f"local-dir:{copy}", precision="fp32", backend="torch")
        ) as encoder:
            fingerprints.append(encoder.info.fingerprint)
        functools.reduce(operator.getitem, part, config)[option] = value
        (copy / "open_clip_config.json").write_text(json.dumps(config))
    assert len(set(fingerprints)) == 2


def test_vectors_of_a_random_resnet_do_not_depend_on_the_batch(
    random_checkpoint: Callable[[str], Path],
) -> None:
    name = f"local-dir:{random_checkpoint('short-RN50')}"
    encoder = load(name, precision="fp32", backend="torch")  # whose rows others are compared with
    assert encoder.info.trims_text
    images = list(np.random.default_rng(0).integers(0, 256, (3, 3, 96, 96), np.uint8))
    together = encoder.submit_images(images).result()
    np.testing.assert_allclose(encoder.submit_images(images[:1]).result(), together[:1], atol=1e-5)
    encoder.close()


def test_running_figures_of_a_resnet_that_are_no_numbers_are_refused(
    random_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(random_checkpoint("short-RN50"), tmp_path / "astray")
    weights = load_file(folder / "open_clip_model.safetensors")
    weights["visual.bn1.running_var"][0] = torch.nan
    save_file(weights, folder / "open_clip_model.safetensors")
    with pytest.raises(BadCheckpoint, match=r"tensor visual\.bn1\.running_var holds NaN"):
        load(f"local-dir:{folder}", precision="fp32", backend="torch")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("pictogam", "did you mean pictogram"),
        ("ViT-B-32/opennai", "only openai, "),
        ("ViT-B-33/openai", "did you mean ViT-B-32/openai"),
        ("nothing like a model", "openvocab models list"),
        ("ViT-B-32", "did you mean ViT-B-32/openai or "),
        ("ViT-B/32", "did you mean ViT-B-32/openai or "),
        ("clip-vit-b-32", "did you mean ViT-B-32/openai or "),
        ("ViT-B-32__openai", "did you mean ViT-B-32/openai? "),
        ("vit-b-32/openai", "did you mean ViT-B-32/openai? "),
        ("ViT-L/14@336px", "did you mean ViT-L-14-336/openai or "),
        ("openai/clip-vit-base-patch32", "did you mean hf-hub:openai/clip-vit-base-patch32? "),
        (
            "https://huggingface.co/openai/clip-vit-base-patch32/tree/main",
            "did you mean hf-hub:openai/clip-vit-base-patch32? ",
        ),
        ("hf-hub://openai/clip@main", "did you mean hf-hub:openai/clip? "),
        ("hf-hub:clip", "hf-hub:owner/name"),
        (str(BUNDLED), f"did you mean local-dir:{BUNDLED}? "),
        ("ViT-B32/opnai", "did you mean ViT-B-32/openai"),
        ("./clip", "is unknown: use a name"),
        ("~nobody-of-this-name", "is unknown: use a name"),
        ("a" * 300, "is unknown: "),
    ],
)
def test_an_unknown_name_is_told_with_what_was_meant(name: str, hint: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        load(name)
    assert repr(name) in str(caught.value)
    assert hint in str(caught.value)


def test_every_error_of_loading_names_what_works_offline() -> None:
    for name in ("pictogam", "local-dir:/nowhere"):
        with pytest.raises(ModelError, match="--model everyday"):
            load(name)


def test_missing_files_are_told_apart(copy: Path) -> None:
    with pytest.raises(BadCheckpoint, match="no such folder"):
        load(f"local-dir:{copy}/nothing")
    (copy / "open_clip_model.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match=r"no open_clip_model\.safetensors"):
        load(f"local-dir:{copy}")
    (copy / "open_clip_config.json").unlink()
    with pytest.raises(BadCheckpoint, match=r"neither open_clip_config\.json nor config\.json"):
        load(f"local-dir:{copy}")


def test_a_model_in_a_folder_below_is_told(copy: Path) -> None:
    for step, written in ((1_000, 2_000_000_000), (500, 1_000_000_000)):
        (copy / f"checkpoint-{step}").mkdir()
        (copy / f"checkpoint-{step}" / "config.json").touch()
        os.utime(copy / f"checkpoint-{step}" / "config.json", (written, written))
    (copy / "open_clip_config.json").unlink()
    with pytest.raises(BadCheckpoint, match="only in its subfolder checkpoint-1000; "):
        load(f"local-dir:{copy}")


def test_a_checkpoint_of_open_clips_training_is_read_by_the_name_that_is_told(
    copy: Path, pictogram: Encoder
) -> None:
    weights = load_file(copy / "open_clip_model.safetensors")
    (copy / "open_clip_model.safetensors").unlink()
    # of several processes, with what an optimizer keeps
    state = {f"module.{name}": tensor for name, tensor in weights.items()}
    checkpoint = {"epoch": 5, "name": "mine", "state_dict": state, "optimizer": {"state": {}}}
    torch.save(checkpoint, copy / "epoch_5.pt")
    with pytest.raises(BadCheckpoint, match=r"rename epoch_5\.pt to open_clip_pytorch_model\.bin"):
        load(f"local-dir:{copy}")
    (copy / "epoch_5.pt").rename(copy / "open_clip_pytorch_model.bin")
    encoder = load(f"local-dir:{copy}", precision="fp32", backend="torch")
    assert encoder.info.fingerprint == pictogram.info.fingerprint
    encoder.close()


def test_a_tensor_without_a_place_is_named(copy: Path) -> None:
    weights = load_file(copy / "open_clip_model.safetensors")
    save_file({**weights, "ema.scale": torch.ones(1)}, copy / "open_clip_model.safetensors")
    with pytest.raises(BadCheckpoint, match=r'Unexpected key\(s\) in state_dict: "ema\.scale"'):
        load(f"local-dir:{copy}")


def test_a_tokenizer_that_a_folder_lacks_is_told(copy: Path) -> None:
    config = json.loads((copy / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "someone/tokenizer"
    (copy / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(BadCheckpoint, match=r"there is no tokenizer\.json: copy "):
        load(f"local-dir:{copy}")


@pytest.mark.parametrize("damage", ["cut", "garbage", "config", "other architecture"])
def test_a_damaged_checkpoint_is_one_line(copy: Path, damage: str) -> None:
    weights, config = copy / "open_clip_model.safetensors", copy / "open_clip_config.json"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:100_000])
    elif damage == "garbage":
        weights.write_bytes(os.urandom(1000))
    elif damage == "config":
        config.write_text("{")
    else:
        changed = json.loads(config.read_text())
        changed["model_cfg"]["text_cfg"]["width"] *= 2
        config.write_text(json.dumps(changed))
    with pytest.raises(BadCheckpoint) as caught:
        load(f"local-dir:{copy}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("device", "precision", "complaint"),
    [
        ("tpu", "auto", "not a device name"),
        ("meta", "auto", "not a device name"),
        ("cuda:99", "auto", "0 CUDA devices found"),
        ("mps", "auto", "0 Apple GPUs found"),
        ("xpu:1", "auto", "0 Intel GPUs for PyTorch"),
        ("gpu", "auto", "0 Intel GPUs for OpenVINO"),
        ("cpu", "int8", "unknown"),
        ("cpu", "fp16", "needs a GPU"),
    ],
)
def test_a_device_or_precision_that_is_not_here_is_told(
    copy: Path, device: str, precision: str, complaint: str
) -> None:
    with pytest.raises(BadDevice, match=complaint):
        load(f"local-dir:{copy}", device=device, precision=precision)


def test_the_catalogue_answers_which_one() -> None:
    models = catalog()
    picks = {entry.pick: entry for entry in models.values() if entry.pick}
    assert {"cheapest", "balanced", "best", "many languages, cheapest"} <= set(picks)
    assert all(entry.free for entry in picks.values())
    cheapest, balanced, best = (picks[name] for name in ("cheapest", "balanced", "best"))
    assert cheapest.gflops < balanced.gflops < best.gflops
    for name, entry in models.items():
        assert (entry.provenance.imagenet_top1 is None) == (entry.provenance.figures is None), name
        licence = entry.provenance.licence.lower()
        assert entry.free != ("nc" in licence or "amlr" in licence), entry.name
        assert restricted_licence(name) == (None if entry.free else entry.provenance.licence), name
        assert ("mul" in entry.provenance.languages) <= (
            "extra `hf`" in entry.provenance.description
        ), entry.name


@pytest.mark.parametrize(
    "name",
    [
        "ViT-B-32-256/datacomp_s34b_b86k",
        "ViT-gopt-16-SigLIP2-384/webli",
        "MobileCLIP2-S0/dfndr2b",
    ],
)
def test_the_cost_of_a_picture_is_what_torch_counts(name: str) -> None:
    architecture = name.partition("/")[0]
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = open_clip.create_model(architecture, load_weights=False, device="meta")
        size = model.visual.image_size
        edge = size if isinstance(size, int) else size[0]
        model.encode_image(torch.zeros(1, 3, edge, edge))
    entry = catalog()[name]
    assert counter.get_total_flops() / 1e9 == pytest.approx(entry.gflops, abs=0.05)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert 4 * parameters / 1e6 == pytest.approx(entry.size_mb, rel=0.02)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("MobileCLIP2-S0/dfndr2b", "its licence (apple-amlr) allows no commercial use"),
        # none of these is in the catalogue
        ("MobileCLIP2-S4/dfndr2b", "its licence (apple-amlr) allows no commercial use"),
        ("ViT-H-14-378-quickgelu/dfn5b", "its licence (apple-amlr) allows no commercial use"),
        ("hf-hub:apple/DFN5B-CLIP-ViT-H-14", "its licence (apple-amlr) allows no commercial use"),
        (
            "ViT-bigG-14-worldwide-378/metaclip2_worldwide",
            "its licence (CC-BY-NC-4.0) allows no commercial use",
        ),
        (
            "hf-hub:timm/vit_base_patch32_clip_224.metaclip_400m",
            "its licence (CC-BY-NC-4.0) allows no commercial use",
        ),
        ("hf-hub:someone/tuned", "its licence is not known here; see where it comes from"),
        ("MobileCLIP-S1/datacompdr", "its licence is not known here; see where it comes from"),
    ],
)
def test_a_licence_that_is_not_free_or_not_known_is_told_before_the_download(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, name: str, line: str
) -> None:
    def unreachable(loader: str) -> None:
        assert [record.message for record in caplog.records] == [f"{name}: {line}"]
        raise ModelUnavailable(loader)

    monkeypatch.setattr("models.torch_loader.from_source", unreachable)
    with pytest.raises(ModelUnavailable):
        fetch(name)
    if "not known" not in line:
        assert provenance_of(name).licence in line


def test_nothing_is_said_of_the_licence_of_what_is_free_or_lies_here(
    copy: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.torch_loader.from_source", lambda _: None)
    shutil.copytree(copy, copy / "dfn2b")
    for name in ("ViT-B-32/openai", f"local-dir:{copy}", f"local-dir:{copy / 'dfn2b'}"):
        fetch(name)
    assert not caplog.records


def test_every_name_of_the_catalogue_is_one_that_open_clip_has() -> None:
    pretrained = {"/".join(pair) for pair in open_clip.list_pretrained()}
    loaders = {e.loader for e in catalog().values() if e.name not in BUNDLED_MODELS}
    assert loaders <= pretrained


@pytest.mark.parametrize("name", ["ViT-B-32/openai", "hf-hub:nobody/nothing"])
@pytest.mark.usefixtures("exported_here")
def test_a_hub_out_of_reach_is_one_line(name: str, tmp_path: Path, at_hub: AtHub) -> None:
    at_hub(NO_HUB)
    with pytest.raises(ModelUnavailable, match="--model everyday") as caught:
        load(name, exports=tmp_path / "exports")
    line = str(caught.value)
    assert line.startswith(f"model {name!r}: the model hub cannot be reached")
    assert "\n" not in line


def test_weights_run_with_the_activation_that_they_were_trained_with(
    copy: Path, pictogram: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((copy / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = True
    (copy / "open_clip_config.json").write_text(json.dumps(config))
    trained = load(f"local-dir:{copy}", precision="fp32", backend="torch")
    # as open_clip lists OpenAI's: of an architecture whose own activation is another
    settings = {"file": str(copy / "open_clip_model.safetensors"), "quick_gelu": True}
    settings |= config["preprocess_cfg"]
    plain = {**config["model_cfg"], "quick_gelu": False}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-0", plain)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-0", {"openai": settings})
    listed = load("ViT-0/openai", precision="fp32", backend="torch")
    rows = [
        each.submit_texts(["a photo of a cat."]).result() for each in (trained, listed, pictogram)
    ]
    np.testing.assert_array_equal(rows[1], rows[0])
    assert not np.allclose(rows[1], rows[2], atol=1e-3)
    assert listed.info.fingerprint == trained.info.fingerprint != pictogram.info.fingerprint
    trained.close()
    listed.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [("fill_color", [1, 2, 3]), ("mean", [0.5]), ("mean", [0.5, "a", 0.5]), ("mean", 10**400),
     ("mean", True), ("mean", [0.5, float("nan"), 0.5]), ("std", [1, 1]),
     ("std", [0.5, 0, 0.5])],
)  # fmt: skip
def test_preprocessing_that_cannot_be_done_is_told_at_start(
    copy: Path, name: str, value: object
) -> None:
    config = json.loads((copy / "open_clip_config.json").read_text())
    config["preprocess_cfg"][name] = value
    (copy / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(BadCheckpoint, match=name):
        load(f"local-dir:{copy}")


def test_a_token_that_the_text_tower_has_no_row_for_is_told_at_start(copy: Path) -> None:
    config = json.loads((copy / "open_clip_config.json").read_text())
    options = {"additional_special_tokens": ["<sks>"]}
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = options
    (copy / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(BadCheckpoint, match="token '<sks>' has the id 49408, vocab_size is 49408"):
        load(f"local-dir:{copy}")


def test_one_number_is_the_mean_of_all_channels_as_in_open_clip(copy: Path) -> None:
    config = json.loads((copy / "open_clip_config.json").read_text())
    vectors = []
    picture = np.full((3, 64, 64), [[[200]], [[100]], [[10]]], np.uint8)
    for value in (0.4, [0.4, 0.4, 0.4]):
        config["preprocess_cfg"] |= {"mean": value, "std": value}
        (copy / "open_clip_config.json").write_text(json.dumps(config))
        encoder = load(f"local-dir:{copy}", precision="fp32", backend="torch")
        vectors.append(encoder.submit_images([picture]).result())
        encoder.close()
    np.testing.assert_array_equal(*vectors)


def test_the_hubs_client_is_told_not_to_wait_long() -> None:
    code = (
        "import models.loader, huggingface_hub.constants as c;"
        "print(c.HF_HUB_ETAG_TIMEOUT, c.HF_HUB_DISABLE_TELEMETRY)"
    )
    completed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240
    )
    assert completed.stdout.split() == ["5", "True"]


def test_half_a_download_is_not_taken_for_a_whole_one(tmp_path: Path, at_hub: AtHub) -> None:
    half = tmp_path / "hub" / "models--laion--CLIP-ViT-B-32-256x256-DataComp-s34B-b86K"
    for part in ("refs", "snapshots", "blobs"):
        (half / part).mkdir(parents=True)
    at_hub(NO_HUB)
    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        fetch("ViT-B-32-256/datacomp_s34b_b86k")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "MemoryError"),
        (RuntimeError("Check 'false' failed at a.cpp:1:\nstd::bad_alloc\n\n"), "std::bad_alloc"),
        (RuntimeError("can't start new thread"), "can't start new thread"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to"), "CUDA out of memory. Tried to"),
    ],
)
def test_too_little_memory_for_a_model_is_told_in_a_line(
    error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_arguments: object) -> Encoder:
        raise error

    monkeypatch.setattr("models.loader._mapped", full)
    told = []
    for begin in (
        lambda: load("pictogram", device="cpu", exports=tmp_path),
        lambda: load_to_share(
            "pictogram", device="cpu", precision="auto", threads=1, cores=1, backend="auto",
            exports=tmp_path,
        ),
    ):  # fmt: skip
        with pytest.raises(ModelUnavailable) as caught:
            begin()
        told.append(str(caught.value))
    assert told == 2 * [
        "model 'pictogram' cannot be loaded: too little memory is free, or too few threads are "
        f"permitted ({reason})"
    ]


def test_what_is_no_shortage_is_not_called_one() -> None:
    with pytest.raises(RuntimeError, match="a mistake of ours"), with_room("model 'a'"):
        raise RuntimeError("a mistake of ours")
