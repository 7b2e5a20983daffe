"""What `view` is worth on photographs with the bundled model `everyday`, over HTTP.

    python -m benchmarks.quality.views          benchmarks/results/views.json

The sheet of 145 photographs that the tests carry, among their names: as they are, and each
somewhere in a white picture three times as wide.
"""

import io
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx
import numpy as np
from PIL import Image

from benchmarks.quality.photographs import TILE, photographs
from benchmarks.record import Cell, Result
from benchmarks.reliability import page
from benchmarks.servers import openvocab

VIEWS: Final = ("auto", "center", "squash", "tiles", "tiles-mean")
RESAMPLES: Final = 10_000


def right(client: httpx.Client, pictures: Sequence[Image.Image], view: str) -> list[bool]:
    """Whether the best label of each picture is its own; the label set is called `photographs`."""
    hits = []
    for place, picture in enumerate(pictures):
        file = io.BytesIO()
        picture.save(file, "PNG")
        data = {"labelset": "photographs", "view": view, "top_k": "1"}
        answer = client.post("/classify", files={"image": file.getvalue()}, data=data)
        prediction = answer.raise_for_status().json()["predictions"][0]
        hits.append(prediction["label"] == f"{place}")
    return hits


def wide(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """Each somewhere in a white picture three times as wide."""
    chance = np.random.default_rng(0)
    results = []
    for picture in pictures:
        canvas = Image.new("RGB", (3 * TILE, TILE), "white")
        canvas.paste(picture, (int(chance.integers(0, 2 * TILE + 1)), 0))
        results.append(canvas)
    return results


def row(view: str, answers: Sequence[bool], auto: Sequence[bool]) -> list[Cell]:
    """Share that is right, and the lead over `auto` with its interval (paired bootstrap)."""
    lead = np.asarray(answers, np.float64) - np.asarray(auto, np.float64)
    draws = np.random.default_rng(0).integers(0, len(lead), (RESAMPLES, len(lead)))
    low, high = np.quantile(lead[draws].mean(axis=1), [0.025, 0.975])
    ends = f"({100 * low:+.1f} to {100 * high:+.1f})"
    note = "" if view == "auto" else f"{100 * lead.mean():+.1f} {ends}"
    return [f"`{view}`", f"{np.mean(answers):.1%}", note]


def main() -> None:
    """The command line."""
    start = time.monotonic()
    pictures, labels = photographs()
    tables = []
    with (
        tempfile.TemporaryDirectory() as folder,
        openvocab("", Path(folder), model="everyday") as server,
    ):
        # names may occur twice, places do not
        body = {"labels": {f"{place}": [label] for place, label in enumerate(labels)}}
        response = server.client.put(
            "/labelsets/photographs", params={"wait": True}, json=body, timeout=300
        )
        response.raise_for_status()
        sets = {"as they are": pictures, "each in a picture three times as wide": wide(pictures)}
        for title, files in sets.items():
            answers = {view: right(server.client, files, view) for view in VIEWS}
            tables.append(
                Result(
                    f"{len(labels)} photographs among their names, {title}",
                    ["view", "right", "to auto, points (95 %)"],
                    [row(view, answers[view], answers["auto"]) for view in VIEWS],
                    [],
                )
            )
    page.write("views", "what `view` is worth on photographs with everyday", tables,
               time.monotonic() - start, module="benchmarks.quality.views")  # fmt: skip


if __name__ == "__main__":
    main()
