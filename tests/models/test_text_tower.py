"""Trimming: exact where it is switched on, and wrong where it is switched off, family by family."""

from typing import Any

import pytest
import torch
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP

from models.text_tower import (
    TextTower,
    agrees_with_reference,
    text_family,
    trimmable_text_tower,
)
from models.token_tree import Forest, lengths

CONTEXT, WORDS, END = 24, 100, 99
EXACT = 1e-6  # 1 - cosine, float32
WRONG = 1e-3

VIT = {"layers": 1, "width": 64, "head_width": 32, "patch_size": 16, "image_size": 32}
RESNET = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "image_size": 64}
TEXT = {"context_length": CONTEXT, "vocab_size": WORDS, "width": 64, "heads": 4, "layers": 3}
MULTIMODAL = {**TEXT, "attn_pooler_heads": 4}

# the structural options of one published configuration each, in small
CAUSAL = {
    "CLIP ViT": (CLIP, VIT, {}),
    "CLIP ResNet": (CLIP, RESNET, {}),
    "MetaCLIP 2 (pools at eos)": (CLIP, VIT, {"pool_type": "eos", "eos_id": END}),
    "EVA02, ViTamin (tower under .text)": (CustomTextCLIP, VIT, {}),
    "layer scale": (CLIP, VIT, {"ls_init_value": 0.3}),
    "blocks with norms of their own": (CLIP, VIT, {"qk_norm": True}),
}
OTHERS = {
    "CoCa": (CoCa, VIT, {"embed_cls": True}),
    "MobileCLIP-S1": (CustomTextCLIP, VIT, {"no_causal_mask": True}),
    "CLIPA": (CLIP, VIT, {"no_causal_mask": True, "pool_type": "last"}),
    "SigLIP": (
        CustomTextCLIP,
        VIT,
        {"no_causal_mask": True, "pool_type": "last", "proj_bias": True},
    ),
}


def build(kind: Any, vision: dict[str, Any], options: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    more = {"multimodal_cfg": MULTIMODAL} if kind is CoCa else {}
    if kind is CoCa:
        vision = {**vision, "attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True}
        options = {**options, "output_tokens": True}
    model = kind(embed_dim=32, vision_cfg=vision, text_cfg={**TEXT, **options}, **more).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # open_clip's start is so small that every position looks alike
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


def prompts() -> torch.Tensor:
    """Rows of different lengths that end with END and are padded with 0."""
    torch.manual_seed(1)
    ids = torch.zeros(8, CONTEXT, dtype=torch.long)
    for row, length in enumerate(range(3, 11)):
        ids[row, : length - 1] = torch.randint(1, END, (length - 1,))
        ids[row, length - 1] = END
    return ids


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((1 - torch.nn.functional.cosine_similarity(a.double(), b.double())).abs().max())


@pytest.mark.parametrize("family", CAUSAL)
@torch.inference_mode()
def test_trimming_is_exact_for(family: str) -> None:
    model, ids = build(*CAUSAL[family]), prompts()
    tower = trimmable_text_tower(model)
    assert tower is not None
    assert lengths(ids.numpy(), tower.eos_id).tolist() == list(range(3, 11))
    ids[4:, :3] = ids[0, 0]  # four prompts begin alike
    tree = Forest(ids.numpy(), lengths(ids.numpy(), tower.eos_id)).tree(0, ids.numel())
    assert len(tree.tokens) <= sum(range(3, 11)) - 3 * 3
    assert distance(tower.encode(tree), model.encode_text(ids)[tree.rows]) < EXACT
    assert agrees_with_reference(tower, model, ids.numpy())
    assert text_family(model) == "causal"


@pytest.mark.parametrize("family", OTHERS)
@torch.inference_mode()
def test_trimming_is_off_for(family: str) -> None:
    model, ids = build(*OTHERS[family]), prompts()
    assert trimmable_text_tower(model) is None
    assert text_family(model) != "causal"
    text = model.text if hasattr(model, "text") else None
    if text is not None:
        # the tower takes shorter input by itself, and its answer then is another one
        short = text(ids[:, :10])
        short = short[0] if isinstance(short, tuple) else short
        assert distance(short, model.encode_text(ids)) > WRONG


@torch.inference_mode()
def test_a_tower_that_only_looks_causal_is_found_out() -> None:
    model, ids = build(*CAUSAL["CLIP ViT"]), prompts()
    model.attn_mask.zero_()  # says causal, sees everything
    tower = TextTower(model, None)
    assert not agrees_with_reference(tower, model, ids.numpy())
