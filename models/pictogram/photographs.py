"""How the model does on photographs of single things, which it is not made for."""

from pathlib import Path
from typing import Any

import numpy as np
from measured import Model
from measures import choices, draws, ranking
from sources import single_source
from stamps import chosen

WAYS, ROUNDS, SEED = 10, 20, 20


def photographs(model: Model, work: Path, forms: dict[str, list[str]]) -> dict[str, Any]:
    """Top-1, top-5 and ten-way among the photographs' own labels; nothing where they are absent."""
    source, pictures = single_source("photographs"), chosen(work)
    if not pictures.paths[0].exists():
        return {}
    images = model.images(list(pictures.paths))
    every = np.arange(len(pictures.paths))
    columns = draws(every, every, WAYS, ROUNDS, SEED)
    result: dict[str, Any] = {"source": f"{source.package} {source.version}", "count": len(every)}
    for title in ("bare", "pictogram", "imagenet"):
        similarity = images @ model.labels(pictures.labels, forms[title]).T
        result[title] = ranking(similarity, every) | {"ten_way": choices(similarity, columns)}
    return result
