"""Circuit breakers and time limits before the pictures of a store. Knows not which store it is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from app.stores.protocols import Pictures

if TYPE_CHECKING:
    from app.stores.guard import Gates


class GuardedPictures:
    """The pictures of a store, behind its breakers; the limit holds for each megabyte of one."""

    def __init__(self, inner: Pictures, gates: "Gates") -> None:
        self._inner = inner
        self._gates = gates

    async def put(self, name: str, key: str, value: bytes, most: int) -> None:
        async with self._gates.write(self._gates.write_timeout * _megabytes(len(value))):
            await self._inner.put(name, key, value, most)

    async def get(self, name: str, key: str, size: int) -> bytes | None:
        async with self._gates.read(self._gates.timeout * _megabytes(size)):
            return await self._inner.get(name, key, size)

    async def delete(self, name: str, keys: Sequence[str]) -> None:
        async with self._gates.write(self._gates.write_timeout * max(1, len(keys))):
            await self._inner.delete(name, keys)

    async def listed(self) -> Sequence[tuple[str, str]]:
        async with self._gates.read(None):  # nobody waits for it, and each page has its limit
            return await self._inner.listed()


def _megabytes(size: int) -> int:
    return 2 + size // 1_000_000
