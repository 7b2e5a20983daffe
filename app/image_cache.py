"""Embeddings of pictures that were seen lately, in memory only. Knows nothing of their labels."""

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from app.stores.lru import ByteLru

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
