"""A cache of arrays bounded in bytes, least recently used out first. Knows not what they mean."""

from collections import OrderedDict
from typing import Any, Final

import numpy.typing as npt

# an entry costs more than its numbers: key, array header, links (measured with sys.getsizeof)
OVERHEAD: Final = 400


class ByteLru:
    """Arrays by key; `max_bytes` 0 keeps nothing. For one thread."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self._entries: OrderedDict[str, npt.NDArray[Any]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> npt.NDArray[Any] | None:
        """The array, now the most recently used, or None."""
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end(key)
        return entry

    def put(self, key: str, array: npt.NDArray[Any]) -> None:
        """Keep a read-only copy; what does not fit at all is not kept."""
        size = array.nbytes + OVERHEAD
        if size > self.max_bytes:
            return
        self._drop(key)
        kept = array.copy()
        kept.flags.writeable = False
        self._entries[key] = kept
        self.bytes += size
        while self.bytes > self.max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: str) -> None:
        dropped = self._entries.pop(key, None)
        if dropped is not None:
            self.bytes -= dropped.nbytes + OVERHEAD
