"""Answers over HTTP against open_clip's own functions, in the terms that users see."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from app.classify.templates import template_sets
from models.catalog import catalog
from models.encoder import Encoder
from models.loader import load

# section 3 of the design: what fp32 may differ from the reference
SCALED_COSINE = 1e-3
PROBABILITY = 1e-4
# bf16: share of equal top-1 answers on the sample pictures
BF16_TOP1 = 0.99
# probability: a reduced JPEG against the whole one, on drawings with sharp edges
REDUCED_JPEG = 0.02

LABELS = ["cat", "dog", "a slice of pizza", "rocket, at night", "Guitar"]


@dataclass(frozen=True)
class Reference:
    """scale x cosine and probability for every picture (rows) and label (columns)."""

    scaled: np.ndarray
    probabilities: np.ndarray
    alone: np.ndarray | None = None  # by a sigmoid, of a model that was trained with one


@functools.lru_cache(maxsize=1)
def of_open_clip(local_dir: str) -> tuple[Any, Any, Any]:
    """Its model, transform and tokenizer."""
    model, _, transform = open_clip.create_model_and_transforms(local_dir)
    return model.eval(), transform, open_clip.get_tokenizer(local_dir)


@torch.inference_mode()
def by_open_clip(local_dir: str, pictures: list[Path], templates: tuple[str, ...]) -> Reference:
    model, transform, tokenizer = of_open_clip(local_dir)
    classes = open_clip.build_zero_shot_classifier(model, tokenizer, LABELS, templates)
    images = torch.stack([transform(on_white(path)) for path in pictures])
    scaled = model.logit_scale.exp() * model.encode_image(images, normalize=True) @ classes
    by_softmax, bias = scaled.softmax(-1), getattr(model, "logit_bias", None)
    alone = None if bias is None else (scaled + bias).sigmoid().numpy()
    return Reference(scaled.numpy(), by_softmax.numpy(), alone)


def on_white(path: Path) -> Image.Image:
    image = Image.open(path).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def by_http(
    client: httpx.Client, pictures: list[Path], templates: str, scale: float, **fields: str
) -> Reference:
    scaled, probabilities = [], []
    for path in pictures:
        answer = client.post(
            "/classify",
            files={"image": path.read_bytes()},
            data={"labels": LABELS, "templates": templates, "top_k": str(len(LABELS)), **fields},
        ).json()
        by_label = {p["label"]: p for p in answer["predictions"]}
        scaled.append([scale * by_label[label]["similarity"] for label in LABELS])
        probabilities.append([by_label[label]["score"] for label in LABELS])
    return Reference(np.array(scaled), np.array(probabilities))


def test_own_templates_equal_the_reference(
    samples: dict[str, Path], client: httpx.Client, pictogram: Encoder
) -> None:
    templates = ("the best {} ever", "{}, on a shelf")
    chosen = list(samples.values())[:3]
    expected = by_open_clip(catalog()["pictogram"].loader, chosen, templates)
    scores = by_http(client, chosen, templates, pictogram.info.scale)  # type: ignore[arg-type]
    assert np.abs(scores.scaled - expected.scaled).max() < SCALED_COSINE


@pytest.mark.parametrize(
    ("model", "templates", "pictures"),
    [
        ("pictogram", ("pictogram", "imagenet"), 12),
        ("short-ViT-B-32", ("simple",), 4),
        ("short-RN50", ("photo",), 3),
    ],
)
def test_fp32_answers_equal_the_reference(
    model: str,
    templates: tuple[str, ...],
    pictures: int,
    samples: dict[str, Path],
    random_checkpoint: Callable[[str], Path],
    serve: Callable[..., Any],
) -> None:
    chosen = list(samples.values())[:pictures]
    entry = catalog().get(model)
    local_dir = entry.loader if entry else f"local-dir:{random_checkpoint(model)}"
    # compiled towers of the others are held to torch's by tests of their own
    backend = "openvino" if entry else "torch"
    encoder = load(local_dir, precision="fp32", device="cpu", backend=backend)
    assert (encoder.info.backend, encoder.info.trims_text) == (backend, True)
    with serve(encoder, exact_jpeg=True) as client:
        for name in templates:
            expected = by_open_clip(local_dir, chosen, template_sets()[name].templates)
            scores = by_http(client, chosen, name, encoder.info.scale)
            assert np.abs(scores.scaled - expected.scaled).max() < SCALED_COSINE, name
            assert np.abs(scores.probabilities - expected.probabilities).max() < PROBABILITY, name
            assert (scores.scaled.argmax(1) == expected.scaled.argmax(1)).all(), name
    encoder.close()


@pytest.mark.usefixtures("exported_here")
def test_a_sigmoid_tower_served_from_its_export_equals_the_reference(
    samples: dict[str, Path],
    random_checkpoint: Callable[[str], Path],
    serve: Callable[..., Any],
    exports: Path,
) -> None:
    pictures = list(samples.values())
    local_dir = f"local-dir:{random_checkpoint('siglip-like')}"
    expected = by_open_clip(local_dir, pictures, template_sets()["simple"].templates)
    encoder = load(local_dir, precision="fp32", device="cpu", exports=exports)
    with serve(encoder, exact_jpeg=True) as client:
        rows, alone = (
            by_http(client, pictures, "simple", encoder.info.scale, scores=scores)
            for scores in ("softmax", "sigmoid")
        )
    encoder.close()
    # both towers came from the export: torch computes no text at full length here
    assert type(encoder.texts).__name__ == "CompiledPrompts"
    assert np.abs(rows.scaled - expected.scaled).max() < SCALED_COSINE
    assert np.abs(rows.probabilities - expected.probabilities).max() < PROBABILITY
    assert expected.alone is not None
    assert np.abs(alone.probabilities - expected.alone).max() < PROBABILITY
    assert (rows.scaled.argmax(1) == expected.scaled.argmax(1)).all()
    # so far apart that equal best labels mean something
    assert np.ptp(expected.scaled, axis=1).min() > 1


def test_reduced_jpegs_name_the_same_label(
    samples: dict[str, Path], serve: Callable[..., Any], pictogram: Encoder, tmp_path: Path
) -> None:
    pictures = []
    for label, path in samples.items():
        pictures.append(tmp_path / f"{label}.jpg")
        on_white(path).resize((640, 640)).save(pictures[-1], quality=90)
    answers = []
    for exact in (True, False):
        with serve(pictogram, exact_jpeg=exact) as client:
            answers.append(by_http(client, pictures, "pictogram", pictogram.info.scale))
    full, reduced = answers
    assert (full.scaled != reduced.scaled).any()
    assert np.abs(full.probabilities - reduced.probabilities).max() < REDUCED_JPEG
    assert (full.scaled.argmax(1) == reduced.scaled.argmax(1)).all()


def test_bf16_names_the_same_label_on_the_samples(
    samples: dict[str, Path], serve: Callable[..., Any], pictogram: Encoder
) -> None:
    """The bundled weights as a local directory, where bf16 may be chosen."""
    pictures = list(samples.values())
    encoder = load(catalog()["pictogram"].loader, precision="bf16", device="cpu")
    assert encoder.info.precision == "bf16"
    answers = []
    for tested in (encoder, pictogram):
        with serve(tested) as client:
            answers.append(by_http(client, pictures, "pictogram", tested.info.scale))
    encoder.close()
    equal = answers[0].scaled.argmax(1) == answers[1].scaled.argmax(1)
    assert equal.mean() >= BF16_TOP1
