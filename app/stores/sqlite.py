"""The embedded store: one file that all processes of a machine share.

Knows nothing of what a definition says or what a vector stands for.
"""

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from app.stores.chunks import CHUNK, chunks
from app.stores.database import Database
from app.stores.protocols import (
    Head,
    LabelSets,
    Record,
    StoreFull,
    VectorCache,
    VersionConflict,
)
from app.stores.schema import not_waiting_for_the_disk, transaction

# vectors dropped in one transaction at most: more than it adds, and soon done
_DROPPED: Final = 4 * CHUNK


class SqliteLabelSets:
    """Definitions in a table; each method is one transaction."""

    def __init__(self, reads: Database, writes: Database, clock: Callable[[], float]) -> None:
        self._reads = reads
        self._writes = writes
        self._clock = clock

    async def head(self, name: str) -> Head | None:
        return await self._reads.run(lambda connection: _head(connection, name))

    async def get(self, name: str) -> Record | None:
        def get(connection: sqlite3.Connection) -> Record | None:
            sql = "SELECT version, body FROM labelsets WHERE name = ? AND body IS NOT NULL"
            row = connection.execute(sql, (name,)).fetchone()
            return None if row is None else Record(name, *row)

        return await self._reads.run(get)

    async def page(self, after: str, limit: int) -> Sequence[Record]:
        def page(connection: sqlite3.Connection) -> Sequence[Record]:
            sql = (
                "SELECT name, version, body FROM labelsets "
                "WHERE name > ? AND body IS NOT NULL ORDER BY name LIMIT ?"
            )
            return [Record(*row) for row in connection.execute(sql, (after, limit))]

        return await self._reads.run(page)

    async def write(
        self, name: str, body: bytes, expected: int | None, most: int, least: int = 1
    ) -> Record:
        def write(connection: sqlite3.Connection) -> Record:
            with transaction(connection):
                head = _head(connection, name)
                _expect(head, expected)
                if expected is None:
                    count = "SELECT count(*) FROM labelsets WHERE body IS NOT NULL"
                    if connection.execute(count).fetchone()[0] >= most:
                        raise StoreFull(most)
                version = least if head is None else max(head.version + 1, least)
                sql = "INSERT OR REPLACE INTO labelsets VALUES (?, ?, ?, ?)"
                connection.execute(sql, (name, version, body, self._clock()))
            return Record(name, version, body)

        return await self._writes.run(write)

    async def amend(self, name: str, version: int, body: bytes) -> bool:
        sql = "UPDATE labelsets SET body = ? WHERE name = ? AND version = ? AND body IS NOT NULL"
        return await self._change(sql, (body, name, version))

    async def delete(self, name: str, expected: int) -> None:
        def delete(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                head = _head(connection, name)
                if head is None:
                    raise VersionConflict(None)
                _expect(head, expected)
                sql = "UPDATE labelsets SET version = version + 1, body = NULL WHERE name = ?"
                connection.execute(sql, (name,))

        await self._writes.run(delete)

    async def restore(self, record: Record) -> bool:
        sql = "INSERT INTO labelsets VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
        return await self._change(sql, (record.name, record.version, record.body, self._clock()))

    async def touch(self, name: str, when: float) -> None:
        def touch(connection: sqlite3.Connection) -> None:
            sql = "UPDATE labelsets SET used = ? WHERE name = ? AND used < ?"
            with not_waiting_for_the_disk(connection), transaction(connection):
                connection.execute(sql, (when, name, when))

        await self._writes.run(touch)

    async def recent(self) -> Sequence[str]:
        def recent(connection: sqlite3.Connection) -> Sequence[str]:
            sql = "SELECT name FROM labelsets WHERE body IS NOT NULL ORDER BY used DESC"
            return [row[0] for row in connection.execute(sql)]

        return await self._reads.run(recent)

    async def _change(self, sql: str, values: tuple[str | bytes | float, ...]) -> bool:
        def change(connection: sqlite3.Connection) -> bool:
            with transaction(connection):
                return connection.execute(sql, values).rowcount > 0

        return await self._writes.run(change)


class SqliteVectors:
    """Vectors in a table, bounded in bytes; what expires soonest goes first."""

    def __init__(
        self,
        reads: Database,
        writes: Database,
        ttl: float,
        most: int,
        clock: Callable[[], float],
    ) -> None:
        self._reads = reads
        self._writes = writes
        self._ttl = ttl
        self._most = most
        self._clock = clock

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        found: dict[str, bytes] = {}
        for some in chunks(keys):
            found |= await self._reads.run(partial(self._get, some))
        return [found.get(key) for key in keys]

    async def put_many(self, values: Mapping[str, bytes]) -> None:
        fitting = [(key, value) for key, value in values.items() if len(value) <= self._most]
        for some in chunks(fitting):
            await self._writes.run(partial(self._put, some))

    def _get(self, keys: Sequence[str], connection: sqlite3.Connection) -> dict[str, bytes]:
        marks = ",".join("?" * len(keys))
        sql = f"SELECT key, value FROM vectors WHERE key IN ({marks}) AND expires > ?"  # noqa: S608
        return dict(connection.execute(sql, (*keys, self._clock())))

    def _put(self, items: Sequence[tuple[str, bytes]], connection: sqlite3.Connection) -> None:
        now = self._clock()
        sql = (
            "INSERT INTO vectors (key, value, expires) VALUES (?, ?, ?) ON CONFLICT (key) "
            "DO UPDATE SET value = excluded.value, expires = excluded.expires"
        )
        # a vector lost in a power cut is computed again
        with not_waiting_for_the_disk(connection), transaction(connection):
            rows = [(key, value, now + self._ttl) for key, value in items]
            connection.executemany(sql, rows)
            self._prune(connection, now)

    def _prune(self, connection: sqlite3.Connection, now: float) -> None:
        total = connection.execute("SELECT bytes FROM vector_total").fetchone()[0]
        sql = "SELECT id, length(value), expires FROM vectors ORDER BY expires LIMIT ?"
        dropped = []
        for row, size, expires in connection.execute(sql, (_DROPPED,)):
            if total <= self._most and expires > now:
                break
            total -= size
            dropped.append((row,))
        connection.executemany("DELETE FROM vectors WHERE id = ?", dropped)


class SqliteStore:
    """Both in one file, which is created with its folder.

    Reads have a connection and a thread of their own and wait for no write. A write waits up to
    `patience` seconds for other processes; `vector_ttl` is in seconds and `vector_bytes` bounds
    all vectors together.
    """

    def __init__(
        self,
        path: Path,
        timeout: float,
        vector_ttl: float,
        vector_bytes: int,
        *,
        clock: Callable[[], float] = time.time,
        patience: float = 5.0,
    ) -> None:
        self._reads = Database(path, timeout, patience)
        self._writes = Database(path, max(timeout, patience), patience)
        self.labelsets: LabelSets = SqliteLabelSets(self._reads, self._writes, clock)
        self.vectors: VectorCache = SqliteVectors(
            self._reads, self._writes, vector_ttl, vector_bytes, clock
        )

    async def open(self) -> None:
        """Connect, create or migrate.

        Raises:
            StoreUnusable: not a database, a newer schema, or nothing can be written there.
            StoreAway: another process holds it, or the disk fails; the next call tries again.
        """
        await self._writes.open()
        await self._reads.open()

    async def ping(self) -> None:
        """Nothing if the file can be read, else StoreAway."""
        await self._reads.run(lambda connection: connection.execute("SELECT 1 FROM labelsets"))

    async def close(self) -> None:
        """Let go of the file and its threads."""
        await self._reads.close()
        await self._writes.close()


def _head(connection: sqlite3.Connection, name: str) -> Head | None:
    sql = "SELECT version, body IS NULL FROM labelsets WHERE name = ?"
    row = connection.execute(sql, (name,)).fetchone()
    return None if row is None else Head(row[0], bool(row[1]))


def _expect(head: Head | None, expected: int | None) -> None:
    current = None if head is None or head.deleted else head.version
    if current != expected:
        raise VersionConflict(current)
