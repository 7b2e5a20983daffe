"""Vectors in memory, and behind it in a store. Knows nothing of what a vector stands for."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from app.stores.codec import decode, encode
from app.stores.lru import ByteLru
from app.stores.protocols import StoreAway, VectorCache

Floats = npt.NDArray[np.float32]

log = logging.getLogger("openvocab.stores")


class TwoLevels:
    """Unit vectors (D,) float32 by key; a store that is away is a miss, never an error."""

    def __init__(self, memory: ByteLru, store: VectorCache, width: int) -> None:
        self.memory = memory
        self._store = store
        self._width = width
        self.store_hits = 0
        self.store_misses = 0

    async def fetch(self, keys: Sequence[str]) -> dict[str, Floats]:
        """What the store has of these keys, checked; kept in memory from now on."""
        try:
            values = await self._store.get_many(keys)
        except StoreAway:
            values = [None] * len(keys)
        found: dict[str, Floats] = {}
        damaged: list[str] = []
        for key, value in zip(keys, values, strict=True):
            vector = None if value is None else decode(value, self._width)
            if vector is not None:
                found[key] = vector
                self.memory.put(key, vector)
            elif value is not None:
                damaged.append(key)
        if damaged:
            log.warning(
                "the store holds %d damaged vectors, one of them under %s; they are computed anew",
                len(damaged),
                damaged[0],
            )
        self.store_hits += len(found)
        self.store_misses += len(keys) - len(found)
        return found

    async def keep(self, vectors: Mapping[str, Floats]) -> None:
        """Put vectors into the store; without it they stay in memory only."""
        try:
            await self._store.put_many({key: encode(v) for key, v in vectors.items()})
        except StoreAway:
            log.info("the store is away; %d vectors stay in memory only", len(vectors))
