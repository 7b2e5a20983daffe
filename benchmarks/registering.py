"""Label sets for measurements: names of things, and their registration. Knows no measurement."""

import time
from collections.abc import Sequence
from itertools import chain, islice
from typing import Final

from benchmarks.servers import Server
from models.imagenet import imagenet_classes

LOOKS: Final = (
    "red", "green", "blue", "yellow", "black", "white", "old", "new", "small", "large", "wooden",
    "wet", "dusty", "broken", "painted", "striped", "shiny", "pale", "dark", "heavy", "round",
)  # fmt: skip
BUILD_SECONDS: Final = 600
TEMPLATE: Final = "a photo of a {}."  # one: what labels and label sets cost, not what templates do


def names(count: int) -> list[str]:
    """Up to 400,000 distinct labels without commas, the plain ones first."""
    plain = list(dict.fromkeys(name for name in imagenet_classes() if "," not in name))
    looks = [f"{look} {name}" for look in LOOKS for name in plain]
    both = (f"{look} {name}" for look in LOOKS for name in looks)
    labels = list(islice(dict.fromkeys(chain(plain, looks, both)), count))
    if len(labels) < count:
        raise ValueError(f"there are only {len(labels)} names, not {count}")
    return labels


def register(server: Server, name: str, labels: Sequence[str], template: str) -> float:
    """Register a label set; seconds until it is ready."""
    start = time.perf_counter()
    body = {"labels": list(labels), "templates": [template]}
    server.client.put(f"/labelsets/{name}", json=body).raise_for_status()
    while time.perf_counter() - start < BUILD_SECONDS:
        status = server.client.get(f"/labelsets/{name}").raise_for_status().json()["status"]
        if status == "ready":
            return time.perf_counter() - start
        if status == "failed":
            break
        time.sleep(0.02)
    raise RuntimeError(f"label set {name} did not become ready")
