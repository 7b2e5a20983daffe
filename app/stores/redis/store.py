"""All four stores on a Redis server. Knows nothing of what a definition says."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from operator import itemgetter
from typing import Any, Final

from redis.exceptions import ResponseError

from app.groups import groups
from app.stores.gcra import SLACK, Grant
from app.stores.protocols import (
    TOMBSTONES,
    Head,
    LabelSetRecord,
    LabelSetStore,
    PicturesFull,
    PictureStore,
    Quota,
    RateLimits,
    StoreDamaged,
    StoreFull,
    StoreRefused,
    StoreUnusable,
    VectorCache,
    VersionConflict,
    chunks,
)
from app.stores.redis import scripts
from app.stores.redis.link import PIECE, Link, answers, is_damage, texts


class RedisLabelSets:
    """Definitions as hashes without expiry; changes are scripts, so each is one step."""

    def __init__(self, link: Link, prefix: str, clock: Callable[[], float]) -> None:
        self._link = link
        self._prefix = prefix
        self._clock = clock
        self._names = f"{prefix}names"
        self._recent = f"{prefix}recent"
        self._lists = [self._names, self._recent, f"{prefix}tombstones", f"{prefix}forgotten"]
        register = link.client.register_script
        self._write = register(scripts.WRITE)
        self._amend = register(scripts.AMEND)
        self._delete = register(scripts.DELETE)
        self._restore = register(scripts.RESTORE)
        self._touch = register(scripts.TOUCH)
        self._forget = register(scripts.FORGET)
        self._relist = register(scripts.RELIST)

    async def head(self, name: str) -> Head | None:
        async def head() -> Head | None:
            version, deleted = await self._do("HMGET", self._key(name), "version", "deleted")
            return None if version is None else Head(_version(version), deleted == b"1")

        try:
            return await self._link.call(head)
        except StoreDamaged:
            return Head(0, deleted=False)

    async def get(self, name: str) -> LabelSetRecord | None:
        async def size() -> int:
            return int(await self._do("HSTRLEN", self._key(name), "body"))

        async def get() -> LabelSetRecord | None:
            return _record(name, await self._do("HMGET", self._key(name), *_FIELDS))

        try:
            return await self._link.call(get, await self._link.call(size))
        except StoreDamaged:
            return LabelSetRecord(name, 0, b"")

    async def page(self, after: str, before: str, limit: int) -> Sequence[LabelSetRecord]:
        records: list[LabelSetRecord] = []
        last = after.encode()
        while len(records) < limit:
            bounds = (b"(" + last, f"({before}", "BYLEX", "LIMIT", 0, limit - len(records))
            listed = await self._list("ZRANGE", self._names, *bounds)
            if not listed:
                break
            for some in chunks(texts(listed)):
                records += await self._records(some)
            last = listed[-1]
        return records

    async def write(
        self,
        name: str,
        body: bytes,
        expected: int | None,
        most: int,
        least: int = 1,
        quota: Quota | None = None,
    ) -> LabelSetRecord:
        version = "" if expected is None else str(expected)
        room = (quota.most, quota.after, quota.before) if quota else ("", "", "")
        arguments = [name, body, version, most, repr(self._clock()), least, *room]
        kind, value = await self._run(self._write, name, arguments)
        if kind == "own" and quota:
            raise StoreFull(quota.most, own=True)
        if kind == "full":
            raise StoreFull(most)
        if kind == "conflict" or value is None:
            raise VersionConflict(value)
        return LabelSetRecord(name, value, body)

    async def amend(self, name: str, version: int, body: bytes) -> bool:
        kind, _ = await self._run(self._amend, name, [version, body])
        return kind == "done"

    async def delete(self, name: str, expected: int, least: int = 1) -> None:
        arguments = [name, expected, repr(self._clock()), TOMBSTONES, self._key(""), least]
        kind, value = await self._run(self._delete, name, arguments)
        if kind == "conflict":
            raise VersionConflict(value)

    async def restore(self, record: LabelSetRecord) -> bool:
        arguments = [record.name, record.body, record.version, repr(self._clock())]
        kind, _ = await self._run(self._restore, record.name, arguments)
        return kind == "done"

    async def touch(self, name: str, when: float) -> None:
        await self._run(self._touch, name, [name, repr(float(when))])

    async def recent(self) -> Sequence[str]:
        listed, count = await self._link.call(self._recent_and_count)
        if count != len(listed):
            with suppress(StoreRefused):  # one of the lists was lost, and the other has the names
                await self._link.call(partial(self._relist, keys=[self._names, self._recent]))
            listed, _ = await self._link.call(self._recent_and_count)
        names = texts(listed)
        lost: set[str] = set()
        for some in chunks(names):
            versions = await self._each(some, "HGET", "version")
            lost |= {name for name, version in zip(some, versions, strict=True) if version is None}
        return [name for name in names if name not in lost]

    async def _recent_and_count(self) -> tuple[Sequence[bytes], int]:
        """The names by their use, and how many there are by name, which should be as many."""
        async with self._link.client.pipeline(transaction=False) as pipe:
            pipe.execute_command("ZRANGE", self._recent, 0, -1, "REV")
            pipe.execute_command("ZCARD", self._names)
            listed, count = answers(await pipe.execute(), 2)
        texts(listed)  # what is no list of strings fails here
        return listed, int(count)

    async def _records(self, names: Sequence[str]) -> Sequence[LabelSetRecord]:
        """Of the names that have one; a name whose definition was lost is taken off the lists."""
        records = []
        rows: list[Any] = []
        lengths = await self._each(names, "HSTRLEN", "body")
        sizes = [0 if isinstance(length, ResponseError) else int(length) for length in lengths]
        for some in groups(zip(names, sizes, strict=True), itemgetter(1), PIECE):
            size = sum(size for _, size in some)
            rows += await self._each([name for name, _ in some], "HMGET", *_FIELDS, size=size)
        for name, row in zip(names, rows, strict=True):
            if isinstance(row, ResponseError):
                records.append(LabelSetRecord(name, 0, b""))
                continue
            record = _record(name, row)
            if record is not None:
                records.append(record)
            elif row[0] is None:
                with suppress(StoreRefused):
                    await self._run(self._forget, name, [name])
        return records

    async def _each(
        self, names: Sequence[str], command: str, *fields: str, size: int = 0
    ) -> Sequence[Any]:
        """One answer per name, in one round trip; an error for what others wrote there.

        `size` is how many bytes they have together, about.
        """

        async def pipelined() -> Sequence[Any]:
            async with self._link.client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.execute_command(command, self._key(name), *fields)
                replies = answers(await pipe.execute(raise_on_error=False), len(names))
            for answer in replies:
                if isinstance(answer, Exception) and not is_damage(answer):
                    raise answer
            return replies

        return await self._link.call(pipelined, size)

    async def _list(self, *command: str | bytes | int) -> Sequence[bytes]:
        async def names() -> Sequence[bytes]:
            members: Sequence[bytes] = await self._do(*command)
            texts(members)  # what is no list of strings fails here
            return members

        return await self._link.call(names)

    async def _run(
        self, script: Any, name: str, arguments: Sequence[object]
    ) -> tuple[str, int | None]:
        keys = [self._key(name), *self._lists]

        async def run() -> tuple[str, int | None]:
            kind, value = await script(keys=keys, args=arguments)
            return kind.decode(), int(value) if value else None

        size = sum(len(value) for value in arguments if isinstance(value, bytes))
        return await self._link.call(run, size)

    async def _do(self, *command: str | bytes | int) -> Any:
        return await self._link.client.execute_command(*command)

    def _key(self, name: str) -> str:
        return f"{self._prefix}labelset:{name}"


_FIELDS: Final = ("version", "body", "deleted")


def _record(name: str, row: Sequence[bytes | None]) -> LabelSetRecord | None:
    version, body, deleted = row
    if version is None or deleted == b"1":
        return None
    whole = body is not None and version.isdigit()
    return (
        LabelSetRecord(name, int(version), body)
        if body is not None and whole
        else LabelSetRecord(name, 0, b"")
    )


def _version(text: bytes) -> int:
    return int(text) if text.isdigit() else 0


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
        content = bytearray()
        for start in range(0, size or 1, PIECE):
            try:
                piece = await self._do("GETRANGE", self._key(name, key), start, start + PIECE - 1)
            except StoreDamaged:
                return None
            if not isinstance(piece, bytes):
                raise ValueError("an unexpected reply to GETRANGE")  # noqa: TRY004
            content += piece
        return bytes(content) if len(content) == size and size else None

    async def delete(self, name: str, keys: Sequence[str]) -> None:
        for key in keys:
            names = [self._sizes, self._total, self._key(name, key)]
            await self._link.call(partial(self._drop, keys=names, args=[f"{name}{_MARK}{key}"]))

    async def missing(self, name: str, keys: Sequence[str]) -> Sequence[str]:
        async def stored_sizes(some: Sequence[str]) -> Sequence[bytes | None]:
            fields = [f"{name}{_MARK}{key}" for key in some]
            sizes = await self._link.client.execute_command("HMGET", self._sizes, *fields)
            return answers(sizes, len(some))

        missing: list[str] = []
        for some in chunks(keys):
            sizes = await self._link.call(partial(stored_sizes, some))
            missing += [key for key, size in zip(some, sizes, strict=True) if size is None]
        return missing

    async def listed(self) -> Sequence[tuple[str, str]]:
        pairs: dict[tuple[str, str], None] = {}
        cursor = 0
        while True:
            cursor, fields = await self._link.call(
                partial(self._link.client.hscan, self._sizes, cursor, count=LISTED)
            )
            for field in fields:
                name, _, key = field.decode(errors="replace").rpartition(_MARK)
                pairs[name, key] = None
            if not cursor:
                return list(pairs)

    async def _do(self, *command: Any) -> Any:
        return await self._link.call(partial(self._link.client.execute_command, *command))

    def _key(self, name: str, key: str) -> str:
        return f"{self._prefix}picture:{name}{_MARK}{key}"


# milliseconds that a probe is kept
_PROBE: Final = 1_000


class RedisVectors:
    """Vectors as strings that expire, so that the server may also drop them when it is full."""

    def __init__(self, link: Link, prefix: str, ttl: float) -> None:
        self._link = link
        self._prefix = prefix
        self._ttl = max(1, int(ttl * 1000))

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        vectors: list[bytes | None] = []
        for some in chunks(keys):
            vectors += await self._link.call(partial(self._get, some))
        return vectors

    async def put_many(self, values: Mapping[str, bytes]) -> None:
        for some in chunks(list(values.items())):
            await self._link.call(partial(self._put, some))

    async def _get(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        names = [self._key(key) for key in keys]
        return answers(await self._link.client.execute_command("MGET", *names), len(keys))

    async def _put(self, items: Sequence[tuple[str, bytes]]) -> None:
        async with self._link.client.pipeline(transaction=False) as pipe:
            for key, value in items:
                pipe.execute_command("SET", self._key(key), value, "PX", self._ttl)
            for answer in await pipe.execute(raise_on_error=False):
                if isinstance(answer, Exception):
                    raise answer
                if answer is not True:
                    raise ValueError("an unexpected reply to SET")

    def _key(self, key: str) -> str:
        return f"{self._prefix}vector:{key}"


class RedisRates:
    """Buckets as strings that expire when they are full again; all go by the server's clock."""

    def __init__(self, link: Link, prefix: str) -> None:
        self._link = link
        self._prefix = prefix
        self._take = link.client.register_script(scripts.TAKE)

    async def take(self, key: str, count: int, rate: float, burst: int) -> Grant:
        arguments = [repr(float(rate)), burst, count, SLACK]

        async def take() -> Grant:
            granted, wait = await self._take(keys=[f"{self._prefix}rate:{key}"], args=arguments)
            return Grant(int(granted), float(wait))

        return await self._link.call(take)


