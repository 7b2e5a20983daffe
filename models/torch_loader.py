"""Models in torch: from a name to a model, and from that to an encoder. Imports open_clip."""

import contextlib
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Any, Final, get_args

import numpy as np
import open_clip
import torch

from models import hub, huggingface
from models.catalog import HF_HUB, LOCAL_DIR, provenance_of
from models.checkpoint import CONFIG, OFFLINE_HINT, TOKENIZER, WEIGHTS, local_folder, unknown
from models.cuda_graphs import record
from models.device import kind_of
from models.encoder import Encoder, ImageTower
from models.errors import BadCheckpoint, DeviceUnfit, ModelUnavailable, UnknownModel, first_line
from models.export_folder import EXAMPLES, PROMPTS, examples
from models.fingerprint import TOKENIZER_PROBES, fingerprint
from models.huggingface_processors import NO_TOKENIZER
from models.image_tower import VisionTower, prepare
from models.info import Backend, EncoderInfo, ImageSpec, Interpolation, Precision, ResizeMode
from models.open_clip_tokens import tokens_of
from models.openvino_towers import TOLERANCE, CompiledImages
from models.text_tower import TextTower, agrees_with_reference, text_family, trimmable_text_tower
from models.tokens import BytePairTokens, Tokens
from models.torch_towers import TorchImages, TorchPrompts, TorchTrees

DTYPES: Final[dict[Precision, torch.dtype]] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}

# characters of a line about damage
LONGEST: Final = 160

# what these compute is compared with a CPU at load
UNTRIED: Final = ("xpu", "mps")

log = logging.getLogger("openvocab.models")


@dataclass(frozen=True, slots=True)
class Parts:
    """A model in float32 on the CPU, as its files have it, and what is known of it.

    `tower` is its text tower where that can work on trees of tokens. `fingerprint_in` is what
    `info.fingerprint` would be in another precision, as long as the model is as its files have it.
    """

    model: Any
    tokens: Tokens
    tower: TextTower | None
    info: EncoderInfo
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint_in: Callable[[Precision], str]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the pixels."""
        return self.info.image.height, self.info.image.width

    def vision(self) -> VisionTower:
        """The image tower, wherever and in whatever type the model is now."""
        return VisionTower(self.model, self.mean, self.std)


def load(
    spec: str,
    loader: str,
    device: str,
    precision: Precision,
    backend: Backend,
    threads: int,
    max_batch: int,
) -> Encoder:
    """An encoder that runs in torch; `backend` "openvino" is for its image tower alone.

    Raises:
        UnknownModel, ModelUnavailable, BadCheckpoint: each a single line for a person.
    """
    if threads:
        torch.set_num_threads(threads)
    if precision == "fp32":
        # TF32 has 10 bits of mantissa; who asks for fp32 means 23
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    parts = read(spec, loader, device, precision, backend)
    model, info = parts.model, parts.info
    prepare(model.visual)
    images: ImageTower | None = None
    if info.backend == "openvino":
        images = compile_images(parts.vision(), parts.shape, precision, threads)
        if images is None:
            info = replace(info, backend="torch")
        else:
            model.visual = torch.nn.Identity()  # one copy of the weights is enough
    # what a CPU says, where nobody of ours has ever tried the device
    expected = _reference(parts) if kind_of(device) in UNTRIED else None
    try:
        move(model, device, DTYPES[precision])
        if images is None:
            vision = parts.vision()
            recorded = None
            if kind_of(device) == "cuda":
                recorded = record(vision, parts.shape, max_batch, info.in_flight)
            images = TorchImages(vision, recorded)
        texts = TorchPrompts(model) if parts.tower is None else TorchTrees(parts.tower)
        encoder = Encoder(info, parts.tokens, images, texts)
        try:
            encoder.warm_up()
            if expected is not None:
                _compare(encoder, expected)
        except BaseException:
            encoder.close()
            raise
    except (RuntimeError, NotImplementedError) as error:
        if expected is None:
            raise
        line = f"model {spec!r} does not run on {device}: {first_line(error)}"
        raise DeviceUnfit(line) from error
    return encoder


def move(model: Any, device: str, dtype: torch.dtype) -> None:
    """Put a model on a device."""
    model.to(device=device, dtype=dtype)


def _reference(parts: Parts) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Rows of examples by the model as its files have it: (E, D) of pictures, (P, D) of prompts."""
    pictures, ids = torch.from_numpy(examples(parts.shape)), torch.from_numpy(parts.tokens(PROMPTS))
    with torch.inference_mode():
        return (
            parts.vision().rows(pictures).numpy(),
            parts.model.encode_text(ids, normalize=True).numpy(),
        )


