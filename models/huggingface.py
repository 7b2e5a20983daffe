"""Checkpoints as Hugging Face's transformers saves them, mapped onto open_clip's modules.

Everything after loading is one path: what comes out are open_clip's own towers. Needs transformers
for tokenizers other than CLIP's alone.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from open_clip import CLIP, CustomTextCLIP, set_model_preprocess_cfg
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

CONFIG: Final = "config.json"
# beside the weights, what PEFT trained to be added to them
ADAPTER: Final = "adapter_config.json"
WEIGHTS: Final = ("model.safetensors", "pytorch_model.bin")
# what is needed of a repository of the hub
FILES: Final = ("*.json", "*.txt", "*.model")
WEIGHT_FILES: Final = ("model*.safetensors", "pytorch_model*.bin")

# open_clip's activations: the name of transformers, then the argument of GELU (None: quick_gelu)
ACTIVATIONS: Final[Mapping[str, dict[str, str] | None]] = {
    "quick_gelu": None,
    "gelu": {},
    "gelu_new": {"approximate": "tanh"},
    "gelu_pytorch_tanh": {"approximate": "tanh"},
}
TIMM_ACTIVATIONS: Final = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
INTERPOLATIONS: Final = {2: "bilinear", 3: "bicubic"}
# what an image processor has to do, and what those of other models do besides
STEPS: Final = {
    "do_resize": True,
    "do_rescale": True,
    "do_pad": False,
    "crop_pct": False,
    "do_flip_channel_order": False,
    "include_top": False,
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

# what transformers calls CLIP's special tokens, and their ids
CLIPS_SPECIAL: Final = {"<|startoftext|>": 49_406, "<|endoftext|>": 49_407}
CLIPS_MARKS: Final = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
# what is behind a prompt's end is not seen by it, and no byte is unknown
UNWRITTEN: Final = ("pad_token", "unk_token")

COPY_TOKENIZER: Final = "copy the tokenizer's files from the model that this one was made from"
NO_TOKENIZER: Final = f"there is no tokenizer.json: {COPY_TOKENIZER}"

MASKED: Final = (
    "by tokenizer_config.json's model_input_names, or without them, transformers hides the padding "
    "from the text tower, which cannot be done here; if the model was trained without that, as "
    'Google\'s are, write there "model_input_names": ["input_ids"]'
)

Weights = dict[str, torch.Tensor]


class Unmappable(ValueError):
    """A checkpoint that has no equal among open_clip's modules; the text names what is odd."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What config.json says, with the defaults of its class filled in."""

    kind: str
    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    embedding_width: int


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a checkpoint in this form, and not in open_clip's."""
    return (folder / CONFIG).is_file() and not (folder / "open_clip_config.json").is_file()


def load_folder(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """A folder with config.json -> the model, its tokenizer, and all that the weights do not show.

    Raises:
        Unmappable: something in it has no equal in open_clip's modules.
        ImportError: the tokenizer needs the extra `hf`.
        OSError, ValueError, KeyError: a file is missing or damaged.
    """
    if not (folder / CONFIG).is_file():
        raise Unmappable(f"there is no {CONFIG}")
    if (folder / ADAPTER).is_file():
        raise Unmappable(
            f"{ADAPTER}: adapters are not applied; merge it into the weights and save those alone"
        )
    config = _configuration(_read(folder / CONFIG))
    preprocess = _preprocessing(folder, config)
    model, weights = _model(config, _read_weights(folder))
    _fill(model, weights)
    set_model_preprocess_cfg(model, preprocess)
    tokenizer = _tokenizer(folder, config)
    architecture = {
        "kind": config.kind, "text": dict(config.text), "vision": dict(config.vision),
    }  # fmt: skip
    return model, tokenizer, architecture


def _configuration(raw: Mapping[str, Any]) -> Configuration:
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
        return _object(older, f"{part}_dict")
    return _object(raw.get(part) or {}, part)


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


def _fill(model: nn.Module, weights: Weights) -> None:
    """Copy the weights into the model, each to its place, none left."""
    expected = model.state_dict()
    for name, tensor in weights.items():
        if name not in expected:
            raise Unmappable(f"tensor {name} has no place in a model of this config.json")
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(expected[name].shape)}"
            raise Unmappable(f"tensor {name} has the shape {shapes} as config.json says")
    model.load_state_dict(weights)


