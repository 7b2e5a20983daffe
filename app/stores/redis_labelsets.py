"""Definitions of label sets on a Redis server. Knows nothing of what a definition says."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from app.stores import scripts
from app.stores.chunks import chunks
from app.stores.link import Link, answers, texts
from app.stores.protocols import (
    Head,
    Quota,
    Record,
    StoreFull,
    StoreRefused,
    VersionConflict,
)


class RedisLabelSets:
    """Definitions as hashes without expiry; changes are scripts, so each is one step."""

    def __init__(self, link: Link, prefix: str, clock: Callable[[], float]) -> None:
        self._link = link
        self._prefix = prefix
        self._clock = clock
        self._names = f"{prefix}names"
        self._recent = f"{prefix}recent"
        register = link.client.register_script
        self._write = register(scripts.WRITE)
        self._amend = register(scripts.AMEND)
        self._delete = register(scripts.DELETE)
        self._restore = register(scripts.RESTORE)
        self._touch = register(scripts.TOUCH)
        self._forget = register(scripts.FORGET)

    async def head(self, name: str) -> Head | None:
        async def head() -> Head | None:
            version, deleted = await self._do("HMGET", self._key(name), "version", "deleted")
            return None if version is None else Head(int(version), deleted == b"1")

        return await self._link.call(head)

    async def get(self, name: str) -> Record | None:
        async def get() -> Record | None:
            return _record(name, await self._do("HMGET", self._key(name), "version", "body"))

        return await self._link.call(get)

    async def page(self, after: str, before: str, limit: int) -> Sequence[Record]:
        records: list[Record] = []
        while len(records) < limit:
            bounds = (f"({after}", f"({before}", "BYLEX", "LIMIT", 0, limit - len(records))
            names = await self._list("ZRANGE", self._names, *bounds)
            if not names:
                break
            for some in chunks(names):
                records += await self._records(some)
            after = names[-1]
        return records

    async def write(
        self,
        name: str,
        body: bytes,
        expected: int | None,
        most: int,
        least: int = 1,
        quota: Quota | None = None,
    ) -> Record:
        wanted = "" if expected is None else str(expected)
        room = (quota.most, quota.after, quota.before) if quota else ("", "", "")
        arguments = [name, body, wanted, most, repr(self._clock()), least, *room]
        kind, value = await self._run(self._write, name, arguments)
        if kind == "own" and quota:
            raise StoreFull(quota.most, own=True)
        if kind == "full":
            raise StoreFull(most)
        if kind == "conflict" or value is None:
            raise VersionConflict(value)
        return Record(name, value, body)

    async def amend(self, name: str, version: int, body: bytes) -> bool:
        kind, _ = await self._run(self._amend, name, [version, body])
        return kind == "done"

    async def delete(self, name: str, expected: int) -> None:
        kind, value = await self._run(self._delete, name, [name, expected])
        if kind == "conflict":
            raise VersionConflict(value)

    async def restore(self, record: Record) -> bool:
        arguments = [record.name, record.body, record.version, repr(self._clock())]
        kind, _ = await self._run(self._restore, record.name, arguments)
        return kind == "done"

    async def touch(self, name: str, when: float) -> None:
        await self._run(self._touch, name, [name, repr(float(when))])

    async def recent(self) -> Sequence[str]:
        names = await self._list("ZRANGE", self._recent, 0, -1, "REV")
        lost: set[str] = set()
        for some in chunks(names):
            versions = await self._each(some, "HGET", "version")
            lost |= {name for name, version in zip(some, versions, strict=True) if version is None}
        return [name for name in names if name not in lost]

    async def _records(self, names: Sequence[str]) -> Sequence[Record]:
        """Of the names that have one; a name whose definition was lost is taken off the lists."""
        records = []
        for name, row in zip(
            names, await self._each(names, "HMGET", "version", "body"), strict=True
        ):
            record = _record(name, row)
            if record is not None:
                records.append(record)
            elif row[0] is None:
                with suppress(StoreRefused):
                    await self._run(self._forget, name, [name])
        return records

    async def _each(self, names: Sequence[str], command: str, *fields: str) -> Sequence[Any]:
        """One answer per name, in one round trip."""

        async def each() -> Sequence[Any]:
            async with self._link.client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.execute_command(command, self._key(name), *fields)
                return answers(await pipe.execute(), len(names))

        return await self._link.call(each)

    async def _list(self, *command: str | int) -> Sequence[str]:
        async def names() -> Sequence[str]:
            return texts(await self._do(*command))

        return await self._link.call(names)

    async def _run(
        self, script: Any, name: str, arguments: Sequence[object]
    ) -> tuple[str, int | None]:
        keys = [self._key(name), self._names, self._recent]

        async def run() -> tuple[str, int | None]:
            kind, value = await script(keys=keys, args=arguments)
            return kind.decode(), int(value) if value else None

        return await self._link.call(run)

    async def _do(self, *command: str | int) -> Any:
        return await self._link.client.execute_command(*command)

    def _key(self, name: str) -> str:
        return f"{self._prefix}labelset:{name}"


def _record(name: str, row: Sequence[bytes | None]) -> Record | None:
    version, body = row
    return None if version is None or body is None else Record(name, int(version), body)
