"""Running servers with what they are asked, and how they are loaded in turns."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.bodies import Bodies
from benchmarks.checkpoint import open_clip_folder
from benchmarks.load import Load, drive
from benchmarks.rounds import in_turns
from benchmarks.servers import Server, openvocab
from benchmarks.usage import settle
from models.info import Precision

LABELS: Final = (
    "cat", "dog", "pizza", "rocket", "bicycle", "piano", "lighthouse", "umbrella", "tractor",
    "sunflower",
)  # fmt: skip
FIELDS: Final = {"labels": ",".join(LABELS), "top_k": str(len(LABELS))}
WARM_SECONDS: Final = 2


@contextlib.contextmanager
def ours(folder: Path, *arguments: str, **settings: object) -> Iterator[Server]:
    """`openvocab serve` with the random ViT-B-32, its own precision and no image cache."""
    chosen = {"model": f"local-dir:{open_clip_folder()}", "image_cache_bytes": 0, **settings}
    store = str(chosen.pop("store_url", "memory://"))
    with openvocab(store, folder, *arguments, **chosen) as server:
        yield server


@dataclass(frozen=True, slots=True)
class Side:
    """A running server with what it is asked."""

    name: str
    server: Server
    path: str
    bodies: Bodies
    precision: Precision = "fp32"

    def load(self, connections: int, seconds: float) -> Load:
        """One turn of this side, the others being stopped."""
        self.server.resume()
        try:
            return drive(self.server.url + self.path, self.bodies, connections, seconds)
        finally:
            settle(self.server.process.pid)
            self.server.pause()


def loaded(
    sides: Sequence[Side], connections: int, seconds: float, rounds: int
) -> dict[str, list[Load]]:
    """The turns of each side by its name, after all are warm."""
    for side in sides:
        side.load(connections, WARM_SECONDS)
    return in_turns({side.name: partial(side.load, connections, seconds) for side in sides}, rounds)
