"""Definitions of label sets in a SQLite file. Knows nothing of what a definition says."""

import sqlite3
from collections.abc import Callable, Sequence

from app.stores.database import Database
from app.stores.protocols import Head, Quota, Record, StoreFull, VersionConflict
from app.stores.schema import not_waiting_for_the_disk, transaction


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

    async def page(self, after: str, before: str, limit: int) -> Sequence[Record]:
        def page(connection: sqlite3.Connection) -> Sequence[Record]:
            sql = (
                "SELECT name, version, body FROM labelsets "
                "WHERE name > ? AND name < ? AND body IS NOT NULL ORDER BY name LIMIT ?"
            )
            return [Record(*row) for row in connection.execute(sql, (after, before, limit))]

        return await self._reads.run(page)

    async def write(
        self,
        name: str,
        body: bytes,
        expected: int | None,
        most: int,
        least: int = 1,
        quota: Quota | None = None,
    ) -> Record:
        def write(connection: sqlite3.Connection) -> Record:
            with transaction(connection):
                head = _head(connection, name)
                _expect(head, expected)
                if expected is None:
                    _make_sure_of_room(connection, most, quota)
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


def _make_sure_of_room(connection: sqlite3.Connection, most: int, quota: Quota | None) -> None:
    count = "SELECT count(*) FROM labelsets WHERE body IS NOT NULL"
    if quota is not None:
        between = f"{count} AND name > ? AND name < ?"
        bounds = (quota.after, quota.before)
        if connection.execute(between, bounds).fetchone()[0] >= quota.most:
            raise StoreFull(quota.most, own=True)
    if connection.execute(count).fetchone()[0] >= most:
        raise StoreFull(most)


def _head(connection: sqlite3.Connection, name: str) -> Head | None:
    sql = "SELECT version, body IS NULL FROM labelsets WHERE name = ?"
    row = connection.execute(sql, (name,)).fetchone()
    return None if row is None else Head(row[0], bool(row[1]))


def _expect(head: Head | None, expected: int | None) -> None:
    current = None if head is None or head.deleted else head.version
    if current != expected:
        raise VersionConflict(current)
