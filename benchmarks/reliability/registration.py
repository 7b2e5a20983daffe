"""Register 1,000 labels in 80 templates while classifying: how long, and what it costs the others.

    python -m benchmarks.reliability.registration

One client classifies distinct pictures one after the other, first alone, then while the label set
is being built; the difference of the medians is what a build adds to a request.
"""

import io
import os
import platform
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import torch
from PIL import Image

from benchmarks.record import publish
from benchmarks.servers import openvocab

IDLE_REQUESTS = 300
LABELS = "cat,dog,pizza,rocket"


def picture(dice: np.random.Generator) -> bytes:
    """A picture that no cache has seen, 256 x 256."""
    out = io.BytesIO()
    tiles = dice.integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(tiles).resize((256, 256), Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


def classify(client: httpx.Client, dice: np.random.Generator) -> float:
    """Milliseconds of one request."""
    image = picture(dice)
    start = time.perf_counter()
    client.post("/classify", files={"image": image}, data={"labels": LABELS}).raise_for_status()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    dice = np.random.default_rng(0)
    with (
        tempfile.TemporaryDirectory() as folder,
        openvocab("", Path(folder), image_cache_bytes=0) as server,
    ):
        client = server.client
        for _ in range(20):
            classify(client, dice)
        idle = [classify(client, dice) for _ in range(IDLE_REQUESTS)]
        start = time.perf_counter()
        client.put(
            "/labelsets/imagenet", json={"preset": "imagenet-1k", "templates": "imagenet"}
        ).raise_for_status()
        busy = []
        while client.get("/labelsets/imagenet").json()["status"] != "ready":
            busy += [classify(client, dice) for _ in range(10)]
        seconds = time.perf_counter() - start
        again = time.perf_counter()
        client.put(
            "/labelsets/same", params={"wait": True},
            json={"preset": "imagenet-1k", "templates": "imagenet"},
        ).raise_for_status()  # fmt: skip
        cached_seconds = time.perf_counter() - again
    document = {
        "what": "register 1,000 labels x 80 templates with pictogram while classifying, SQLite",
        "date": datetime.now(UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "build_seconds": round(seconds, 1),
        "same_labels_again_seconds": round(cached_seconds, 2),
        "classify_ms_idle": _spread(idle),
        "classify_ms_while_building": _spread(busy),
        "added_to_p50_ms": round(statistics.median(busy) - statistics.median(idle), 1),
    }
    publish("registration", document)


def _spread(values: list[float]) -> dict[str, float]:
    p5, p50, p95 = np.percentile(values, [5, 50, 95])
    return {"requests": len(values), "p5": round(p5, 1), "p50": round(p50, 1), "p95": round(p95, 1)}


if __name__ == "__main__":
    main()