def _compare(encoder: Encoder, expected: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> None:
    """Raise DeviceUnfit where the encoder's rows are others."""
    info = encoder.info
    pictures = list(examples((info.image.height, info.image.width)))
    futures = encoder.submit_images(pictures), encoder.submit_texts(PROMPTS)
    for rows, reference in zip(futures, expected, strict=True):
        apart = float(np.abs(1 - (rows.result() * reference).sum(1)).max())
        if not apart < TOLERANCE[info.precision]:
            line = f"model {info.name!r} does not compute on {info.device} in {info.precision} what"
            raise DeviceUnfit(f"{line} a CPU computes: its rows are {apart:.1e} off")


def read(spec: str, loader: str, device: str, precision: Precision, backend: Backend) -> Parts:
    """A model from its files; `info` tells of it as it will run. Raises as `load` does."""
    model, tokenizer, architecture = from_source(loader)
    model.eval().requires_grad_(False)
    _check_numbers(spec, model)
    preprocess = open_clip.get_model_preprocess_cfg(model)
    image = _image_spec(spec, preprocess)
    mean, std = (_channels(spec, name, preprocess[name]) for name in ("mean", "std"))
    tokens = tokens_of(tokenizer, model.context_length)
    _check_ids(spec, model, tokens)
    probes = tokens(TOKENIZER_PROBES)
    tower = trimmable_text_tower(model)
    if tower is not None and not agrees_with_reference(tower, model, probes):
        log.warning("the text tower of %s cannot be trimmed; prompts run at full length", spec)
        tower = None
    bias = getattr(model, "logit_bias", None)

    def fingerprint_in(precision: Precision) -> str:
        return fingerprint(model.state_dict(), architecture, precision, preprocess, probes)

    info = EncoderInfo(
        name=spec,
        fingerprint=fingerprint_in(precision),
        precision=precision,
        device=device,
        backend=backend,
        image=image,
        context_length=tokens.context_length,
        embedding_width=int(model.encode_text(torch.from_numpy(probes[:1])).shape[-1]),
        scale=_scale(spec, model),
        bias=None if bias is None else float(bias),
        text_family=text_family(model),
        trims_text=tower is not None,
        in_flight=2 if kind_of(device) == "cuda" else 1,
        provenance=provenance_of(spec),
        weights_bytes=sum(tensor.numel() for tensor in model.state_dict().values())
        * (4 if precision == "fp32" else 2),
    )
    return Parts(model, tokens, tower, info, mean, std, fingerprint_in)


def compile_images(
    tower: VisionTower, shape: tuple[int, int], precision: Precision, threads: int
) -> CompiledImages | None:
    """The compiled tower, or None where this one cannot be compiled: torch serves then."""
    from models.tracing import image_graph

    try:
        compiled = CompiledImages(image_graph(tower, shape), precision, threads)
        pictures = examples(shape)
        expected = tower.rows(torch.from_numpy(pictures)).numpy()
        for count in range(1, EXAMPLES + 1):  # a trace can hold on to the size it was made with
            apart = np.abs(1 - (compiled(pictures[:count]) * expected[:count]).sum(1)).max()
            if not apart < TOLERANCE[precision]:
                raise RuntimeError(f"its rows are {apart:.1e} off")
    except Exception as error:  # a compiler of strangers' graphs fails in many ways
        why = first_line(error)
        log.warning("OpenVINO cannot compile the image tower (%s); torch serves it", why)
        return None
    return compiled


# a model, its tokenizer and its configuration
Source = tuple[Any, Any, dict[str, Any]]


def download(loader: str) -> None:
    """Bring a model's weights to this machine where they are not here yet; reads none of them.

    Raises as `load` does.
    """
    if loader.startswith(LOCAL_DIR):
        return
    if loader.startswith(HF_HUB):
        repository = loader.removeprefix(HF_HUB)
        with hub.reachable(loader, repository=repository):
            if hub.has_file(repository, CONFIG):
                open_clip.download_pretrained({"hf_hub": f"{repository}/"})
            else:
                _snapshot(repository)
        return
    _, _, settings = _pretrained(loader)
    with _at(loader, settings):
        open_clip.download_pretrained(settings)


def from_source(loader: str) -> Source:
    """Read a model's files, which are downloaded first where they are not here yet.

    Raises as `load` does.
    """
    if loader.startswith(LOCAL_DIR):
        return _from_directory(loader)
    if loader.startswith(HF_HUB):
        repository = loader.removeprefix(HF_HUB)
        with hub.reachable(loader, repository=repository):
            if hub.has_file(repository, CONFIG):
                return _create(loader)
            return huggingface.load_folder(_snapshot(repository))
    architecture, tag, settings = _pretrained(loader)
    with _at(loader, settings):
        return _create(architecture, tag, quick_gelu=bool(settings.get("quick_gelu")))


def _snapshot(repository: str) -> Path:
    return hub.snapshot(repository, huggingface.FILES, huggingface.WEIGHT_FILES)


def _at(loader: str, settings: dict[str, Any]) -> contextlib.AbstractContextManager[None]:
    """Around a download from where open_clip knows a model's weights."""
    repository, url = settings.get("hf_hub"), settings.get("url")
    return hub.reachable(loader, repository=repository, url=url)


def _pretrained(loader: str) -> tuple[str, str, dict[str, Any]]:
    """Architecture, tag and what open_clip knows of them. Raises UnknownModel."""
    architecture, _, tag = loader.rpartition("/")
    if architecture not in open_clip.list_models():
        raise unknown(loader, ["/".join(pair) for pair in open_clip.list_pretrained()])
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    settings = open_clip.get_pretrained_cfg(architecture, tag)
    if not settings:
        raise UnknownModel(
            f"model {loader!r}: {architecture} has no weights {tag!r}, only {', '.join(tags)}"
        )
    return architecture, tag, settings


def weight_files(loader: str) -> list[tuple[str, int, int]]:
    """Path, bytes and time of change of the downloaded files that a model was read from."""
    if loader.startswith(LOCAL_DIR):
        return []
    if loader.startswith(HF_HUB):
        repository = loader.removeprefix(HF_HUB)
    else:
        architecture, _, tag = loader.rpartition("/")
        settings = open_clip.get_pretrained_cfg(architecture, tag)
        repository = settings.get("hf_hub", "")
    if repository:
        owner, name = repository.split("/")[:2]
        files = hub.downloaded(owner, name, WEIGHTS)
    else:
        files = [Path(open_clip.download_pretrained(settings))]
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def _from_directory(loader: str) -> Source:
    folder = local_folder(loader)
    try:
        if huggingface.is_checkpoint(folder):
            return huggingface.load_folder(folder)
        return _create(LOCAL_DIR + str(folder))
    except ImportError as error:
        raise ModelUnavailable(f"model {loader!r}: {error}; {hub.EXTRA_HINT}") from error
    except Exception as error:
        # whatever a damaged file makes a parser raise, the operator needs one line
        log.debug("loading %s", loader, exc_info=True)
        raise BadCheckpoint(
            f"model {loader!r}: cannot be loaded ({_damage(error)}); {OFFLINE_HINT}"
        ) from error


def _create(name: str, tag: str | None = None, *, quick_gelu: bool = False) -> Source:
    """`quick_gelu`: the weights were trained with it, whatever the architecture's name says."""
    model = open_clip.create_model(
        name,
        pretrained=tag,
        force_quick_gelu=quick_gelu,
        require_pretrained=True,
        weights_only=True,
    )
    # every option of the towers: heads, masks and pooling leave no trace in the weights
    architecture = open_clip.get_model_config(name)
    if quick_gelu:
        architecture["quick_gelu"] = True
    if name.startswith(LOCAL_DIR) and architecture["text_cfg"].get("hf_tokenizer_name"):
        files = Path(name.removeprefix(LOCAL_DIR)).iterdir()
        if not any(file.name.startswith(TOKENIZER) for file in files):
            raise BadCheckpoint(NO_TOKENIZER)
    return model, open_clip.get_tokenizer(name), architecture


def _check_numbers(spec: str, model: Any) -> None:
    """Raise BadCheckpoint where training went astray: whole rows would be NaN."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not all(map(math.isfinite, tensor.aminmax())):
            raise BadCheckpoint(
                f"model {spec!r}: tensor {name} holds NaN or infinity; {OFFLINE_HINT}"
            )


def _check_ids(spec: str, model: Any, tokens: Tokens) -> None:
    """Raise BadCheckpoint where a prompt may hold a token that the text tower has no row for."""
    if isinstance(tokens, BytePairTokens):
        rows, highest = getattr(model, "text", model).vocab_size, max(tokens.rules.special_ids)
        if highest >= rows:
            token = tokens.rules.special[tokens.rules.special_ids.index(highest)]
            raise BadCheckpoint(
                f"model {spec!r}: the tokenizer's token {token!r} has the id {highest}, vocab_size "
                f"is {rows}; {OFFLINE_HINT}"
            )


def _scale(spec: str, model: Any) -> float:
    """The learned temperature. Raises BadCheckpoint."""
    # read before any cast: in bf16 a scale of 100 becomes 98.9
    logarithm = float(model.logit_scale)
    if logarithm > math.log(np.finfo(np.float32).max):
        raise BadCheckpoint(
            f"model {spec!r}: logit_scale is {logarithm:g}; it is a logarithm, and its exponential "
            f"is beyond float32; {OFFLINE_HINT}"
        )
    return math.exp(logarithm)


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


def _channels(spec: str, name: str, value: Any) -> tuple[float, ...]:
    """A number for each of three channels; one alone is for all. Raises BadCheckpoint."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,) * 3
    # no true, no NaN, and nothing that is too large for a float
    numbers = [each for each in values if type(each) in (int, float) and abs(each) < 1e9]
    if len(values) != 3 or len(numbers) != 3:
        raise BadCheckpoint(f"model {spec!r}: {name} {value!r} is not a number for each channel")
    if name == "std" and min(numbers) <= 0:
        raise BadCheckpoint(f"model {spec!r}: std {value!r} is not above 0")
    return tuple(map(float, numbers))


def _damage(error: Exception) -> str:
    """What a parser says of a file, in a line."""
    first, *rest = str(error).splitlines() or [first_line(error)]
    # torch's first line says only that there is something in the next
    second = rest[:1] if first.endswith(":") else []
    return " ".join([first, *(shorten(line, LONGEST, placeholder=" ...") for line in second)])