def _read_weights(folder: Path) -> Weights:
    """All tensors, from one file or, where there is none, from the parts that an index lists."""
    for name in WEIGHTS:
        index = folder / f"{name}.index.json"
        files = [folder / name] if (folder / name).is_file() else []
        if not files and index.is_file():
            parts = _object(_read(index).get("weight_map"), f"{index.name}: weight_map").values()
            # a name with a path in it would leave the folder
            files = [folder / Path(part).name for part in sorted(set(parts))]
        if files:
            return {key: value for file in files for key, value in _tensors(file).items()}
    raise Unmappable("there is no model.safetensors")


def _tensors(file: Path) -> Weights:
    if file.suffix == ".safetensors":
        return load_file(file)
    tensors: Weights = torch.load(file, map_location="cpu", weights_only=True)
    return tensors


def _model(config: Configuration, weights: Weights) -> tuple[nn.Module, Weights]:
    """An open_clip model of this shape with random weights, and the weights by its own names."""
    # positions are numbers 0, 1, 2, ... that old releases saved
    rest = {name: value for name, value in weights.items() if not name.endswith("position_ids")}
    try:
        if config.kind == "clip":
            return _clip(config), dict(_clip_weights(config, rest))
        return _siglip(config), dict(_siglip_weights(config, rest))
    except KeyError as error:
        raise Unmappable(f"tensor {error.args[0]} is missing") from error


def _text_options(config: Configuration) -> dict[str, Any]:
    text = config.text
    return {
        "context_length": text["max_position_embeddings"],
        "vocab_size": text["vocab_size"],
        "width": text["hidden_size"],
        "heads": text["num_attention_heads"],
        "layers": text["num_hidden_layers"],
        "mlp_ratio": _ratio(text),
        "act_kwargs": ACTIVATIONS[text["hidden_act"]],
        "norm_kwargs": {"eps": text["layer_norm_eps"]},
    }


