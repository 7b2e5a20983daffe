"""Texts or images to unit rows: what a classification does before it scores. Knows no HTTP."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from app.classify.classifier import Classifier
from app.classify.concept import Concept
from app.classify.ensemble import ClassVectors
from app.classify.query import Image
from app.errors import Problem, placed
from app.stores.lru import ByteLru
from app.telemetry.spans import Stages

# beyond this many bytes a picture is digested in a thread, so that other requests do not wait
LARGE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Embedded:
    """A picture's vector (D,) float32 of unit length, with its size as a viewer shows it."""

    vector: npt.NDArray[np.float32]
    width: int
    height: int


class ImageCache:
    """By SHA-256 of the file and the encoder's fingerprint; nothing of the picture itself is kept.

    The size in pixels is kept behind the vector's numbers: float32 holds whole numbers to 2^24,
    far beyond any edge a picture can have.
    """

    def __init__(self, memory: ByteLru, fingerprint: str) -> None:
        self.memory = memory
        self._fingerprint = fingerprint

    def get(self, sha256: str) -> Embedded | None:
        """What is known of the file with this digest."""
        found = self.memory.get(self._key(sha256)) if self.memory.max_bytes else None
        if found is None:
            return None
        return Embedded(found[:-2], int(found[-2]), int(found[-1]))

    def put(self, sha256: str, embedded: Embedded) -> None:
        """Keep it for as long as there is room."""
        size = np.array([embedded.width, embedded.height], np.float32)
        self.memory.put(self._key(sha256), np.concatenate([embedded.vector, size]))

    def _key(self, sha256: str) -> str:
        return f"{self._fingerprint}{sha256}"


async def digest(data: bytes) -> str:
    """SHA-256 of a file as hexadecimal digits."""
    if len(data) < LARGE:
        return hashlib.sha256(data).hexdigest()
    return (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()


Floats = npt.NDArray[np.float32]

# a text as it is, in no template
BARE: Final[tuple[str, ...]] = ("{}",)

# images of one request on their way at once: enough to fill batches, too few to keep others waiting
AT_ONCE: Final = 16


async def of_texts(
    classifier: Classifier,
    texts: Sequence[str],
    stages: Stages,
    templates: tuple[str, ...] = BARE,
) -> ClassVectors:
    """A row (D,) for each text, or for the ensemble of each in these templates; kept like labels.

    Raises what the ensemble raises.
    """
    with stages.stage("text"):
        return await classifier.ensemble.vectors([Concept((text,), templates) for text in texts])


async def of_images(
    classifier: Classifier, files: Sequence[bytes], stages: Stages
) -> list[tuple[Image, Floats]]:
    """What each image file is, and its row (D,), in order; the first that fails fails them all.

    Raises: what decoding and batching raise, with the place of the file if it is one of many.
    """
    room = asyncio.Semaphore(AT_ONCE)

    async def one(place: int, data: bytes) -> tuple[Image, Floats]:
        async with room:
            try:
                return await classifier.embed(data, stages)
            except Problem as problem:
                if len(files) == 1:
                    raise
                raise placed(problem, f"image {place} of {len(files)}") from None

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(one(place, data)) for place, data in enumerate(files, start=1)
            ]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def rows_of(found: Sequence[tuple[Image, Floats]]) -> Floats:
    """The rows (N, D) of images that were embedded, one at least."""
    return np.stack([row for _, row in found])


async def of_items(classifier: Classifier, items: Sequence[str | bytes], stages: Stages) -> Floats:
    """Texts (str) and image files (bytes) in any order -> their rows (N, D) in the same order.

    Raises what `of_texts` and `of_images` raise.
    """
    texts = [item for item in items if isinstance(item, str)]
    files = [item for item in items if isinstance(item, bytes)]
    # texts first: what is wrong with them is found before any image has cost anything
    read = iter((await of_texts(classifier, texts, stages)).rows if texts else ())
    seen = iter(await of_images(classifier, files, stages))
    return np.stack([next(read) if isinstance(item, str) else next(seen)[1] for item in items])
