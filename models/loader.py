"""From a model's name to a running encoder. Knows nothing of labels, images or HTTP."""

import difflib
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, get_args

import open_clip
import torch

from models import hub, huggingface
from models.catalog import HF_HUB, LOCAL_DIR, OFFLINE_MODEL, catalog, provenance_of
from models.cuda_graphs import Graphs, record
from models.device import DTYPES, choose_backend, choose_device, choose_precision
from models.encoder import Encoder
from models.errors import BadCheckpoint, ModelUnavailable, UnknownModel
from models.fingerprint import TOKENIZER_PROBES, fingerprint
from models.image_tower import VisionTower, prepare
from models.info import Backend, EncoderInfo, ImageSpec, Interpolation, Precision, ResizeMode
from models.openvino_tower import CompiledTower, available, compile_tower
from models.text_tower import agrees_with_reference, text_family, trimmable_text_tower
from models.tokens import Tokens

OFFLINE_HINT: Final = f"what works without a download: --model {OFFLINE_MODEL}"

# what open_clip takes for a checkpoint
WEIGHTS: Final = (".safetensors", ".bin", ".pth")

log = logging.getLogger("openvocab.models")

# a model, its tokenizer and its configuration
Source = tuple[Any, Any, dict[str, Any]]


def load(
    spec: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    max_batch: int = 64,
    backend: str = "auto",
) -> Encoder:
    """Load a model, warm it up and hand over its encoder.

    `spec` is a name of the catalogue, `ARCH/TAG` as open_clip lists them, `hf-hub:owner/name`, or
    `local-dir:/path` with `open_clip_config.json` or transformers' `config.json` beside the
    weights. `threads` limits torch's CPU threads (0: as many as there are cores). Batches of up to
    `max_batch` images are recorded on a GPU (models/cuda_graphs.py); larger ones run all the same.
    `backend` of the image tower: "torch", "openvino", or "auto", which is OpenVINO on a CPU where
    it is installed.

    Raises:
        UnknownModel, ModelUnavailable, BadCheckpoint, BadDevice: each a single line for a person.
    """
    entry = catalog().get(spec)
    where = choose_device(device)
    kept_in = choose_precision(precision, where, entry.precision if entry else None)
    chosen = choose_backend(backend, where, available())
    if threads:
        torch.set_num_threads(threads)
    model, tokenizer, architecture = _from_source(_loader(spec))
    model.eval().requires_grad_(False)
    if kept_in == "fp32":
        # TF32 has 10 bits of mantissa; who asks for fp32 means 23
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return _encoder(
        spec, model, tokenizer, architecture, where, kept_in, chosen, threads, max_batch
    )


def fetch(spec: str) -> None:
    """Bring a model's files to this machine, so that a later load needs no network."""
    _from_source(_loader(spec))


def _loader(spec: str) -> str:
    """What open_clip calls a model; warns of its licence before anything is downloaded."""
    entry = catalog().get(spec)
    if entry is None:
        return spec
    if not entry.free:
        licence = entry.provenance.licence
        log.warning("%s: its licence (%s) allows no commercial use", spec, licence)
    return entry.loader


def _from_source(loader: str) -> Source:
    if loader.startswith(LOCAL_DIR):
        return _from_directory(loader)
    if loader.startswith(HF_HUB):
        repository = loader.removeprefix(HF_HUB)
        with hub.reachable(loader, OFFLINE_HINT, repository=repository):
            if hub.has_file(repository, "open_clip_config.json"):
                return _create(loader, None)
            return huggingface.load_folder(
                hub.snapshot(repository, huggingface.FILES, huggingface.WEIGHT_FILES)
            )
    architecture, _, tag = loader.rpartition("/")
    if architecture not in open_clip.list_models():
        raise UnknownModel(_unknown(loader))
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    known = open_clip.get_pretrained_cfg(architecture, tag)
    if not known:
        raise UnknownModel(
            f"model {loader!r}: {architecture} has no weights {tag!r}, only {', '.join(tags)}"
        )
    with hub.reachable(loader, OFFLINE_HINT, repository=known.get("hf_hub"), url=known.get("url")):
        return _create(architecture, tag)


