"""Tensors by the names of transformers into open_clip's modules of the same shape."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from open_clip import CLIP, CustomTextCLIP
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from models.huggingface_config import (
    ACTIVATIONS,
    LEGACY_EOS,
    Configuration,
    Unmappable,
    as_object,
    read,
)

WEIGHTS: Final = ("model.safetensors", "pytorch_model.bin")
TIMM_ACTIVATIONS: Final = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
Weights = dict[str, torch.Tensor]
Named = Iterator[tuple[str, torch.Tensor]]


def read_weights(folder: Path) -> Weights:
    """All tensors, from one file or, where there is none, from the parts that an index lists."""
    for name in WEIGHTS:
        index = folder / f"{name}.index.json"
        files = [folder / name] if (folder / name).is_file() else []
        if not files and index.is_file():
            parts = as_object(read(index).get("weight_map"), f"{index.name}: weight_map").values()
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


def model_of(config: Configuration, weights: Weights) -> nn.Module:
    """An open_clip model of this shape with these weights. Raises Unmappable."""
    # positions are numbers 0, 1, 2, ... that old releases saved
    rest = {name: value for name, value in weights.items() if not name.endswith("position_ids")}
    model: nn.Module
    try:
        if config.kind == "clip":
            model, mapped = _clip(config), dict(_clip_weights(config, rest))
        else:
            model, mapped = _siglip(config), dict(_siglip_weights(config, rest))
    except KeyError as error:
        raise Unmappable(f"tensor {error.args[0]} is missing") from error
    _fill(model, mapped)
    return model


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
