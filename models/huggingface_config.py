"""What config.json of a checkpoint of transformers says, checked. Knows no weights."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# open_clip's activations: the name of transformers, then the argument of GELU (None: quick_gelu)
ACTIVATIONS: Final[Mapping[str, dict[str, str] | None]] = {
    "quick_gelu": None,
    "gelu": {},
    "gelu_new": {"approximate": "tanh"},
    "gelu_pytorch_tanh": {"approximate": "tanh"},
}

# a configuration holds only what is not the default of its class
SIGLIP_TOWER: Final = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
SIGLIP_TEXT: Final = {**SIGLIP_TOWER, "vocab_size": 32_000, "max_position_embeddings": 64}
SIGLIP_VISION: Final = {
    **SIGLIP_TOWER,
    "num_channels": 3,
    "patch_size": 16,
    "vision_use_head": True,
}
DEFAULTS: Final[Mapping[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "clip": (
        {
            "vocab_size": 49_408,
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": 12,
            "num_attention_heads": 8,
            "max_position_embeddings": 77,
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5,
            "eos_token_id": 49_407,
        },
        {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "num_channels": 3,
            "image_size": 224,
            "patch_size": 32,
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5,
        },
    ),
    "siglip": (SIGLIP_TEXT, {**SIGLIP_VISION, "image_size": 224}),
    "siglip2": (SIGLIP_TEXT, {**SIGLIP_VISION, "num_patches": 256}),
}
CLASSES: Final = {"clip": "CLIPModel", "siglip": "SiglipModel", "siglip2": "Siglip2Model"}

# the id by which CLIP's configurations of 2021 to 2023 mean "the highest id of the prompt"
LEGACY_EOS: Final = 2


class Unmappable(ValueError):
    """A checkpoint that has no equal among open_clip's modules; the text names what is odd."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What config.json says, with the defaults of its class filled in."""

    kind: str
    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    embedding_width: int


def configuration(raw: Mapping[str, Any]) -> Configuration:
    """From what config.json holds. Raises Unmappable."""
    kind: str = raw.get("model_type") or ""
    if kind not in tuple(DEFAULTS):
        raise Unmappable(f"model_type is {kind!r}, only {', '.join(DEFAULTS)} can be served")
    classes = raw.get("architectures") or []
    for name in classes if isinstance(classes, list) else [classes]:
        if name != CLASSES[kind]:
            raise Unmappable(f"architectures names {name}, only {CLASSES[kind]} has both towers")
    if raw.get("quantization_config"):
        raise Unmappable("quantization_config: quantized weights are not supported")
    text, vision = (
        {**defaults, **_tower(raw, part, kind)}
        for part, defaults in zip(("text_config", "vision_config"), DEFAULTS[kind], strict=True)
    )
    _check_tower("text_config", text, DEFAULTS[kind][0])
    _check_tower("vision_config", vision, DEFAULTS[kind][1])
    _check_patches(kind, vision)
    if kind == "clip":
        if text["hidden_act"] != vision["hidden_act"]:
            raise Unmappable("hidden_act of the two towers differs")
        if not isinstance(text["eos_token_id"], int):
            raise Unmappable(f"text_config.eos_token_id is {text['eos_token_id']}, not one id")
        width = raw.get("projection_dim", 512)
        _check_number("projection_dim", width, whole=True)
        return Configuration(kind, text, vision, width)
    if not vision["vision_use_head"]:
        raise Unmappable("vision_config.vision_use_head is false: there is no pooling")
    width = text.get("projection_size") or text["hidden_size"]
    if width != vision["hidden_size"]:
        raise Unmappable(f"the towers embed in {width!r} and {vision['hidden_size']} dimensions")
    return Configuration(kind, text, vision, width)


def _tower(raw: Mapping[str, Any], part: str, kind: str) -> dict[str, Any]:
    """What config.json says of a tower."""
    older = raw.get(f"{part}_dict")
    if kind == "clip" and older is not None:
        # written before 2023; what it does not say is the default, whatever the other says
        return as_object(older, f"{part}_dict")
    return as_object(raw.get(part) or {}, part)


def _check_tower(part: str, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    for name, default in defaults.items():
        # an end of text may have the id 0
        if type(default) in (int, float) and name != "eos_token_id":
            _check_number(f"{part}.{name}", values[name], whole=isinstance(default, int))
    if values["hidden_act"] not in tuple(ACTIVATIONS):
        names = ", ".join(ACTIVATIONS)
        raise Unmappable(f"{part}.hidden_act is {values['hidden_act']!r}, not one of {names}")
    if values["hidden_size"] % values["num_attention_heads"]:
        raise Unmappable(f"{part}.hidden_size is not a multiple of num_attention_heads")


def _check_number(name: str, value: Any, *, whole: bool) -> None:
    if type(value) not in ((int,) if whole else (int, float)) or value <= 0:
        raise Unmappable(f"{name} is {value!r}, not one {'whole ' * whole}number above 0")


def _check_patches(kind: str, vision: dict[str, Any]) -> None:
    """Refuse what is no square of RGB; a Siglip2Model gets the square that it was trained on."""
    if vision["num_channels"] != 3:
        raise Unmappable(f"vision_config.num_channels is {vision['num_channels']}, not 3")
    if kind == "siglip2":
        side = math.isqrt(vision["num_patches"])
        if side**2 != vision["num_patches"]:
            raise Unmappable(f"vision_config.num_patches is {vision['num_patches']}, no square")
        vision["image_size"] = side * vision["patch_size"]


def read(file: Path) -> dict[str, Any]:
    """The object that a JSON file holds; an empty one where there is no file."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Unmappable(f"{file.name} is no JSON: {error}") from error
    return as_object(content, file.name)


def as_object(value: Any, name: str) -> dict[str, Any]:
    """The value, where it is an object of JSON. Raises Unmappable."""
    if not isinstance(value, dict):
        raise Unmappable(f"{name} is not an object of JSON")
    return value