def _from_directory(loader: str) -> Source:
    folder = Path(loader.removeprefix(LOCAL_DIR)).expanduser()
    if not folder.is_dir():
        raise BadCheckpoint(f"model {loader!r}: no such folder; {OFFLINE_HINT}")
    transformers = huggingface.is_checkpoint(folder)
    if not transformers and not (folder / "open_clip_config.json").is_file():
        raise BadCheckpoint(
            f"model {loader!r}: neither open_clip_config.json nor config.json in the folder; "
            f"{OFFLINE_HINT}"
        )
    if not any(path.suffix in WEIGHTS for path in folder.iterdir()):
        name = "model.safetensors" if transformers else "open_clip_model.safetensors"
        raise BadCheckpoint(f"model {loader!r}: no {name} in the folder; {OFFLINE_HINT}")
    try:
        if transformers:
            return huggingface.load_folder(folder)
        return _create(LOCAL_DIR + str(folder), None)
    except ImportError as error:
        raise ModelUnavailable(f"model {loader!r}: {error}; {hub.EXTRA_HINT}") from error
    except Exception as error:
        # whatever a damaged file makes a parser raise, the operator needs one line
        log.debug("loading %s", loader, exc_info=True)
        raise BadCheckpoint(
            f"model {loader!r}: cannot be loaded ({_first_line(error)}); {OFFLINE_HINT}"
        ) from error


def _create(name: str, tag: str | None) -> Source:
    model = open_clip.create_model(name, pretrained=tag, require_pretrained=True, weights_only=True)
    # every option of the towers: heads, masks and pooling leave no trace in the weights
    return model, open_clip.get_tokenizer(name), open_clip.get_model_config(name)


def _encoder(
    spec: str,
    model: Any,
    tokenizer: Any,
    architecture: dict[str, Any],
    device: torch.device,
    precision: Precision,
    backend: Backend,
    threads: int,
    max_batch: int,
) -> Encoder:
    preprocess = open_clip.get_model_preprocess_cfg(model)
    tokens = Tokens(tokenizer, model.context_length)
    probes = tokens(TOKENIZER_PROBES)
    tower = trimmable_text_tower(model)
    if tower is not None and not agrees_with_reference(tower, model, probes):
        log.warning("the text tower of %s cannot be trimmed; prompts run at full length", spec)
        tower = None
    bias = getattr(model, "logit_bias", None)
    info = EncoderInfo(
        name=spec,
        fingerprint=fingerprint(model.state_dict(), architecture, precision, preprocess, probes),
        precision=precision,
        device=str(device),
        backend=backend,
        image=_image_spec(spec, preprocess),
        context_length=tokens.context_length,
        embedding_width=int(model.encode_text(probes[:1]).shape[-1]),
        # read before any cast: in bf16 a scale of 100 becomes 98.9
        scale=math.exp(float(model.logit_scale)),
        bias=None if bias is None else float(bias),
        text_family=text_family(model),
        trims_text=tower is not None,
        in_flight=2 if device.type == "cuda" else 1,
        provenance=provenance_of(spec),
    )
    prepare(model.visual)
    shape = (info.image.height, info.image.width)
    mean, std = preprocess["mean"], preprocess["std"]
    fast: Graphs | CompiledTower | None = None
    if info.backend == "openvino":
        fast = compile_tower(VisionTower(model, mean, std), shape, precision, threads)
        info = info if fast else replace(info, backend="torch")
    if fast:
        model.visual = torch.nn.Identity()  # one copy of the weights is enough
    model.to(device=device, dtype=DTYPES[info.precision])
    vision = VisionTower(model, mean, std)
    if device.type == "cuda":
        fast = record(vision, shape, max_batch, info.in_flight)
    encoder = Encoder(info, model, tokens, tower, vision, fast)
    encoder.warm_up()
    return encoder


def _image_spec(spec: str, preprocess: dict[str, Any]) -> ImageSpec:
    size = preprocess["size"]
    height, width = (size, size) if isinstance(size, int) else size
    interpolation, resize_mode = preprocess["interpolation"], preprocess["resize_mode"]
    if interpolation not in get_args(Interpolation) or resize_mode not in get_args(ResizeMode):
        raise BadCheckpoint(
            f"model {spec!r}: preprocessing {resize_mode}/{interpolation} is not supported"
        )
    fill = preprocess["fill_color"]
    if not isinstance(fill, int) or not 0 <= fill <= 255:
        raise BadCheckpoint(f"model {spec!r}: fill_color {fill!r} is not a grey level of 0 to 255")
    return ImageSpec(height, width, resize_mode, interpolation, fill)


def _unknown(name: str) -> str:
    known = [*catalog(), *("/".join(pair) for pair in open_clip.list_pretrained())]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return (
        f"model {name!r} is unknown: {hint}use a name from `openvocab models list`, ARCH/TAG, "
        f"hf-hub:owner/name or local-dir:/path; {OFFLINE_HINT}"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
