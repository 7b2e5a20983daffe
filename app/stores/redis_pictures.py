"""Pictures of label sets on a Redis server. Knows nothing of what they show."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from app.stores import scripts
from app.stores.link import Link
from app.stores.protocols import PicturesFull

# bytes that one call carries: as many as a chunk of vectors has
PIECE: Final = 1_000_000

# keys that one call lists, about
LISTED: Final = 1_000

# between a name and a key in the hash of sizes; no key holds it
_MARK: Final = "/"


class RedisPictures:
    """Pictures as strings without expiry, written and read piece by piece.

    The hash of their sizes is first in and last out: it lists whatever there may be a piece of.
    """

    def __init__(self, link: Link, prefix: str) -> None:
        self._link = link
        self._prefix = prefix
        self._sizes = f"{prefix}pictures"
        self._total = f"{prefix}picture_bytes"
        self._hold = link.client.register_script(scripts.HOLD_PICTURE)
        self._drop = link.client.register_script(scripts.DROP_PICTURE)

    async def put(self, name: str, key: str, value: bytes, most: int) -> None:
        arguments = [f"{name}{_MARK}{key}", len(value), most]
        kind, total = await self._link.call(
            partial(self._hold, keys=[self._sizes, self._total], args=arguments)
        )
        if kind == b"full":
            raise PicturesFull(most, int(total))
        command: tuple[Any, ...] = ("SET", self._key(name, key))
        for start in range(0, len(value) or 1, PIECE):
            await self._do(*command, value[start : start + PIECE])
            command = ("SETRANGE", self._key(name, key), start + PIECE)

    async def get(self, name: str, key: str, size: int) -> bytes | None:
        found = bytearray()
        for start in range(0, size or 1, PIECE):
            piece = await self._do("GETRANGE", self._key(name, key), start, start + PIECE - 1)
            if not isinstance(piece, bytes):
                raise ValueError("an answer to GETRANGE that is no string")  # noqa: TRY004
            found += piece
        return bytes(found) if len(found) == size and size else None

    async def delete(self, name: str, keys: Sequence[str]) -> None:
        for key in keys:
            names = [self._sizes, self._total, self._key(name, key)]
            await self._link.call(partial(self._drop, keys=names, args=[f"{name}{_MARK}{key}"]))

    async def listed(self) -> Sequence[tuple[str, str]]:
        found: dict[tuple[str, str], None] = {}
        cursor = 0
        while True:
            cursor, fields = await self._link.call(
                partial(self._link.client.hscan, self._sizes, cursor, count=LISTED)
            )
            for field in fields:
                name, _, key = field.decode().rpartition(_MARK)
                found[name, key] = None
            if not cursor:
                return list(found)

    async def _do(self, *command: Any) -> Any:
        return await self._link.call(partial(self._link.client.execute_command, *command))

    def _key(self, name: str, key: str) -> str:
        return f"{self._prefix}picture:{name}{_MARK}{key}"
