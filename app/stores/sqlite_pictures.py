"""Pictures of label sets in a SQLite file. Knows nothing of what they show."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from app.stores.database import Database
from app.stores.protocols import PicturesFull
from app.stores.schema import transaction


class SqlitePictures:
    """Pictures in a table; each method is one transaction."""

    def __init__(self, reads: Database, writes: Database) -> None:
        self._reads = reads
        self._writes = writes

    async def put(self, name: str, key: str, value: bytes, most: int) -> None:
        def put(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                _delete(connection, name, [key])
                total = connection.execute("SELECT bytes FROM picture_total").fetchone()[0]
                if total + len(value) > most:
                    raise PicturesFull(most, total + len(value))
                sql = "INSERT INTO pictures (name, key, value) VALUES (?, ?, ?)"
                connection.execute(sql, (name, key, value))

        await self._writes.run(put)

    async def get(self, name: str, key: str, size: int) -> bytes | None:
        def get(connection: sqlite3.Connection) -> bytes | None:
            sql = "SELECT value FROM pictures WHERE name = ? AND key = ? AND length(value) = ?"
            row = connection.execute(sql, (name, key, size)).fetchone()
            return None if row is None else bytes(row[0])

        return await self._reads.run(get)

    async def delete(self, name: str, keys: Sequence[str]) -> None:
        def delete(connection: sqlite3.Connection) -> None:
            with _overwriting(connection), transaction(connection):
                _delete(connection, name, keys)
            # else the log holds what was there until it is full; a reader may be in the way
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

        if keys:
            await self._writes.run(delete)

    async def listed(self) -> Sequence[tuple[str, str]]:
        def listed(connection: sqlite3.Connection) -> Sequence[tuple[str, str]]:
            return connection.execute("SELECT name, key FROM pictures").fetchall()

        return await self._reads.run(listed)


def _delete(connection: sqlite3.Connection, name: str, keys: Sequence[str]) -> None:
    sql = "DELETE FROM pictures WHERE name = ? AND key = ?"
    connection.executemany(sql, [(name, key) for key in keys])


@contextmanager
def _overwriting(connection: sqlite3.Connection) -> Iterator[None]:
    """What is deleted inside is overwritten: a picture may show a person."""
    before = connection.execute("PRAGMA secure_delete").fetchone()[0]
    connection.execute("PRAGMA secure_delete = ON")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA secure_delete = {before:d}")
