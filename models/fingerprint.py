"""A digest of everything that decides an encoder's vectors. Knows nothing of how they are used."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

# raised when this code starts to compute vectors in another way than before
SCHEME = "openvocab-encoder-1"

# texts whose token ids tell two tokenizers apart: case, accents, scripts, digits, rare words
TOKENIZER_PROBES = (
    "a photo of a cat.",
    "A Photo of Two DOGS, 1999!",
    "caf\u00e9 na\u00efve \u00dcber stra\u00dfe",
    "\uace0\uc591\uc774 \u732b \u043a\u043e\u0448\u043a\u0430",
    "electroencephalographically  \u2014 it's  \u00bd",
)


def fingerprint(
    weights: Mapping[str, torch.Tensor],
    architecture: Mapping[str, Any],
    precision: str,
    preprocessing: Mapping[str, Any],
    tokens: npt.NDArray[np.int64],
) -> str:
    """Digest of a model as 32 hexadecimal digits (128 bits of SHA-256).

    `weights` is the state dict in the precision of the file, before any cast; `tokens` are the ids
    of TOKENIZER_PROBES. Names and shapes are digested with the bytes, so a renamed or reshaped
    tensor counts as a change.
    """
    digest = hashlib.sha256(SCHEME.encode())
    for part in (architecture, precision, preprocessing, tokens.tolist()):
        digest.update(json.dumps(part, sort_keys=True, default=str).encode() + b"\0")
    with ThreadPoolExecutor() as pool:  # hashlib lets go of the interpreter lock
        for name, tensor_digest in zip(weights, pool.map(_digest, weights.values()), strict=True):
            digest.update(f"{name} {weights[name].dtype} {tuple(weights[name].shape)} ".encode())
            digest.update(tensor_digest)
    return digest.hexdigest()[:32]


def _digest(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).digest()
