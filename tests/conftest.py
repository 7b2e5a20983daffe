"""Fixtures that many tests share: real encoders, a real server, real pictures.

What needs torch imports it: the process that only hands out tests waits for it otherwise, and so
does whoever runs one file.
"""

import contextlib
import csv
import gc
import json
import logging
import math
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import numpy as np
import pytest
import uvicorn
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from PIL import Image

from app.classify import canary
from app.evaluation.data import Dataset, Encoded, ModelInfo, TemplateRows
from app.server.build import EXPORTS
from app.server.main import create_app
from app.server.run import uvicorn_config
from app.server.settings import Settings
from models import export_cache, measure
from models.catalog import catalog
from models.encoder import Encoder
from models.loader import load
from prompts import expand, load_sets

# how fast an example is says how busy the machine is, not whether the code is right
hypothesis_settings.register_profile(
    "busy", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("busy")

SAMPLES = Path(__file__).parent / "samples"
Serve = Callable[..., AbstractContextManager[httpx.Client]]


def pytest_configure() -> None:
    """In the background (`make test &`, cron, nohup) SIGINT and SIGHUP are ignored, which children
    inherit; a handler they do not. And none of the many servers compiles all there is anew, as
    each would that may not keep it."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda _number, _frame: None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What the tests import is not looked through for garbage, neither meanwhile nor later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


# files whose tests are few and take minutes
LONGEST = ("test_ray_serve.py", "test_openvino_towers.py", "test_installations.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files begin first: no process is alone with one of them at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def alike(value: Any, tolerance: float = 1e-5) -> Any:
    """Equal to the same JSON but for the last bits of numbers, which were computed twice."""
    if isinstance(value, dict):
        return {name: alike(content, tolerance) for name, content in value.items()}
    if isinstance(value, list):
        return [alike(content, tolerance) for content in value]
    return pytest.approx(value, abs=tolerance) if isinstance(value, float) else value


@pytest.fixture(scope="session", autouse=True)
def own_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the label sets of whoever runs it.

    Exported models are shared by all processes of a run: their names are digests of what they are.
    """
    folder = tmp_path_factory.mktemp("data")
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    shared /= EXPORTS
    shared.mkdir(exist_ok=True)
    (folder / EXPORTS).symlink_to(shared)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENVOCAB_DATA_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def no_authorities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No client trusts the authorities of the world: each would read them anew, which takes longer
    than its requests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SSL_CERT_FILE", raising=False)
        patch.setenv("SSL_CERT_DIR", str(tmp_path_factory.mktemp("no-authorities")))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_looks_between() -> Iterator[None]:
    """No server of another test looks at its model while a test counts, holds or breaks passes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canary, "EVERY", 86_400.0)
        yield


@pytest.fixture(autouse=True)
def nothing_left_by_commands(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command that ran in this process leaves nothing unlogged for the tests after it, and no
    exception of a thread unseen.
    """
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    loggers = [logging.getLogger(name) for name in (None, "openvocab")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session")
def samples() -> dict[str, Path]:
    """The committed pictures by the label that is right for them."""
    kinds = (".png", ".jpg", ".webp")
    return {path.stem: path for path in sorted(SAMPLES.iterdir()) if path.suffix in kinds}


@pytest.fixture(scope="session")
def exports(own_data_dir: Path) -> Path:
    """Where servers of these tests keep exported models, too."""
    return own_data_dir / EXPORTS


@pytest.fixture
def data_dir(tmp_path: Path, exports: Path) -> Path:
    """A data directory for a server of its own process; models exported before are there."""
    (tmp_path / EXPORTS).symlink_to(exports)
    return tmp_path


@pytest.fixture(scope="module")
def module_data_dir(tmp_path_factory: pytest.TempPathFactory, exports: Path) -> Path:
    """The same for a server of all tests of a file."""
    folder = tmp_path_factory.mktemp("server")
    (folder / EXPORTS).symlink_to(exports)
    return folder


@pytest.fixture(scope="session")
def everyday(exports: Path) -> Iterator[Encoder]:
    """The bundled model; most tests take `pictogram`, which is small."""
    encoder = load("everyday", exports=exports)
    yield encoder
    encoder.close()


@pytest.fixture(scope="session")
def pictogram(exports: Path) -> Iterator[Encoder]:
    """The bundled model as it serves on a CPU."""
    encoder = load("pictogram", exports=exports)
    yield encoder
    encoder.close()


@pytest.fixture(scope="session")
def plain_pictogram() -> Iterator[Encoder]:
    """The bundled model with torch alone, whose forward pass can be watched and broken."""
    encoder = load("pictogram", backend="torch")
    yield encoder
    encoder.close()


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory, exports: Path) -> str:
    """The name of a model of pictogram's shape that embeds everything elsewhere: run it in fp32.

    It is exported already: a server does that in a process of its own, which imports torch first.
    """
    from safetensors.torch import load_file, save_file

    bundled = Path(catalog()["pictogram"].loader.removeprefix("local-dir:"))
    folder = tmp_path_factory.mktemp("other-model")
    shutil.copy(bundled / "open_clip_config.json", folder)
    weights = load_file(bundled / "open_clip_model.safetensors")
    for tower in (
        "text_projection",
        "visual.attnpool.c_proj.weight",
        "visual.attnpool.c_proj.bias",
    ):
        # both towers alike, so that it is as good as the first
        weights[tower] = weights[tower].flip(-1 if tower == "text_projection" else 0).contiguous()
    save_file(weights, folder / "open_clip_model.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        export_here(patch)
        load(f"local-dir:{folder}", precision="fp32", exports=exports).close()
    return f"local-dir:{folder}"


# a sigmoid loss, no causal mask, pooling at the last position, a class of its own for the tower
OWN_ARCHITECTURES = {
    "siglip-like": {
        "embed_dim": 48,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32,
                       "patch_size": 16, "pool_type": "avg"},
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 64, "heads": 2,
                     "layers": 2, "no_causal_mask": True, "pool_type": "last", "proj_bias": True,
                     "tokenizer_kwargs": {"clean": "canonicalize"}},
    },
    # as wide as ViT-B-32, with two of its layers, which are all alike
    "short-ViT-B-32": {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 224, "layers": 2, "width": 768, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8,
                     "layers": 2},
    },
    # every kind of operation that RN50 has, once
    "short-RN50": {
        "embed_dim": 1024,
        "vision_cfg": {"image_size": 96, "layers": [1, 1, 1, 1], "width": 64, "patch_size": None},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2,
                     "layers": 2},
    },
}  # fmt: skip


