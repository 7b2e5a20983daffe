"""Validation pictures and labels as vectors, in this process. Knows nothing of what is measured.

    make -C models/everyday validation          once: WORK/validation

Pictures are decoded and labels embedded as the service does it; rows of pictures are kept in the
folder, by the model's fingerprint.
"""

import argparse
import csv
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from app.arrays import Places, Truth
from app.classify.concept import Concept, ensemble_mean
from app.evaluation.picture_vectors import RowFile
from app.evaluation.statistics import RESAMPLES, top1
from app.images.decode import decode
from app.images.limits import ImageLimits
from benchmarks.quality import drawings
from benchmarks.record import Cell, Result
from benchmarks.reliability import page
from models.encoder import Encoder
from models.info import Floats
from models.loader import load
from prompts import load_sets

MODEL: Final = "everyday"
CARD: Final = Path(__file__).parents[2] / "models" / MODEL / "README.md"
TEMPLATES: Final = load_sets()[MODEL].templates
BATCH: Final = 32
TEXTS: Final = 1_024
SEED: Final = 0


@dataclass(frozen=True, slots=True)
class Pictures:
    """N pictures as unit `rows` (N, D), their C `labels`, and the place (N,) of each one's own."""

    labels: tuple[str, ...]
    targets: Places
    rows: Floats


class Validation:
    """The folder that `make validation` wrote, seen by a model."""

    def __init__(self, folder: Path) -> None:
        self.encoder: Encoder = load(MODEL, device="cpu", exports=folder / "exports")
        self.folder = folder
        self.scale = float(self.encoder.info.scale)
        document = json.loads((folder / "words.json").read_text(encoding="utf-8"))
        self.words: dict[str, dict[str, Any]] = document["labels"]
        self.kinds: dict[str, list[str]] = document["kinds"]
        self._known: dict[str, Floats] = {}

    def pictures(self, name: str) -> Pictures:
        """The pictures of NAME.csv."""
        with (self.folder / f"{name}.csv").open(newline="", encoding="utf-8") as handle:
            listed = list(csv.DictReader(handle))
        labels = tuple(sorted({row["label"] for row in listed}))
        targets = np.array([labels.index(row["label"]) for row in listed])
        return Pictures(labels, targets, self._rows([self.folder / row["image"] for row in listed]))

    def _rows(self, files: Sequence[Path]) -> Floats:
        info = self.encoder.info
        cached = RowFile(
            self.folder / f"{re.sub('[^a-z0-9]+', '-', info.fingerprint)}.rows",
            info.embedding_width,
        )
        digests = [hashlib.sha256(file.read_bytes()).digest() for file in files]
        by_digest = dict(zip(digests, files, strict=True))
        missing = [digest for digest in by_digest if cached.get(digest) is None]
        for at in range(0, len(missing), BATCH):
            batch = missing[at : at + BATCH]
            data = (by_digest[digest].read_bytes() for digest in batch)
            pixels = [decode(image, info.image, ImageLimits()).pixels for image in data]
            for digest, row in zip(batch, self.encoder.submit_images(pixels).result(), strict=True):
                cached.put(digest, row)
        rows = [cached.get(digest) for digest in digests]
        cached.close()
        return np.stack([row for row in rows if row is not None])

    def vectors(self, concepts: Sequence[Concept]) -> Floats:
        """A unit row for each concept, by the service's recipe."""
        prompts = dict.fromkeys(prompt for concept in concepts for prompt in concept.prompts())
        fresh = [prompt for prompt in prompts if prompt not in self._known]
        for at in range(0, len(fresh), TEXTS):
            batch = fresh[at : at + TEXTS]
            self._known |= zip(batch, self.encoder.submit_texts(batch).result(), strict=True)
        return np.stack(
            [ensemble_mean(np.stack([self._known[x] for x in c.prompts()])) for c in concepts]
        )

    def name_rows(self, texts: Sequence[str]) -> Floats:
        """A unit row for each text, in the model's templates."""
        return self.vectors([Concept((text,), TEMPLATES) for text in texts])


def compared(columns: dict[str, Truth]) -> list[list[Cell]]:
    """Share that each way has right, and its lead over the first (paired bootstrap of pictures)."""
    resamples = top1(np.stack(list(columns.values()), axis=1), RESAMPLES, SEED)
    rows: list[list[Cell]] = []
    for place, name in enumerate(columns):
        low, high = (100 * end for end in resamples.interval(place))
        lead = ""
        if place:
            ends = [100 * end for end in resamples.interval(place, 0)]
            value = 100 * (resamples.observed[place] - resamples.observed[0])
            lead = f"{value:+.1f} ({ends[0]:+.1f} to {ends[1]:+.1f})"
        rows.append([name, f"{resamples.observed[place]:.1%} ({low:.1f} to {high:.1f})", lead])
    return rows


def folder(about: str) -> Path:
    """The folder that the command line names."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("folder", type=Path, help="WORK/validation")
    path: Path = parser.parse_args().folder
    return path


def write(name: str, subject: str, tables: Sequence[Result], seconds: float) -> None:
    """Write benchmarks/results/NAME.json, and what the model's card shows of it."""
    module = f"benchmarks.quality.{name} FOLDER"
    page.write(name, f"{subject}, with {MODEL}", tables, seconds, module=module)
    CARD.write_text(drawings.filled(CARD.read_text(encoding="utf-8")), encoding="utf-8")
