"""Real pictures with their vectors, for what is measured on them."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.evaluation.data import Dataset, Encoded, ModelInfo, TemplateRows
from models.encoder import Encoder
from prompts import expand, load_sets

SHEET = Path(__file__).parents[1] / "models" / "pictogram"
SIDE, CONCEPTS, POSES = 64, 40, 8
Posed = tuple[Encoded, TemplateRows]


@pytest.fixture(scope="session")
def posed(pictogram: Encoder) -> Posed:
    """40 Twemoji concepts in 8 poses, noisy enough for a third of them to be mistaken.

    And their names in the templates of three sets.
    """
    with (SHEET / "twemoji-64.csv").open(newline="") as handle:
        labels = [row["label"] for row in csv.DictReader(handle)]
    dice = np.random.default_rng(0)
    chosen = np.sort(dice.choice(len(labels), CONCEPTS, replace=False))
    sheet = Image.open(SHEET / "twemoji-64.png").convert("RGB")
    across = sheet.width // SIDE
    pixels = []
    for place in chosen:
        left, top = place % across * SIDE, place // across * SIDE
        tile = sheet.crop((left, top, left + SIDE, top + SIDE))
        for _ in range(POSES):
            turned = tile.rotate(
                dice.uniform(-50, 50), Image.Resampling.BILINEAR, fillcolor="white"
            )
            noisy = np.asarray(turned, np.float32) + dice.normal(0, 45, (SIDE, SIDE, 3))
            pixels.append(
                np.ascontiguousarray(np.clip(noisy, 0, 255).astype(np.uint8).transpose(2, 0, 1))
            )
    rows = np.concatenate(
        [pictogram.submit_images(pixels[i : i + 64]).result() for i in range(0, len(pixels), 64)]
    )
    names = tuple(labels[place] for place in chosen)
    truth = np.repeat(np.eye(CONCEPTS, dtype=bool), POSES, axis=0)
    files = tuple(Path(f"{place}.png") for place in range(len(rows)))
    own = pictogram.info
    info = ModelInfo(
        own.name, own.fingerprint, own.precision, own.device, own.backend,
        own.scale, None, own.embedding_width, "pictogram",
    )  # fmt: skip
    sets = load_sets()
    templates = tuple(
        dict.fromkeys(
            text for name in ("pictogram", "simple", "documents") for text in sets[name].templates
        )
    )
    prompts = [prompt for name in names for prompt in expand(templates, name)]
    texts = pictogram.submit_texts(prompts).result().reshape(CONCEPTS, len(templates), -1)
    by_template = TemplateRows(templates, np.ascontiguousarray(texts.transpose(1, 0, 2)))
    return Encoded(Dataset(names, files, truth, False), rows, (), info), by_template