def _clip(config: Configuration) -> CLIP:
    text, vision = config.text, config.vision
    by_highest = text["eos_token_id"] == LEGACY_EOS
    return CLIP(
        config.embedding_width,
        vision_cfg={
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "width": vision["hidden_size"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
            "layers": vision["num_hidden_layers"],
            "mlp_ratio": _ratio(vision),
            "act_kwargs": ACTIVATIONS[vision["hidden_act"]],
            "norm_kwargs": {"eps": vision["layer_norm_eps"]},
        },
        text_cfg={
            **_text_options(config),
            "pool_type": "argmax" if by_highest else "eos",
            "eos_id": text["eos_token_id"],
        },
        quick_gelu=text["hidden_act"] == "quick_gelu",
    )


def _siglip(config: Configuration) -> CustomTextCLIP:
    vision = config.vision
    model = CustomTextCLIP(
        config.embedding_width,
        # the least that can be built: timm's names give no tower of any width, so it is replaced
        vision_cfg={"layers": 1, "width": 64, "patch_size": 16, "image_size": 16},
        text_cfg={
            **_text_options(config),
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
        },
        quick_gelu=config.text["hidden_act"] == "quick_gelu",
        init_logit_bias=0.0,
    )
    model.visual = VisionTransformer(
        img_size=vision["image_size"],
        patch_size=vision["patch_size"],
        embed_dim=vision["hidden_size"],
        depth=vision["num_hidden_layers"],
        num_heads=vision["num_attention_heads"],
        mlp_ratio=_ratio(vision),
        class_token=False,
        global_pool="map",
        num_classes=0,
        act_layer=TIMM_ACTIVATIONS[vision["hidden_act"]],
        norm_layer=partial(nn.LayerNorm, eps=vision["layer_norm_eps"]),
        weight_init="skip",
    )
    return model


def _ratio(tower: Mapping[str, Any]) -> float:
    # open_clip and timm cut width times ratio down to a whole number
    return float((tower["intermediate_size"] + 0.5) / tower["hidden_size"])


Named = Iterator[tuple[str, torch.Tensor]]


def _clip_weights(config: Configuration, weights: Weights) -> Named:
    yield "logit_scale", weights.pop("logit_scale").reshape(())
    yield "text_projection", weights.pop("text_projection.weight").T
    yield "visual.proj", weights.pop("visual_projection.weight").T
    source = "vision_model.embeddings"
    yield "visual.class_embedding", weights.pop(f"{source}.class_embedding")
    yield "visual.conv1.weight", weights.pop(f"{source}.patch_embedding.weight")
    yield "visual.positional_embedding", weights.pop(f"{source}.position_embedding.weight")
    # the name is misspelled in every checkpoint
    yield from _weight_and_bias(weights, "vision_model.pre_layrnorm", "visual.ln_pre")
    yield from _weight_and_bias(weights, "vision_model.post_layernorm", "visual.ln_post")
    yield from _blocks(weights, "vision_model", "visual.", config.vision["num_hidden_layers"])
    yield from _text_weights(config, weights, "")
    yield from weights.items()


def _siglip_weights(config: Configuration, weights: Weights) -> Named:
    yield "logit_scale", weights.pop("logit_scale").reshape(())
    yield "logit_bias", weights.pop("logit_bias").reshape(())
    yield from _weight_and_bias(weights, "text_model.head", "text.text_projection")
    yield from _text_weights(config, weights, "text.")
    source, width = "vision_model.embeddings", config.vision["hidden_size"]
    patches = weights.pop(f"{source}.patch_embedding.weight")
    if config.kind == "siglip2":
        # a row of pixels after the other, each with its three channels
        size = config.vision["patch_size"]
        patches = patches.reshape(width, size, size, 3).permute(0, 3, 1, 2)
    yield "visual.patch_embed.proj.weight", patches
    yield "visual.patch_embed.proj.bias", weights.pop(f"{source}.patch_embedding.bias")
    yield "visual.pos_embed", weights.pop(f"{source}.position_embedding.weight")[None]
    yield from _weight_and_bias(weights, "vision_model.post_layernorm", "visual.norm")
    for place in range(config.vision["num_hidden_layers"]):
        source, target = f"vision_model.encoder.layers.{place}", f"visual.blocks.{place}"
        yield from _weight_and_bias(weights, f"{source}.layer_norm1", f"{target}.norm1")
        yield from _weight_and_bias(weights, f"{source}.layer_norm2", f"{target}.norm2")
        for part in ("weight", "bias"):
            yield f"{target}.attn.qkv.{part}", _stacked(weights, f"{source}.self_attn", part)
        yield from _weight_and_bias(weights, f"{source}.self_attn.out_proj", f"{target}.attn.proj")
        for layer in ("fc1", "fc2"):
            yield from _weight_and_bias(weights, f"{source}.mlp.{layer}", f"{target}.mlp.{layer}")
    source, target = "vision_model.head", "visual.attn_pool"
    yield f"{target}.latent", weights.pop(f"{source}.probe")
    for part in ("weight", "bias"):
        joint = weights.pop(f"{source}.attention.in_proj_{part}")
        yield f"{target}.q.{part}", joint[:width]
        yield f"{target}.kv.{part}", joint[width:]
    yield from _weight_and_bias(weights, f"{source}.attention.out_proj", f"{target}.proj")
    yield from _weight_and_bias(weights, f"{source}.layernorm", f"{target}.norm")
    for layer in ("fc1", "fc2"):
        yield from _weight_and_bias(weights, f"{source}.mlp.{layer}", f"{target}.mlp.{layer}")
    yield from weights.items()


def _text_weights(config: Configuration, weights: Weights, prefix: str) -> Named:
    source = "text_model.embeddings"
    yield f"{prefix}token_embedding.weight", weights.pop(f"{source}.token_embedding.weight")
    yield f"{prefix}positional_embedding", weights.pop(f"{source}.position_embedding.weight")
    yield from _weight_and_bias(weights, "text_model.final_layer_norm", f"{prefix}ln_final")
    yield from _blocks(weights, "text_model", prefix, config.text["num_hidden_layers"])


def _blocks(weights: Weights, source_tower: str, prefix: str, layers: int) -> Named:
    """The transformer blocks of a tower, as open_clip's own transformer names them."""
    for place in range(layers):
        source = f"{source_tower}.encoder.layers.{place}"
        target = f"{prefix}transformer.resblocks.{place}"
        yield from _weight_and_bias(weights, f"{source}.layer_norm1", f"{target}.ln_1")
        yield from _weight_and_bias(weights, f"{source}.layer_norm2", f"{target}.ln_2")
        for part in ("weight", "bias"):
            yield f"{target}.attn.in_proj_{part}", _stacked(weights, f"{source}.self_attn", part)
        yield from _weight_and_bias(
            weights, f"{source}.self_attn.out_proj", f"{target}.attn.out_proj"
        )
        yield from _weight_and_bias(weights, f"{source}.mlp.fc1", f"{target}.mlp.c_fc")
        yield from _weight_and_bias(weights, f"{source}.mlp.fc2", f"{target}.mlp.c_proj")


def _stacked(weights: Weights, attention: str, part: str) -> torch.Tensor:
    return torch.cat([weights.pop(f"{attention}.{letter}_proj.{part}") for letter in "qkv"])


def _weight_and_bias(weights: Weights, source: str, target: str) -> Named:
    for part in ("weight", "bias"):
        yield f"{target}.{part}", weights.pop(f"{source}.{part}")


def _preprocessing(folder: Path, config: Configuration) -> dict[str, Any]:
    """The settings of the image processor, in open_clip's words."""
    options = _image_processor(folder)
    edge = config.vision["image_size"]
    for name, needed in STEPS.items():
        if bool(options.get(name, needed)) is not needed:
            raise Unmappable(f"the image processor's {name} is {options[name]}")
    factor = options.get("rescale_factor", 1 / 255)
    if type(factor) not in (int, float) or not math.isclose(factor, 1 / 255, rel_tol=1e-6):
        raise Unmappable(f"the image processor's rescale_factor is {factor}, not 1 / 255")
    resample = options.get("resample", 2 if config.kind == "siglip2" else 3)
    if resample not in tuple(INTERPOLATIONS):
        raise Unmappable(f"the image processor's resample is {resample}, not 2 or 3")
    patches, most = config.vision.get("num_patches"), options.get("max_num_patches")
    if config.kind == "siglip2" and most not in (None, patches):
        raise Unmappable(f"the image processor's max_num_patches is {most}, num_patches {patches}")
    normalizes = options.get("do_normalize", True)
    return {
        "size": (edge, edge),
        "mode": "RGB",
        "mean": _channels(options, "image_mean") if normalizes else (0.0, 0.0, 0.0),
        "std": _channels(options, "image_std") if normalizes else (1.0, 1.0, 1.0),
        "interpolation": INTERPOLATIONS[resample],
        "resize_mode": _resize_mode(options, edge),
        "fill_color": 0,
    }


def _channels(options: Mapping[str, Any], name: str) -> tuple[float, float, float]:
    """Three numbers, or one for all three channels."""
    value = options.get(name)
    if value is None:
        raise Unmappable(f"the image processor has no {name}")
    numbers = value if isinstance(value, list) else [value] * 3
    if len(numbers) != 3 or any(type(number) not in (int, float) for number in numbers):
        raise Unmappable(f"the image processor's {name} is {value!r}, not one or three numbers")
    red, green, blue = map(float, numbers)
    return red, green, blue


def _image_processor(folder: Path) -> dict[str, Any]:
    old, new = folder / "preprocessor_config.json", folder / "processor_config.json"
    options = _read(new).get("image_processor")
    if options:
        return _object(options, f"{new.name}: image_processor")
    if old.is_file():
        return _read(old)
    raise Unmappable(
        "there is no preprocessor_config.json: copy it from the model that this one was made from"
    )


def _resize_mode(options: Mapping[str, Any], edge: int) -> str:
    size, crop = _extent(options.get("size")), _extent(options.get("crop_size"))
    crops = options.get("do_center_crop", False)
    if isinstance(options.get("size"), int) and options.get("default_to_square"):
        size = (size, size)
    if size is None and "max_num_patches" in options:
        return "squash"  # of any shape in its own model; here, as many patches in a square
    if isinstance(size, int) and crops and size == edge and crop in (edge, (edge, edge)):
        return "shortest-floor"
    if size == (edge, edge) and (not crops or crop in (edge, (edge, edge))):
        return "squash"
    cropped = f" and crop_size {options.get('crop_size')}" if crops else ""
    raise Unmappable(
        f"the image processor's size {options.get('size')}{cropped} does not give the tower's "
        f"{edge} x {edge} pixels"
    )


def _extent(size: Any) -> int | tuple[Any, Any] | None:
    """A size in any of its spellings: (height, width), or the length of the shorter edge."""
    if isinstance(size, int):
        return size
    if isinstance(size, dict) and size.get("height") is not None:
        return size["height"], size.get("width")
    if isinstance(size, dict) and isinstance(size.get("shortest_edge"), int):
        # with a bound of the longer edge the picture would keep its shape and not fill the square
        return None if size.get("longest_edge") else int(size["shortest_edge"])
    return None


class FolderTokenizer:
    """A tokenizer of transformers, used as its own model uses it."""

    def __init__(self, folder: Path, *, pads: bool) -> None:
        """`pads`: the text tower sees the padding, so it counts which it is and where."""
        from transformers import AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._pads = pads

    def __call__(self, texts: list[str], context_length: int) -> torch.Tensor:
        """(N, context_length) int64 ids."""
        padding = "max_length" if self._pads else False
        encoded = self.tokenizer(
            texts, padding=padding, max_length=context_length, truncation=True
        )["input_ids"]
        ids = torch.zeros((len(texts), context_length), dtype=torch.int64)
        for row, own in zip(ids, encoded, strict=True):
            row[: len(own)] = torch.tensor(own)
        return ids


def _tokenizer(folder: Path, config: Configuration) -> SimpleTokenizer | FolderTokenizer:
    length = config.text["max_position_embeddings"]
    names = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
    if not any((folder / name).is_file() for name in names):
        raise Unmappable(NO_TOKENIZER)
    if config.kind == "clip" and _is_clips_own(folder):
        tokenizer: SimpleTokenizer | FolderTokenizer = SimpleTokenizer(context_length=length)
        ids = tokenizer(["a"], context_length=length)
    else:
        tokenizer = FolderTokenizer(folder, pads=config.kind != "clip")
        ids = tokenizer(["a"], length)
        if config.kind != "clip" and "attention_mask" in tokenizer.tokenizer.model_input_names:
            raise Unmappable(MASKED)
    highest = int(ids.max())
    if config.kind == "clip":
        # a prompt may hold any of those that were added
        highest = max([highest, *_added_tokens(folder).values()])
    if highest >= config.text["vocab_size"]:
        raise Unmappable(
            f"the tokenizer has ids up to {highest}, text_config.vocab_size is "
            f"{config.text['vocab_size']}"
        )
    eos = config.text.get("eos_token_id")
    if config.kind == "clip" and eos != LEGACY_EOS and eos not in ids:
        # the first id would be pooled instead, whatever the prompt says
        raise Unmappable(f"text_config.eos_token_id is {eos}, which the tokenizer never writes")
    return tokenizer


def _is_clips_own(folder: Path) -> bool:
    """Whether all tokens are those of CLIP, for which open_clip brings a tokenizer."""
    named = _read(folder / "tokenizer_config.json").get("tokenizer_class") or "CLIPTokenizer"
    if named not in ("CLIPTokenizer", "CLIPTokenizerFast"):
        return False  # the case of letters may count, and the marks may be others
    clip = SimpleTokenizer()
    own = {place: piece for piece, place in CLIPS_SPECIAL.items()}
    expected = {own.get(place, piece): place for piece, place in clip.encoder.items()}
    return (
        _pieces_and_merges(folder) == (expected, list(clip.bpe_ranks))
        and all(
            CLIPS_MARKS.get(use, mark) == mark and (mark in CLIPS_SPECIAL or use in UNWRITTEN)
            for use, mark in _marks(folder)
        )
        and _added_tokens(folder).items() <= CLIPS_SPECIAL.items()
    )


def _pieces_and_merges(folder: Path) -> tuple[Any, list[tuple[str, ...]]]:
    """Each piece's id and the merges in their order, from the file that transformers reads."""
    if (folder / "tokenizer.json").is_file():
        model = _read(folder / "tokenizer.json").get("model") or {}
        pairs = model.get("merges") or []
        return model.get("vocab"), [tuple(p.split(" ") if isinstance(p, str) else p) for p in pairs]
    merges = folder / "merges.txt"
    if not merges.is_file():
        raise Unmappable(f"there is no {merges.name}: {COPY_TOKENIZER}")
    lines = merges.read_text(encoding="utf-8").strip().split("\n")
    pairs = [line for line in lines if not line.startswith("#version")]
    return _read(folder / "vocab.json"), [tuple(pair.split()) for pair in pairs]


def _marks(folder: Path) -> Iterator[tuple[str, str]]:
    """What each token with a meaning of its own is for, and its text."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        for use, value in _read(folder / name).items():
            if not use.endswith(("_token", "special_tokens")):
                continue
            several = isinstance(value, dict) and "content" not in value
            marks = value.values() if several else value if isinstance(value, list) else [value]
            for mark in (each["content"] if isinstance(each, dict) else each for each in marks):
                if isinstance(mark, str):  # and not the answer to add_bos_token
                    yield use, mark


def _added_tokens(folder: Path) -> dict[str, int]:
    """Ids of the tokens that are no part of the vocabulary's table, in any of their spellings."""
    added = _read(folder / "tokenizer.json").get("added_tokens") or ()
    settings = _read(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
    return {
        **{token["content"]: token["id"] for token in added},
        **{token["content"]: int(place) for place, token in settings.items()},
        **_read(folder / "added_tokens.json"),
    }


def _read(file: Path) -> dict[str, Any]:
    """The object that a JSON file holds; an empty one where there is no file."""
    if not file.is_file():
        return {}
    try:
        return _object(json.loads(file.read_text(encoding="utf-8")), file.name)
    except Unmappable:
        raise
    except ValueError as error:
        raise Unmappable(f"{file.name} is no JSON: {error}") from error


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unmappable(f"{name} is not an object of JSON")
    return value