def own_architecture(folder: Path, name: str) -> Path:
    """Its configuration, in a folder as open_clip reads it."""
    folder = folder / "configs"
    folder.mkdir()
    (folder / f"{name}.json").write_text(json.dumps(OWN_ARCHITECTURES[name]))
    return folder


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Save an architecture of open_clip with random weights in local-directory form."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    paths: dict[str, Path] = {}

    def make(architecture: str) -> Path:
        if architecture not in paths:
            folder = tmp_path_factory.mktemp(architecture)
            torch.manual_seed(0)
            if architecture in OWN_ARCHITECTURES:
                open_clip.add_model_config(own_architecture(folder, architecture))
            model = open_clip.create_model(architecture, load_weights=False)
            # the temperature that trained models end with: small differences count most there
            model.logit_scale.data.fill_(math.log(100))
            config = {
                "model_cfg": open_clip.get_model_config(architecture),
                "preprocess_cfg": {
                    key: value
                    for key, value in open_clip.get_model_preprocess_cfg(model).items()
                    if key != "size"
                },
            }
            (folder / "open_clip_config.json").write_text(json.dumps(config))
            save_file(model.state_dict(), folder / "open_clip_model.safetensors")
            paths[architecture] = folder
        return paths[architecture]

    return make


@pytest.fixture
def exported_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports are made in this process, which has torch already, and are hardly measured."""
    export_here(monkeypatch)


def export_here(patch: pytest.MonkeyPatch) -> None:
    import torch

    from models import export

    patch.setattr(measure, "SECONDS", 0.1)
    patch.setattr(export_cache, "export", torch.no_grad()(export.export))


# nothing listens at port 9
NO_HUB = "http://127.0.0.1:9"
AtHub = Callable[[str], None]


@pytest.fixture
def at_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AtHub:
    """Say where the model hub is; what is downloaded is kept in `tmp_path / "hub"`.

    By what huggingface_hub makes of HF_ENDPOINT and HF_HOME when it is imported.
    """

    def elsewhere(url: str) -> None:
        template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    return elsewhere


@pytest.fixture(scope="session")
def chromium() -> str:
    """The system's Chromium; where there is one without windows, that needs half the time."""
    path = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    advice = "these tests need Chromium; on Debian: apt-get install chromium-headless-shell"
    assert path is not None, advice
    return path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    return certificate_for("localhost", tmp_path_factory.mktemp("tls"))


