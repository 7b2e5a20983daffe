"""The parts of the service that are measured without HTTP around them. Knows nothing of timing."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from app.classify.concept import Concept
from app.classify.ensemble import Ensemble
from app.classify.templates import presets, template_sets
from app.images.decode import decode
from app.images.limits import ImageLimits
from app.stores.lru import ByteLru
from app.stores.memory import MemoryStore
from app.stores.vectors import TwoLevels
from benchmarks.checkpoint import open_clip_folder
from models import ImageSpec
from models.encoder import Encoder
from models.info import Floats, Pixels
from models.loader import load

PLENTY: Final = 100_000_000
SAMPLED_LABELS: Final = 50


@contextlib.contextmanager
def encoder(precision: str = "auto", exports: Path | None = None) -> Iterator[Encoder]:
    """The random ViT-B-32 on the CPU, warm; by OpenVINO alone with a folder for its export."""
    source = f"local-dir:{open_clip_folder()}"
    loaded = load(source, device="cpu", precision=precision, exports=exports)
    try:
        yield loaded
    finally:
        loaded.close()


def fresh_ensemble(with_encoder: Encoder) -> Ensemble:
    """An ensemble whose caches are empty."""
    width = with_encoder.info.embedding_width
    memory = TwoLevels(ByteLru(PLENTY), MemoryStore().vectors, width)
    return Ensemble(with_encoder, memory, PLENTY)


def class_vectors(ensemble: Ensemble, labels: Sequence[str], templates: Sequence[str]) -> Floats:
    """(labels, D): what a request with these labels and templates is scored against."""
    concepts = [Concept((label,), tuple(templates)) for label in labels]
    return asyncio.run(ensemble.vectors(concepts)).rows


def imagenet_templates() -> tuple[str, ...]:
    """The 80 templates."""
    return template_sets()["imagenet"].templates


def imagenet_sample() -> tuple[str, ...]:
    """50 of ImageNet's 1,000 class names, spread evenly."""
    names = presets()["imagenet-1k"].labels
    return tuple(names[:: len(names) // SAMPLED_LABELS][:SAMPLED_LABELS])


def decoded(paths: Sequence[Path], spec: ImageSpec) -> list[Pixels]:
    """The files as the encoder takes them."""
    return [decode(path.read_bytes(), spec, ImageLimits()).pixels for path in paths]
