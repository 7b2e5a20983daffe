"""The model in training and its two losses. Knows tensors only, neither files nor schedules."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from towers import build, encode_text

TEACHER_WIDTH = 384
SHARPNESS = 20.0  # of the likeness between texts, in the teacher's eyes and the pupil's


class Pupil(nn.Module):
    """The CLIP, and a linear map from its space to the teacher's, which is not exported."""

    def __init__(self) -> None:
        super().__init__()
        self.clip = build()
        width = self.clip.text_projection.shape[1]
        self.to_teacher = nn.Linear(width, TEACHER_WIDTH, bias=False)

    def images(self, pictures: Tensor) -> Tensor:
        pixels = pictures.bfloat16().contiguous(memory_format=torch.channels_last)
        return functional.normalize(self.clip.visual(pixels).float(), dim=-1)

    def texts(self, tokens: Tensor, ends: Tensor) -> Tensor:
        return functional.normalize(encode_text(self.clip, tokens, ends).float(), dim=-1)

    def meaning(self, features: Tensor) -> Tensor:
        """Of pictures or texts: unit rows in the teacher's space."""
        return functional.normalize(self.to_teacher(features.bfloat16()).float(), dim=-1)


def meaning_loss(rows: Tensor, target: Tensor) -> Tensor:
    """Each row where the teacher has its text (cosine), and as like to the batch's other texts as
    the teacher finds them (cross-entropy of the two likenesses). Both (B, 384), unit rows."""
    likeness = (SHARPNESS * target @ target.T).softmax(1)
    cosine = 1 - (rows * target).sum(1).mean()
    return cosine + functional.cross_entropy(SHARPNESS * rows @ target.T, likeness)


class Queue:
    """Texts of the last steps, as further wrong answers for a picture. `captions` are numbers."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.rows: list[Tensor] = []
        self.captions: list[Tensor] = []

    def push(self, texts: Tensor, captions: Tensor) -> None:
        self.rows.append(texts.detach().clone())
        self.captions.append(captions)
        while sum(map(len, self.captions)) > self.length:
            self.rows.pop(0)
            self.captions.pop(0)


def contrastive_loss(
    images: Tensor, texts: Tensor, scale: Tensor, wrong: Tensor, false_negative: Tensor
) -> tuple[Tensor, Tensor]:
    """CLIP's symmetric loss (arXiv 2103.00020); also the share of pictures that find their text.

    `wrong` (Q, D) are more texts that are nobody's answer here; `false_negative` (B, B + Q) marks
    texts that are true of a picture without being its own.
    """
    n = len(images)
    logits = scale * images @ torch.cat([texts, wrong]).T
    logits = logits.masked_fill(false_negative, -1e4)
    target = torch.arange(n)
    right = (logits.argmax(1) == target).float().mean()
    by_text = functional.cross_entropy(logits[:, :n].T, target)
    return (functional.cross_entropy(logits, target) + by_text) / 2, right