def certificate_for(host: str, folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for a host, and its key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", f"/CN={host}",
         "-addext", f"subjectAltName=DNS:{host}", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@pytest.fixture(scope="session")
def serve() -> Serve:
    """Serve an application on a free port with the real server; yields a client for it."""

    @contextlib.contextmanager
    def serving(encoder: Encoder, **settings: object) -> Iterator[httpx.Client]:
        # unless a test says otherwise: nothing is kept beyond it, every image is encoded, and a
        # machine that is busy with other things may take its time
        chosen = {
            "store_url": "memory://", "image_cache_bytes": 0, "request_timeout": 240, **settings,
        }  # fmt: skip
        values = Settings(model=encoder.info.name, log_level="error", **chosen)
        config = uvicorn_config(create_app(values, encoder), values)
        config.port = 0
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server ended while it started"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(timeout=120)
            assert not thread.is_alive(), "the server did not end"

    return serving


@pytest.fixture(scope="session")
def client(pictogram: Encoder, serve: Serve) -> Iterator[httpx.Client]:
    """A client of a server with the bundled model and default settings."""
    with serve(pictogram) as client:
        yield client


SHEET = Path(__file__).parent / "models" / "pictogram"
SIDE, CONCEPTS, POSES = 64, 40, 8
Posed = tuple[Encoded, TemplateRows]


@pytest.fixture(scope="session")
def posed(pictogram: Encoder) -> Posed:
    """40 Twemoji concepts in 8 poses, noisy enough for a third of them to be mistaken.

    And their names in the templates of three sets.
    """
    with (SHEET / "twemoji-64.csv").open(newline="") as handle:
        labels = [row["label"] for row in csv.DictReader(handle)]
    dice = np.random.default_rng(0)
    chosen = np.sort(dice.choice(len(labels), CONCEPTS, replace=False))
    sheet = Image.open(SHEET / "twemoji-64.png").convert("RGB")
    across = sheet.width // SIDE
    pixels = []
    for place in chosen:
        left, top = place % across * SIDE, place // across * SIDE
        tile = sheet.crop((left, top, left + SIDE, top + SIDE))
        for _ in range(POSES):
            turned = tile.rotate(
                dice.uniform(-50, 50), Image.Resampling.BILINEAR, fillcolor="white"
            )
            noisy = np.asarray(turned, np.float32) + dice.normal(0, 45, (SIDE, SIDE, 3))
            pixels.append(
                np.ascontiguousarray(np.clip(noisy, 0, 255).astype(np.uint8).transpose(2, 0, 1))
            )
    rows = np.concatenate(
        [pictogram.submit_images(pixels[i : i + 64]).result() for i in range(0, len(pixels), 64)]
    )
    names = tuple(labels[place] for place in chosen)
    truth = np.repeat(np.eye(CONCEPTS, dtype=bool), POSES, axis=0)
    files = tuple(Path(f"{place}.png") for place in range(len(rows)))
    original = pictogram.info
    info = ModelInfo(
        original.name, original.fingerprint, original.precision, original.device, original.backend,
        original.scale, None, original.embedding_width, "pictogram",
    )  # fmt: skip
    sets = load_sets()
    templates = tuple(
        dict.fromkeys(
            text for name in ("pictogram", "simple", "documents") for text in sets[name].templates
        )
    )
    prompts = [prompt for name in names for prompt in expand(templates, name)]
    texts = pictogram.submit_texts(prompts).result().reshape(CONCEPTS, len(templates), -1)
    by_template = TemplateRows(templates, np.ascontiguousarray(texts.transpose(1, 0, 2)))
    return Encoded(Dataset(names, files, truth, False), rows, (), info), by_template
