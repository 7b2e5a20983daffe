"""The text tower's forward pass over a tree of tokens, and the rule that says where it is exact."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock, TextTransformer

from models.token_tree import Forest, Tree, lengths
from models.tokens import Ids

# a tower that only looks trimmable would be off by 0.2 or more, one that is by less than 1e-6
TRIM_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class TextTower:
    """The parts of a text tower that trimming needs, whichever class holds them.

    `eos_id` is how it finds the end of a prompt (token_tree.lengths).
    """

    module: Any
    eos_id: int | None

    def encode(self, tree: Tree) -> torch.Tensor:
        """Every prompt of a tree -> (p, D), in the tree's order, not normalised.

        Under a causal mask nothing behind the end-of-text position reaches it, so the padding is
        left out, and a position sees its own beginning alone, so equal beginnings are computed
        once.
        """
        tower = self.module
        dtype, device = tower.transformer.get_cast_dtype(), tower.positional_embedding.device
        tokens, positions, ends = (
            torch.from_numpy(ids).to(device) for ids in (tree.tokens, tree.positions, tree.ends)
        )
        hidden = torch.from_numpy(~tree.visible).to(device)
        mask = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, -math.inf)
        embedded = tower.token_embedding(tokens).to(dtype)
        return self.pooled(embedded + tower.positional_embedding[positions].to(dtype), mask, ends)

    def pooled(self, nodes: torch.Tensor, mask: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """Embedded nodes (n, W), what each sees (n, n; added), the prompts' ends (p,) -> (p, D).

        Pooling goes before the final layer norm, which works on each position alone.
        """
        tower = self.module
        x = tower.ln_final(_at_ends(tower.transformer, nodes, mask, ends))
        projection = tower.text_projection
        if projection is None:
            return torch.as_tensor(x)
        return torch.as_tensor(
            projection(x) if isinstance(projection, torch.nn.Module) else x @ projection
        )


def _at_ends(
    transformer: Any, nodes: torch.Tensor, mask: torch.Tensor, ends: torch.Tensor
) -> torch.Tensor:
    """Nodes (n, W) -> (p, W), what the transformer makes of the ends: all that is read of it.

    So its last block takes keys and values from all nodes, and does the rest for the ends alone.
    """
    *blocks, last = transformer.resblocks
    if type(last) is not ResidualAttentionBlock:  # open_clip's other kind, with norms in between
        return torch.as_tensor(transformer(nodes[None], attn_mask=mask)[0][ends])
    batch, node = (0, 1) if transformer.batch_first else (1, 0)
    x = nodes.unsqueeze(batch)
    for block in blocks:
        x = block(x, attn_mask=mask)
    normal = last.ln_1(x)
    queries = normal.index_select(node, ends)
    x = x.index_select(node, ends)
    x = x + last.ls_1(last.attention(queries, normal, normal, attn_mask=mask[ends]))
    x = x + last.ls_2(last.mlp(last.ln_2(x)))
    return torch.as_tensor(x.squeeze(batch))


def trimmable_text_tower(model: Any) -> TextTower | None:
    """The text tower where trimming is exact, None for every other family.

    Exact needs all three: a causal mask, pooling at the end-of-text position, no class token. That
    holds for CLIP with a ResNet or ViT, and for towers of the same build kept under `.text`
    (EVA02, ViTamin); not for CoCa (class token), CLIPA, SigLIP and MobileCLIP-S1 (no mask) or
    Hugging Face towers.
    """
    if isinstance(model, CLIP):
        module, pool_type, eos_id = model, model.text_pool_type, model.text_eos_id
    elif type(getattr(model, "text", None)) is TextTransformer:
        module, pool_type, eos_id = model.text, model.text.pool_type, model.text.eos_id
    else:
        return None
    causal = getattr(module, "attn_mask", None) is not None
    no_class_token = getattr(module, "cls_emb", None) is None
    if not causal or not no_class_token or pool_type not in ("argmax", "eos"):
        return None
    return TextTower(module, None if pool_type == "argmax" else eos_id or 0)


def text_family(model: Any) -> str:
    """A short name of the text tower's build, for people."""
    if trimmable_text_tower(model) is not None:
        return "causal"
    text = getattr(model, "text", model)
    if getattr(text, "cls_emb", None) is not None:
        return "class-token"
    if isinstance(text, (CLIP, TextTransformer)):
        return "bidirectional"
    return "huggingface"


@torch.inference_mode()
def agrees_with_reference(tower: TextTower, model: Any, ids: Ids) -> bool:
    """Whether the tree's pass gives the model's own vectors for `ids` (N, context_length)."""
    tree = Forest(ids, lengths(ids, tower.eos_id)).tree(0, ids.size)
    trimmed = torch.nn.functional.normalize(tower.encode(tree).float(), dim=-1)
    reference = model.encode_text(torch.from_numpy(ids), normalize=True).float()[tree.rows]
    return bool((1 - (trimmed * reference).sum(-1)).abs().max() < TRIM_TOLERANCE)
