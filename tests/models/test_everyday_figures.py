"""What the bundled model `everyday` reaches on photographs and drawings, and what its card says.

The sheet holds 145 photographs at 160 pixels (GPL-2, Tux Paint; see everyday/ATTRIBUTION.md); the
card speaks of the full size. The drawings are pictogram's sheet, 64 pixels each, every seventh.
"""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from models import catalog
from models.encoder import Encoder
from models.everyday import card
from models.pictogram.measures import Array, Rows, choices, draws, ranking
from prompts import expand, load_sets

HERE = Path(__file__).parent
BUNDLED = Path(catalog()["everyday"].loader.removeprefix("local-dir:"))
WAYS, ROUNDS, SEED = 10, 20, 20
STEP = 7  # of the drawings: their encoding takes seconds


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return json.loads((BUNDLED / "figures.json").read_text())


def table(sheet: str) -> list[dict[str, str]]:
    (path,) = HERE.glob(f"*/{sheet}.csv")
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def tiles(sheet: str, size: int) -> tuple[list[Image.Image], list[str]]:
    """The pictures of a sheet and their labels."""
    (path,) = (p for p in HERE.glob(f"*/{sheet}.*") if p.suffix in {".png", ".jpg"})
    labels = [row["label"] for row in table(sheet)]
    image = Image.open(path).convert("RGB")
    across = image.width // size
    boxes = [(i % across * size, i // across * size) for i in range(len(labels))]
    return [image.crop((x, y, x + size, y + size)) for x, y in boxes], labels


def images_of(encoder: Encoder, pictures: list[Image.Image]) -> Array:
    side = encoder.info.image.height
    squares = [
        np.asarray(p.resize((side, side), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        for p in pictures
    ]
    parts = [
        encoder.submit_images([np.ascontiguousarray(s) for s in squares[at : at + 32]]).result()
        for at in range(0, len(squares), 32)
    ]
    return np.concatenate(parts)


def labels_of(encoder: Encoder, labels: list[str], templates: list[str]) -> Array:
    prompts = [prompt for label in labels for prompt in expand(tuple(templates), label)]
    rows = encoder.submit_texts(prompts).result().reshape(len(labels), len(templates), -1)
    ensemble = rows.mean(1)
    unit: Array = ensemble / np.linalg.norm(ensemble, axis=1, keepdims=True)
    return unit


@pytest.fixture(scope="module")
def photographs(everyday: Encoder) -> tuple[Array, list[str]]:
    pictures, labels = tiles("photographs-160", 160)
    return images_of(everyday, pictures), labels


def similarity(
    encoder: Encoder, photographs: tuple[Array, list[str]], templates: list[str]
) -> tuple[Array, Rows]:
    images, labels = photographs
    return images @ labels_of(encoder, labels, templates).T, np.arange(len(labels))


def own_templates() -> list[str]:
    return list(load_sets()["everyday"].templates)


def test_photographs_are_recognised_among_all_their_names(
    everyday: Encoder, photographs: tuple[Array, list[str]]
) -> None:
    cosines, targets = similarity(everyday, photographs, own_templates())
    assert len(targets) == 145
    figures = ranking(cosines, targets)
    assert figures["top1"] >= 0.70
    assert figures["top5"] >= 0.87
    assert choices(cosines, draws(targets, targets, WAYS, ROUNDS, SEED)) >= 0.89


def test_the_eighty_templates_cost_nothing(
    everyday: Encoder, photographs: tuple[Array, list[str]]
) -> None:
    eighty = [form("{}") for form in open_clip.OPENAI_IMAGENET_TEMPLATES]
    bare, targets = similarity(everyday, photographs, ["{}"])
    filled, _ = similarity(everyday, photographs, eighty)
    assert ranking(filled, targets)["top1"] >= ranking(bare, targets)["top1"] - 0.03


def test_drawings_are_recognised_by_their_names(everyday: Encoder) -> None:
    pictures, labels = tiles("twemoji-64", 64)
    few, names = pictures[::STEP], labels[::STEP]
    targets = np.arange(len(names))
    cosines = images_of(everyday, few) @ labels_of(everyday, names, own_templates()).T
    assert ranking(cosines, targets)["top1"] >= 0.72
    assert choices(cosines, draws(targets, targets, WAYS, ROUNDS, SEED)) >= 0.92


def test_drawings_of_concepts_never_drawn_in_training_are_told_from_nine_others(
    everyday: Encoder,
) -> None:
    pictures, labels = tiles("twemoji-64", 64)
    rows = table("twemoji-64")
    never = np.flatnonzero([row["group"] != "trained" for row in rows])
    images = images_of(everyday, [pictures[i] for i in never])
    cosines = images @ labels_of(everyday, labels, ["{}"]).T
    assert len(never) == 194
    columns = draws(never, np.arange(len(labels)), WAYS, ROUNDS, SEED)
    assert choices(cosines, columns) >= 0.70


def test_stock_open_clip_loads_it_and_gives_the_same_rows(everyday: Encoder) -> None:
    name = f"local-dir:{BUNDLED}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    model.eval()
    assert everyday.info.scale == pytest.approx(float(model.logit_scale.exp().item()), rel=1e-6)
    picture = Image.open(HERE.parent / "samples" / "photographs" / "cat.jpg").convert("RGB")
    square = preprocess(picture)
    with torch.inference_mode():
        reference = model.encode_image(square[None], normalize=True).numpy()
        tokens = open_clip.get_tokenizer(name)(["a photo of a cat."])
        their_text = model.encode_text(tokens, normalize=True).numpy()
    mean, std = (np.array(v)[:, None, None] for v in everyday_statistics())
    pixels = np.clip(np.round((square.numpy() * std + mean) * 255), 0, 255).astype(np.uint8)
    row = everyday.submit_images([pixels]).result()
    assert float((row @ reference.T).item()) == pytest.approx(1, abs=1e-4)
    text = everyday.submit_texts(["a photo of a cat."]).result()
    assert float((text @ their_text.T).item()) == pytest.approx(1, abs=1e-4)


def everyday_statistics() -> tuple[list[float], list[float]]:
    config = json.loads((BUNDLED / "open_clip_config.json").read_text())["preprocess_cfg"]
    return config["mean"], config["std"]


def test_the_card_speaks_of_the_committed_weights(figures: dict[str, Any]) -> None:
    weights = (BUNDLED / "open_clip_model.safetensors").read_bytes()
    assert figures["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert figures["weights_bytes"] == len(weights) < 60_000_000


def test_the_cards_figures_are_the_measured_ones(figures: dict[str, Any]) -> None:
    text = (BUNDLED / "README.md").read_text("utf-8")
    assert len(card.MARKED.findall(text)) == 2
    assert card.filled(text, figures) == text, "run make -C models/everyday eval"


def test_the_sheet_agrees_with_the_card(
    everyday: Encoder, photographs: tuple[Array, list[str]], figures: dict[str, Any]
) -> None:
    cosines, targets = similarity(everyday, photographs, own_templates())
    measured = figures["photographs_chosen"]["everyday"]
    # 160 pixels and JPEG move a figure by less than this
    assert ranking(cosines, targets)["top1"] == pytest.approx(measured["top1"], abs=0.06)
