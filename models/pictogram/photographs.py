"""Photographs of single things on white: Tux Paint's stamps. What the model is not made for.

photographs.csv names the stamps that are photographs, with labels chosen by hand. Knows no figures
but these.
"""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from measured import Model
from measures import choices, draws, ranking
from sources import one

TABLE = Path(__file__).with_name("photographs.csv")
STAMPS = "usr/share/tuxpaint/stamps"
WAYS, ROUNDS, SEED = 10, 20, 20


def photographs(model: Model, work: Path, forms: dict[str, list[str]]) -> dict[str, Any]:
    """Top-1, top-5 and ten-way among the photographs' own labels; nothing where they are absent."""
    source = one("photographs")
    folder = work / source.name / STAMPS
    if not folder.is_dir():
        return {}
    with TABLE.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    labels = [r["label"] for r in rows]
    images = model.images([folder / r["file"] for r in rows])
    every = np.arange(len(rows))
    columns = draws(every, every, WAYS, ROUNDS, SEED)
    result: dict[str, Any] = {"source": f"{source.package} {source.version}", "count": len(rows)}
    for title in ("bare", "pictogram", "imagenet"):
        similarity = images @ model.labels(labels, forms[title]).T
        result[title] = ranking(similarity, every) | {"ten_way": choices(similarity, columns)}
    return result
