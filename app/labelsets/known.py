"""Versions of label sets in memory, bounded in bytes. Does not know where they come from."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from app.labelsets.definition import Stored, namespace_of

# what a process may hold where no setting says otherwise
DEFAULT_BYTES: Final = 512_000_000

# an empty entry: names, links, a digest
OVERHEAD: Final = 1_000


class Known:
    """Versions by name; where they take more than `max_bytes`, the largest namespace gives way.

    Of its versions the least recently used goes first: one namespace cannot push another's out.
    What is gone is read from the store again. For one thread.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._entries: dict[str, OrderedDict[str, Stored]] = {}
        self._sizes: dict[str, int] = {}

    def get(self, name: str) -> Stored | None:
        """The version that is known, now the most recently used, or None."""
        entries = self._entries.get(namespace_of(name))
        if entries is None or name not in entries:
            return None
        entries.move_to_end(name)
        return entries[name]

    def put(self, stored: Stored) -> None:
        """Know this version in place of any other of the name."""
        self.pop(stored.name)
        namespace = namespace_of(stored.name)
        self._entries.setdefault(namespace, OrderedDict())[stored.name] = stored
        self._add(namespace, stored)
        while self.bytes > self.max_bytes:
            largest = max(self._sizes, key=self._sizes.__getitem__)
            self.pop(next(iter(self._entries[largest])))

    def pop(self, name: str) -> None:
        """Know nothing of a name any more."""
        namespace = namespace_of(name)
        stored = self._entries.get(namespace, OrderedDict()).pop(name, None)
        if stored is not None:
            self._add(namespace, stored, -1)
            if not self._entries[namespace]:
                del self._entries[namespace], self._sizes[namespace]

    def __contains__(self, stored: Stored) -> bool:
        """Whether this very version is known; that is no use of it."""
        entries = self._entries.get(namespace_of(stored.name), OrderedDict())
        return entries.get(stored.name) is stored

    def all(self) -> Sequence[Stored]:
        """Every version that is known."""
        return [stored for entries in self._entries.values() for stored in entries.values()]

    def _add(self, namespace: str, stored: Stored, sign: int = 1) -> None:
        size = sign * (stored.cost + OVERHEAD)
        self.bytes += size
        self._sizes[namespace] = self._sizes.get(namespace, 0) + size
