"""Vectors in memory, backed by a store. Knows nothing of what a vector means."""

import logging
import struct
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from app.stores.lru import ByteLru
from app.stores.protocols import StoreAway, VectorCache
from models.info import Floats

MAGIC: Final = b"OVEC"
FORMAT: Final = 1
UNIT_TOLERANCE: Final = 1e-3

_HEAD: Final = struct.Struct("<4sII")
_CHECKSUM: Final = struct.Struct("<I")
_START: Final = _HEAD.size + _CHECKSUM.size


def encode(vector: npt.NDArray[np.floating]) -> bytes:
    """One vector (D,) as bytes, in float32."""
    if vector.ndim != 1:
        raise ValueError(f"a vector has one dimension, not {vector.ndim}")
    head = _HEAD.pack(MAGIC, FORMAT, vector.size)
    numbers = vector.astype("<f4").tobytes()
    return head + _CHECKSUM.pack(_checksum(head, numbers)) + numbers


def decode(data: object, width: int) -> npt.NDArray[np.float32] | None:
    """The unit vector (width,), float32, or None for anything that is not exactly one."""
    # a damaged store may also answer a number or a text
    if not isinstance(data, bytes) or len(data) != _START + 4 * width:
        return None
    head, numbers = data[: _HEAD.size], data[_START:]
    if _HEAD.unpack(head) != (MAGIC, FORMAT, width):
        return None
    if _CHECKSUM.unpack_from(data, _HEAD.size) != (_checksum(head, numbers),):
        return None
    vector = np.frombuffer(numbers, "<f4").astype(np.float32)
    if not np.isfinite(vector).all():
        return None
    wide = vector.astype(np.float64)  # no finite float32 overflows in it
    return vector if abs(float(wide @ wide) ** 0.5 - 1) <= UNIT_TOLERANCE else None


def _checksum(head: bytes, numbers: bytes) -> int:
    return zlib.crc32(numbers, zlib.crc32(head))


log = logging.getLogger("openvocab.stores")


class TwoLevels:
    """Unit vectors (D,) float32 by key; a store that is away is a miss, never an error."""

    def __init__(self, memory: ByteLru, store: VectorCache, width: int) -> None:
        self.memory = memory
        self._store = store
        self._width = width
        self.store_hits = 0
        self.store_misses = 0

    def in_memory(self, keys: Iterable[str]) -> dict[str, Floats]:
        """What memory has of these keys, which are all different."""
        vectors = {key: self.memory.get(key) for key in keys}
        return {key: vector for key, vector in vectors.items() if vector is not None}

    async def known(self, keys: Collection[str]) -> dict[str, Floats]:
        """What memory or the store has of these keys, which are all different."""
        vectors = self.in_memory(keys)
        missing = [key for key in keys if key not in vectors]
        return vectors | await self.fetch(missing) if missing else vectors

    async def fetch(self, keys: Sequence[str]) -> dict[str, Floats]:
        """What the store has of these keys, checked; kept in memory from now on."""
        try:
            values = await self._store.get_many(keys)
        except StoreAway:
            values = [None] * len(keys)
        vectors: dict[str, Floats] = {}
        damaged: list[str] = []
        for key, value in zip(keys, values, strict=True):
            vector = None if value is None else decode(value, self._width)
            if vector is not None:
                vectors[key] = vector
                self.memory.put(key, vector)
            elif value is not None:
                damaged.append(key)
        if damaged:
            log.warning(
                "the store has %d damaged vectors, one of them under %s; they are computed again",
                len(damaged),
                damaged[0],
            )
        self.store_hits += len(vectors)
        self.store_misses += len(keys) - len(vectors)
        return vectors

    async def keep(self, vectors: Mapping[str, Floats]) -> None:
        """Put vectors into the store; without it they stay in memory only."""
        try:
            await self._store.put_many({key: encode(v) for key, v in vectors.items()})
        except StoreAway:
            log.info("the store is unavailable; %d vectors are kept in memory only", len(vectors))
