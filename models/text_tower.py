"""The text tower's forward pass over a tree of tokens, and the rule that says where it is exact."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from open_clip.model import CLIP
from open_clip.transformer import TextTransformer

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tree:
    """Some prompts, written as one sequence of n nodes; a node is a token behind its prefix.

    `tokens` and `positions` (n,) int64, `visible` (n, n) bool: row i is true at the nodes on the
    path from the first token to i, itself included. `ends` (p,) is the node at which each prompt
    ends, `rows` (p,) the place of the prompt in the list that the forest was made of.
    """

    tokens: Ids
    positions: Ids
    visible: npt.NDArray[np.bool_]
    ends: Ids
    rows: Ids


class Forest:
    """All prompts of one call in dictionary order, cut into trees on demand.

    Under a causal mask a position depends on nothing behind it, so prompts with the same beginning
    have the same states there: `a photo of a cat.` and `a photo of a dog.` share five of eight
    positions, and no position is spent on padding.
    """

    def __init__(self, ids: Ids, lengths: Ids) -> None:
        """`ids` (N, L), of which each row's first `lengths` (N,) count."""
        order = np.lexsort(ids.T[::-1])
        self._rows = order
        self._ids, self._lengths = ids[order], lengths[order]
        same = np.zeros(ids.shape, bool)
        same[1:] = self._ids[1:] == self._ids[:-1]
        shared = np.logical_and.accumulate(same, axis=1).sum(1)
        shared[1:] = np.minimum(shared[1:], self._lengths[:-1])  # padding is shared by nobody
        self._shared = np.minimum(shared, self._lengths)
        self._new_until = np.cumsum(self._lengths - self._shared)

    def __len__(self) -> int:
        return len(self._rows)

    def tree(self, start: int, most: int) -> Tree:
        """The prompts from `start` on (in the forest's order) that fit into `most` nodes.

        It holds one prompt at least. The next tree begins at `start + len(tree.rows)`.
        """
        # the first prompt shares nothing with what is not in the tree
        alone = self._new_until[start] - self._lengths[start]
        stop = int(np.searchsorted(self._new_until, alone + most, side="right"))
        part = slice(start, max(stop, start + 1))
        ids, lengths, shared = self._ids[part], self._lengths[part], self._shared[part].copy()
        shared[0] = 0
        places = np.arange(int(lengths.max()))
        new = (places >= shared[:, None]) & (places < lengths[:, None])
        count = int(new.sum())
        numbers = np.zeros(new.shape, np.int64)
        numbers[new] = np.arange(count)
        # a place that is not new belongs to the latest prompt above that was new there
        nodes = np.maximum.accumulate(numbers, axis=0)
        prompt, place = np.nonzero(new)
        visible = np.zeros((count, count), bool)
        for ancestor in places:
            below = place >= ancestor
            visible[np.arange(count)[below], nodes[prompt[below], ancestor]] = True
        return Tree(
            tokens=ids[prompt, place],
            positions=place,
            visible=visible,
            ends=nodes[np.arange(len(ids)), lengths - 1],
            rows=self._rows[part],
        )


# a tower that only looks trimmable would be off by 0.2 or more, one that is by less than 1e-6
TRIM_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class TextTower:
    """The parts of a text tower that trimming needs, whichever class holds them."""

    module: Any
    pool_type: str
    eos_id: int | None

    def lengths(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N,) int64: how many leading positions of each row the pooled vector depends on."""
        if self.pool_type == "argmax":
            ends = tokens.argmax(dim=-1)
        else:
            ends = tokens.eq(self.eos_id or 0).int().argmax(dim=-1)
        return ends + 1

    def encode(self, tree: Tree) -> torch.Tensor:
        """Every prompt of a tree -> (p, D), in the tree's order, not normalised.

        Under a causal mask nothing behind the end-of-text position reaches it, so the padding is
        left out, and a position sees its own beginning alone, so equal beginnings are computed
        once. Pooling goes before the final layer norm, which works on each position alone.
        """
        tower = self.module
        dtype, device = tower.transformer.get_cast_dtype(), tower.positional_embedding.device
        tokens, positions, ends = (
            torch.from_numpy(ids).to(device) for ids in (tree.tokens, tree.positions, tree.ends)
        )
        hidden = torch.from_numpy(~tree.visible).to(device)
        mask = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, -math.inf)
        x = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[positions].to(
            dtype
        )
        x = tower.transformer(x[None], attn_mask=mask)[0]
        x = tower.ln_final(x[ends])
        projection = tower.text_projection
        if projection is None:
            return torch.as_tensor(x)
        return torch.as_tensor(
            projection(x) if isinstance(projection, torch.nn.Module) else x @ projection
        )


def trimmable_text_tower(model: Any) -> TextTower | None:
    """The text tower where trimming is exact, None for every other family.

    Exact needs all three: a causal mask, pooling at the end-of-text position, no class token. That
    holds for CLIP with a ResNet or ViT, and for towers of the same build kept under `.text`
    (EVA02, ViTamin); not for CoCa (class token), CLIPA, SigLIP and MobileCLIP-S1 (no mask) or
    Hugging Face towers.
    """
    if isinstance(model, CLIP):
        tower = TextTower(model, model.text_pool_type, model.text_eos_id)
    elif type(getattr(model, "text", None)) is TextTransformer:
        tower = TextTower(model.text, model.text.pool_type, model.text.eos_id)
    else:
        return None
    causal = getattr(tower.module, "attn_mask", None) is not None
    no_class_token = getattr(tower.module, "cls_emb", None) is None
    pools_at_end = tower.pool_type in ("argmax", "eos")
    return tower if causal and no_class_token and pools_at_end else None


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
def agrees_with_reference(tower: TextTower, model: Any, tokens: torch.Tensor) -> bool:
    """Whether the tree's pass gives the model's own vectors for `tokens` (N, context_length)."""
    forest = Forest(tokens.numpy(), tower.lengths(tokens).numpy())
    tree = forest.tree(0, tokens.numel())
    trimmed = torch.nn.functional.normalize(tower.encode(tree).float(), dim=-1)
    reference = model.encode_text(tokens, normalize=True).float()[torch.from_numpy(tree.rows)]
    return bool((1 - (trimmed * reference).sum(-1)).abs().max() < TRIM_TOLERANCE)