class RedisStore:
    """All of it on one server.

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
        self._probe_keys = [f"{prefix}{name}" for name in ("probe", "names", "recent", "pictures")]
        self._probe = self._link.client.register_script(scripts.PROBE)
        self._lacking = self._link.client.register_script(scripts.LACKING)
        self.labelsets: LabelSetStore = RedisLabelSets(self._link, prefix, clock)
        self.pictures: PictureStore = RedisPictures(self._link, prefix)
        self.vectors: VectorCache = RedisVectors(self._link, prefix, vector_ttl)
        self.rates: RateLimits = RedisRates(self._link, prefix)

    async def open(self) -> None:
        """Connect, check the schema and what the server lets us do.

        Raises:
            StoreUnusable: wrong password, newer schema, a user without a right that is needed.
            StoreAway: no answer; the schema is checked with the first one.
        """

        async def work() -> Sequence[bytes]:
            lacking: Sequence[bytes] = await self._lacking(keys=self._probe_keys[:1], args=[_PROBE])
            if not lacking:
                await self._write_probe()
            return lacking

        with suppress(StoreRefused):  # a server that accepts no writes now may later
            lacking = await self._link.open(work)
            if lacking:
                names = " ".join(f"+{name.decode().lower()}" for name in lacking)
                raise StoreUnusable(f"{self._link.address}: the Redis user needs {names}")

    async def ping(self) -> None:
        """Nothing if the server answers, else StoreAway."""
        await self._link.ping()

    async def probe(self) -> None:
        """Write something expendable; StoreAway if writing is impossible now."""
        await self._link.call(self._write_probe)

    async def _write_probe(self) -> None:
        if await self._probe(keys=self._probe_keys, args=[_PROBE]) != b"done":
            raise ValueError("an unexpected reply to a script")

    async def close(self) -> None:
        """Close all connections."""
        await self._link.close()
