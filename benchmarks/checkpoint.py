"""One random ViT-B-32 in the two forms that all sides read. Knows no server.

The same tensors, so that every side does the same work and must give the same answer: as open_clip
keeps them, and as transformers' `CLIPModel` does (which infinity reads too).
"""

import json
import math
from pathlib import Path
from typing import Any, Final

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file, save_file

from benchmarks.folders import cache

ARCHITECTURE: Final = "ViT-B-32"

Tensors = dict[str, torch.Tensor]

_PLAIN: Final = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    **{
        f"{open_clip_name}.{kind}": f"{transformers_name}.{kind}"
        for open_clip_name, transformers_name in (
            ("ln_final", "text_model.final_layer_norm"),
            # the spelling is transformers'
            ("visual.ln_pre", "vision_model.pre_layrnorm"),
            ("visual.ln_post", "vision_model.post_layernorm"),
        )
        for kind in ("weight", "bias")
    },
}
_TRANSPOSED: Final = {
    "text_projection": "text_projection.weight",
    "visual.proj": "visual_projection.weight",
}
_IN_A_BLOCK: Final = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def open_clip_folder() -> Path:
    """The checkpoint as `local-dir:` reads it."""
    folder = cache("ViT-B-32", "open_clip")
    if not (folder / "open_clip_model.safetensors").exists():
        random_checkpoint(ARCHITECTURE, folder)
    return folder


def random_checkpoint(architecture: str, folder: Path) -> str:
    """An architecture with random weights and a temperature of 100, as a local directory."""
    torch.manual_seed(0)
    model = open_clip.create_model(architecture, load_weights=False)
    model.logit_scale.data.fill_(math.log(100))
    config = {"model_cfg": open_clip.get_model_config(architecture), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def transformers_folder() -> Path:
    """The same tensors as a `CLIPModel`, with tokenizer and image processor."""
    folder = cache("ViT-B-32", "transformers")
    if not (folder / "model.safetensors").exists():
        for name, content in {**_configs(), **_tokenizer()}.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / name).write_text(text, encoding="utf-8")
        tensors = renamed(load_file(open_clip_folder() / "open_clip_model.safetensors"))
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def renamed(tensors: Tensors) -> Tensors:
    """open_clip's tensors of a ViT CLIP under the names of transformers' `CLIPModel`."""
    result: Tensors = {}
    for name, value in tensors.items():
        if name in _PLAIN:
            result[_PLAIN[name]] = value
        elif name in _TRANSPOSED:
            result[_TRANSPOSED[name]] = value.T.contiguous()
        elif ".resblocks." in f".{name}":
            result |= _of_block(name, value)
    return result


def _of_block(name: str, value: torch.Tensor) -> Tensors:
    side = "vision_model" if name.startswith("visual.") else "text_model"
    number, _, rest = name.partition("resblocks.")[2].partition(".")
    block = f"{side}.encoder.layers.{number}"
    if rest.startswith("attn.in_proj_"):
        kind = rest.removeprefix("attn.in_proj_")
        parts = zip("qkv", value.chunk(3), strict=True)
        return {f"{block}.self_attn.{letter}_proj.{kind}": part.clone() for letter, part in parts}
    layer, _, kind = rest.rpartition(".")
    return {f"{block}.{_IN_A_BLOCK[layer]}.{kind}": value}


def _configs() -> dict[str, Any]:
    # the architecture's activation is the exact gelu, not OpenAI's quick one
    shared = {"hidden_act": "gelu", "num_hidden_layers": 12, "projection_dim": 512}
    text = {
        "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8,
        "max_position_embeddings": 77, "vocab_size": 49408, "bos_token_id": 49406,
        "eos_token_id": 49407, "pad_token_id": 49407,
    }  # fmt: skip
    vision = {
        "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
        "image_size": 224, "patch_size": 32,
    }  # fmt: skip
    return {
        "config.json": {
            "architectures": ["CLIPModel"],
            "model_type": "clip",
            "projection_dim": 512,
            "torch_dtype": "float32",
            "text_config": {"model_type": "clip_text_model", **shared, **text},
            "vision_config": {"model_type": "clip_vision_model", **shared, **vision},
        },
        "preprocessor_config.json": {
            "image_processor_type": "CLIPImageProcessor",
            "processor_class": "CLIPProcessor",
            "do_resize": True,
            "size": {"shortest_edge": 224},
            "resample": 3,
            "do_center_crop": True,
            "crop_size": {"height": 224, "width": 224},
            "do_rescale": True,
            "do_normalize": True,
            "do_convert_rgb": True,
            "image_mean": list(OPENAI_DATASET_MEAN),
            "image_std": list(OPENAI_DATASET_STD),
        },
    }


def _tokenizer() -> dict[str, Any]:
    bpe = SimpleTokenizer()
    first, last = "<|startoftext|>", "<|endoftext|>"
    words = {**bpe.encoder}
    for text, token in (("<start_of_text>", first), ("<end_of_text>", last)):
        words[token] = words.pop(text)
    merges = sorted(bpe.bpe_ranks, key=bpe.bpe_ranks.__getitem__)
    special = {"bos_token": first, "eos_token": last, "pad_token": last, "unk_token": last}
    return {
        "vocab.json": words,
        "merges.txt": "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges), ""]),
        "special_tokens_map.json": special,
        "tokenizer_config.json": {
            "tokenizer_class": "CLIPTokenizer",
            "do_lower_case": True,
            "model_max_length": 77,
            **special,
        },
    }
