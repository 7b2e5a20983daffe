"""From the sentence encoder's space to the model's: the bridge, and the text tower's beginning.

Knows tensors only, no files.
"""

import torch
from network import EMBEDDING, TEXT_WIDTH
from open_clip.model import CLIP
from torch import Tensor, nn
from torch.nn import functional

TEACHER_WIDTH = 384
SOFTENED = 0.3  # of what the bridge learned, what the text tower follows
TOKEN_SIZE = 0.04  # standard deviation of the first token embeddings


def in_space(rows: Tensor) -> Tensor:
    """The teacher's rows (N, 384), already centred -> unit rows (N, D): its axes come first."""
    return functional.pad(functional.normalize(rows, dim=1), (0, EMBEDDING - TEACHER_WIDTH))


@torch.no_grad()
def begin(model: CLIP, tokens: Tensor) -> None:
    """Make the text tower a bag of words: `tokens` (49408, 384) is where the teacher puts each
    token alone, centred. The first layer takes the mean, the projection leads back to the
    teacher's axes; what word order means is left to training."""
    _, _, axes = torch.pca_lowrank(tokens, TEXT_WIDTH, center=False, niter=4)
    rows = tokens @ axes
    rows[-2:] = 0  # the first and the last token mean nothing
    model.token_embedding.weight.copy_(rows * (TOKEN_SIZE / rows.std()))
    for block in model.transformer.resblocks:  # all but the first begin as nothing, nearly
        block.attn.out_proj.weight.mul_(0.1)
        block.mlp.c_proj.weight.mul_(0.1)
    model.positional_embedding.mul_(0.1)
    first = model.transformer.resblocks[0].attn
    first.in_proj_weight[: 2 * TEXT_WIDTH].mul_(0.1)  # every word is looked at alike
    first.in_proj_weight[2 * TEXT_WIDTH :].copy_(torch.eye(TEXT_WIDTH))
    first.out_proj.weight.copy_(torch.eye(TEXT_WIDTH))
    model.text_projection.zero_()
    model.text_projection[:, :TEACHER_WIDTH].copy_(axes.T / TEXT_WIDTH**0.5)


class Bridge(nn.Module):
    """From where the sentence encoder puts a text to where pictures look for it: the identity at
    first. Learned on drawings, it holds for every text the encoder can read."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(EMBEDDING, 1024), nn.Linear(1024, EMBEDDING)
        nn.init.normal_(self.inner.weight, std=1.0)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    @torch.no_grad()
    def soften(self, share: float) -> None:
        """Only a share of what was learned."""
        self.outer.weight.mul_(share)
        self.outer.bias.mul_(share)

    def forward(self, rows: Tensor) -> Tensor:
        """Unit rows (N, D) to unit rows (N, D)."""
        return functional.normalize(rows + self.outer(functional.gelu(self.inner(rows))), dim=1)


def likeness_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence of `logits` (B, C) from the probabilities `target` (B, C)."""
    return functional.kl_div(logits.log_softmax(1), target, reduction="batchmean")
