"""The store that machines share: a Redis server.

Knows nothing of what a definition says or what a vector stands for.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from redis.exceptions import OutOfMemoryError

from app.stores import scripts
from app.stores.chunks import chunks
from app.stores.link import Link, texts
from app.stores.protocols import (
    Head,
    LabelSets,
    Record,
    StoreFull,
    VectorCache,
    VersionConflict,
)

log = logging.getLogger("openvocab.stores")


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

    async def page(self, after: str, limit: int) -> Sequence[Record]:
        records: list[Record] = []
        start = "(" + after
        while len(records) < limit:
            names = await self._list("ZRANGEBYLEX", start, "+", "LIMIT", 0, limit - len(records))
            if not names:
                break
            for some in chunks(names):
                records += await self._records(some)
            start = "(" + names[-1]
        return records

    async def write(
        self, name: str, body: bytes, expected: int | None, most: int, least: int = 1
    ) -> Record:
        wanted = "" if expected is None else str(expected)
        arguments = [name, body, wanted, most, repr(self._clock()), least]
        kind, value = await self._run(self._write, name, arguments)
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
        names = await self._list("ZREVRANGE", 0, -1, key=self._recent)
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
                await self._run(self._forget, name, [name])
        return records

    async def _each(self, names: Sequence[str], command: str, *fields: str) -> Sequence[Any]:
        """One answer per name, in one round trip."""

        async def each() -> Sequence[Any]:
            async with self._link.client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.execute_command(command, self._key(name), *fields)
                return _answers(await pipe.execute(), len(names))

        return await self._link.call(each)

    async def _list(self, command: str, *arguments: str | int, key: str = "") -> Sequence[str]:
        async def names() -> Sequence[str]:
            return texts(await self._do(command, key or self._names, *arguments))

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


class RedisVectors:
    """Vectors as strings that expire, so that the server may also drop them when it is full."""

    def __init__(self, link: Link, prefix: str, ttl: float) -> None:
        self._link = link
        self._prefix = prefix
        self._ttl = max(1, int(ttl * 1000))

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        found: list[bytes | None] = []
        for some in chunks(keys):
            found += await self._link.call(partial(self._get, some))
        return found

    async def put_many(self, values: Mapping[str, bytes]) -> None:
        for some in chunks(list(values.items())):
            await self._link.call(partial(self._put, some))

    async def _get(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        names = [self._key(key) for key in keys]
        return _answers(await self._link.client.execute_command("MGET", *names), len(keys))

    async def _put(self, items: Sequence[tuple[str, bytes]]) -> None:
        async with self._link.client.pipeline(transaction=False) as pipe:
            for key, value in items:
                pipe.execute_command("SET", self._key(key), value, "PX", self._ttl)
            try:
                kept = await pipe.execute()
                if not all(answer is True for answer in kept):
                    raise ValueError("an answer to SET that is not OK")
            except OutOfMemoryError:
                # not an outage: what is there can still be read
                log.warning("the Redis server is full and keeps no more vectors")

    def _key(self, key: str) -> str:
        return f"{self._prefix}vector:{key}"


class RedisStore:
    """Both on one server.

    `timeout` in seconds bounds every call, and every 256 of its vectors; `vector_ttl` is in
    seconds. While the server is away every method raises StoreAway, and the same object works
    again when it is back.

    Raises:
        StoreUnusable: the URL can never work.
    """

    def __init__(
        self,
        url: str,
        timeout: float,
        vector_ttl: float,
        prefix: str = "openvocab:",
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._link = Link(url, timeout, f"{prefix}schema")
        self.labelsets: LabelSets = RedisLabelSets(self._link, prefix, clock)
        self.vectors: VectorCache = RedisVectors(self._link, prefix, vector_ttl)

    async def open(self) -> None:
        """Connect and check the schema.

        Raises:
            StoreUnusable: wrong password, newer schema.
            StoreAway: no answer; the schema is checked with the first one.
        """
        await self._link.open()

    async def ping(self) -> None:
        """Nothing if the server answers, else StoreAway."""
        await self._link.ping()

    async def close(self) -> None:
        """Let go of all connections."""
        await self._link.close()


def _record(name: str, row: Sequence[bytes | None]) -> Record | None:
    version, body = row
    return None if version is None or body is None else Record(name, int(version), body)


def _answers(values: Sequence[Any], count: int) -> Sequence[Any]:
    if len(values) != count:
        raise ValueError(f"{len(values)} answers to {count} questions")
    return values
