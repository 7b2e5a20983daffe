"""Whether a peer's answers are ours: the same work before it is timed. Knows nothing of timing."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import open_clip
import torch
from PIL import Image

from benchmarks import bodies
from benchmarks.checkpoint import open_clip_folder
from benchmarks.peers.servers import EIGHTY, Peer
from benchmarks.servers import Server
from benchmarks.sides import FIELDS
from models.info import Floats

# of a probability: bf16 here, fp32 there (docs/decisions.md has 0.008 for random towers), and
# pixels that our fast path for large JPEGs rounds in another way
TOLERANCE: Final = 0.03
# of 1 - cosine, for embeddings in a peer's own precision
EMBEDDING_TOLERANCE: Final = 1e-3
PICTURES: Final = 4
OWN_TEMPLATE: Final = "a photo of a {}."


class Disagrees(Exception):
    """The peer computes something else; the text says how far it is off."""


def check(peer: Peer, server: Server, us: Server, images: Sequence[Path], folder: Path) -> str:
    """A line for the result: the largest difference. Raises Disagrees."""
    files = [path.read_bytes() for path in images[:PICTURES]]
    if peer.form == "embed":
        vectors = np.array(
            [
                server.client.post(peer.path, content=body, headers={"content-type": kind})
                .raise_for_status().json()["data"][0]["embedding"]
                for kind, body in _embedding_bodies(peer, images, folder)
            ],
            np.float32,
        )  # fmt: skip
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        off = float((1 - (vectors * reference_rows(files)).sum(1)).max())
        if off > EMBEDDING_TOLERANCE:
            raise Disagrees(f"embeddings are off by 1-cos {off:.1e}")
        return f"1-cos of embeddings at most {off:.1e} from open_clip in fp32"
    fields = FIELDS if peer is EIGHTY else {**FIELDS, "templates": OWN_TEMPLATE}
    files = files[:1] if peer is EIGHTY else files
    peer_scores = [scores(server, data, FIELDS) for data in files]
    our_scores = [scores(us, data, fields) for data in files]
    off = max(abs(t[x] - m[x]) for t, m in zip(peer_scores, our_scores, strict=True) for x in t)
    best_equal = all(
        m[max(t, key=t.__getitem__)] >= max(m.values()) - TOLERANCE
        for t, m in zip(peer_scores, our_scores, strict=True)
    )
    if off > TOLERANCE or not best_equal:
        raise Disagrees(f"probabilities are off by {off:.3f}")
    best = sum(
        max(t, key=t.__getitem__) == max(m, key=m.__getitem__)
        for t, m in zip(peer_scores, our_scores, strict=True)
    )
    return f"probabilities off by at most {off:.4f}, best label equal in {best} of {len(files)}"


def scores(server: Server, image: bytes, fields: dict[str, str]) -> dict[str, float]:
    """Probabilities by label, as the server answers them."""
    answer = server.client.post(
        "/classify",
        content=bodies.form(image, fields),
        headers={"content-type": bodies.MULTIPART},
    ).raise_for_status()
    return {prediction["label"]: prediction["score"] for prediction in answer.json()["predictions"]}


@torch.inference_mode()
def reference_rows(files: Sequence[bytes]) -> Floats:
    """Unit rows of the pictures by open_clip itself, the same weights in fp32."""
    source = f"local-dir:{open_clip_folder()}"
    model, _, transform = open_clip.create_model_and_transforms(source)
    pixels = [transform(Image.open(io.BytesIO(data)).convert("RGB")) for data in files]
    rows = model.eval().encode_image(torch.stack(pixels), normalize=True)
    return np.asarray(rows, np.float32)


def _embedding_bodies(peer: Peer, images: Sequence[Path], folder: Path) -> list[tuple[str, bytes]]:
    forms = peer.bodies(images[:PICTURES], folder / "agreement")
    return [(forms.kind, body) for body in forms.first(PICTURES)]
