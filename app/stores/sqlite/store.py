"""The embedded store: one file that all processes of a machine share.

Knows nothing of what a definition says, what a vector stands for or who makes requests.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from app.stores.gcra import Grant, take
from app.stores.protocols import (
    CHUNK,
    TOMBSTONES,
    Head,
    LabelSetRecord,
    LabelSetStore,
    PicturesFull,
    PictureStore,
    Quota,
    RateLimits,
    StoreFull,
    VectorCache,
    VersionConflict,
    chunks,
)
from app.stores.sqlite.database import Database, DatabaseFile
from app.stores.sqlite.schema import not_waiting_for_the_disk, transaction


class SqliteLabelSets:
    """Definitions in a table; each method is one transaction."""

    def __init__(self, reads: Database, writes: Database, clock: Callable[[], float]) -> None:
        self._reads = reads
        self._writes = writes
        self._clock = clock

    async def head(self, name: str) -> Head | None:
        return await self._reads.run(lambda connection: _head(connection, name))

    async def get(self, name: str) -> LabelSetRecord | None:
        def get(connection: sqlite3.Connection) -> LabelSetRecord | None:
            sql = "SELECT version, body FROM labelsets WHERE name = ? AND body IS NOT NULL"
            row = connection.execute(sql, (name,)).fetchone()
            return None if row is None else _record(name, *row)

        return await self._reads.run(get)

    async def page(self, after: str, before: str, limit: int) -> Sequence[LabelSetRecord]:
        def page(connection: sqlite3.Connection) -> Sequence[LabelSetRecord]:
            sql = (
                "SELECT name, version, body FROM labelsets "
                "WHERE name > ? AND name < ? AND body IS NOT NULL ORDER BY name LIMIT ?"
            )
            return [_record(*row) for row in connection.execute(sql, (after, before, limit))]

        return await self._reads.run(page)

    async def write(
        self,
        name: str,
        body: bytes,
        expected: int | None,
        most: int,
        least: int = 1,
        quota: Quota | None = None,
    ) -> LabelSetRecord:
        def write(connection: sqlite3.Connection) -> LabelSetRecord:
            with transaction(connection):
                head = _head(connection, name)
                _expect(head, expected)
                if expected is None:
                    _make_sure_of_room(connection, most, quota)
                newest = _forgotten(connection) if head is None else head.version
                version = max(newest + 1, least)
                sql = "INSERT OR REPLACE INTO labelsets VALUES (?, ?, ?, ?)"
                connection.execute(sql, (name, version, body, self._clock()))
            return LabelSetRecord(name, version, body)

        return await self._writes.run(write)

    async def amend(self, name: str, version: int, body: bytes) -> bool:
        sql = "UPDATE labelsets SET body = ? WHERE name = ? AND version = ? AND body IS NOT NULL"

        def amend(connection: sqlite3.Connection) -> bool:
            with transaction(connection):
                return connection.execute(sql, (body, name, version)).rowcount > 0

        return await self._writes.run(amend)

    async def delete(self, name: str, expected: int, least: int = 1) -> None:
        def delete(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                head = _head(connection, name)
                if head is None:
                    raise VersionConflict(None)
                _expect(head, expected)
                sql = "UPDATE labelsets SET version = ?, body = NULL, used = ? WHERE name = ?"
                version = max(head.version + 1, least)
                connection.execute(sql, (version, self._clock(), name))
                _forget_oldest(connection)

        await self._writes.run(delete)

    async def restore(self, record: LabelSetRecord) -> bool:
        def restore(connection: sqlite3.Connection) -> bool:
            with transaction(connection):
                if record.version <= _forgotten(connection):
                    return False
                sql = "INSERT INTO labelsets VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
                row = (record.name, record.version, record.body, self._clock())
                return connection.execute(sql, row).rowcount > 0

        return await self._writes.run(restore)

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
    sql = "SELECT version, typeof(body) FROM labelsets WHERE name = ?"
    row = connection.execute(sql, (name,)).fetchone()
    if row is None:
        return None
    version = _version(row[0]) if row[1] in ("blob", "null") else 0
    return Head(version, deleted=row[1] == "null")


def _record(name: str, version: object, body: object) -> LabelSetRecord:
    # other programs may write any type into a column
    if isinstance(body, bytes) and _version(version):
        return LabelSetRecord(name, _version(version), body)
    return LabelSetRecord(name, 0, b"")


def _version(version: object) -> int:
    return version if isinstance(version, int) and version > 0 else 0


def _forgotten(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT max(version) FROM forgotten").fetchone()[0])


def _forget_oldest(connection: sqlite3.Connection) -> None:
    """Keep the newest tombstones, and remember how new those were that go."""
    sql = (
        "SELECT rowid, version FROM labelsets WHERE body IS NULL "
        "ORDER BY used DESC LIMIT -1 OFFSET ?"
    )
    oldest = connection.execute(sql, (TOMBSTONES,)).fetchall()
    if oldest:
        connection.executemany("DELETE FROM labelsets WHERE rowid = ?", [row[:1] for row in oldest])
        newest = max(_forgotten(connection), *(_version(row[1]) for row in oldest))
        connection.execute("UPDATE forgotten SET version = ?", (newest,))


def _expect(head: Head | None, expected: int | None) -> None:
    current = None if head is None or head.deleted else head.version
    if current != expected:
        raise VersionConflict(current)


class SqlitePictures:
    """Pictures in a table; each method is one transaction."""

    def __init__(self, reads: Database, writes: Database) -> None:
        self._reads = reads
        self._writes = writes
        self._log_is_full = False

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
            self._log_is_full = not _empty_log(connection)

        if keys:
            await self._writes.run(delete)

    async def missing(self, name: str, keys: Sequence[str]) -> Sequence[str]:
        def missing(connection: sqlite3.Connection) -> Sequence[str]:
            sql = "SELECT 1 FROM pictures WHERE name = ? AND key = ?"
            rows = [connection.execute(sql, (name, key)).fetchone() for key in keys]
            return [key for key, row in zip(keys, rows, strict=True) if row is None]

        return await self._reads.run(missing)

    async def listed(self) -> Sequence[tuple[str, str]]:
        def listed(connection: sqlite3.Connection) -> Sequence[tuple[str, str]]:
            return connection.execute("SELECT name, key FROM pictures").fetchall()

        if self._log_is_full:  # whoever sweeps also empties what a reader was in the way of
            self._log_is_full = not await self._writes.run(_empty_log)
        return await self._reads.run(listed)


def _delete(connection: sqlite3.Connection, name: str, keys: Sequence[str]) -> None:
    sql = "DELETE FROM pictures WHERE name = ? AND key = ?"
    connection.executemany(sql, [(name, key) for key in keys])


def _empty_log(connection: sqlite3.Connection) -> bool:
    """Empty the log, which holds what was deleted; False where a reader is in the way.

    It is not waited for: this is the only writer.
    """
    patience = connection.execute("PRAGMA busy_timeout").fetchone()[0]
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy
    finally:
        connection.execute(f"PRAGMA busy_timeout = {patience:d}")


@contextmanager
def _overwriting(connection: sqlite3.Connection) -> Iterator[None]:
    """What is deleted inside is overwritten: a picture may show a person."""
    before = connection.execute("PRAGMA secure_delete").fetchone()[0]
    connection.execute("PRAGMA secure_delete = ON")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA secure_delete = {before:d}")


# vectors dropped in one transaction at most: more than it adds, and soon done
_DROPPED: Final = 4 * CHUNK
# how often full buckets are looked for, and how many are dropped then: more than came since
_TAKES: Final = 500
_FORGOTTEN: Final = 2 * _TAKES


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
        vectors: dict[str, bytes] = {}
        for some in chunks(keys):
            vectors |= await self._reads.run(partial(self._get, some))
        return [vectors.get(key) for key in keys]

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


class SqliteRates:
    """Buckets in a table; a power cut may fill them."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._takes = 0

    async def take(self, key: str, count: int, rate: float, burst: int) -> Grant:
        def grant(connection: sqlite3.Connection) -> Grant:
            with not_waiting_for_the_disk(connection), transaction(connection):
                now = self._clock()  # not before the transaction: it may have waited for others
                sql = "SELECT full_at FROM rates WHERE key = ? AND typeof(full_at) = 'real'"
                known = (connection.execute(sql, (key,)).fetchone() or (None,))[0]
                full_at, granted = take(known, now, count, rate, burst)
                if full_at != known:
                    sql = "INSERT OR REPLACE INTO rates VALUES (?, ?)"
                    connection.execute(sql, (key, full_at))
                self._prune(connection, now)
            return granted

        return await self._database.run(grant)

    def _prune(self, connection: sqlite3.Connection, now: float) -> None:
        self._takes += 1
        if self._takes % _TAKES == 0:
            some = "SELECT key FROM rates WHERE full_at < ? LIMIT ?"
            connection.execute(f"DELETE FROM rates WHERE key IN ({some})", (now, _FORGOTTEN))  # noqa: S608


class SqliteStore:
    """All of it in one file, which is created with its folder.

    Reads have a connection and a thread of their own and wait for no write, and so have buckets,
    which wait no longer than `timeout`. Another write waits up to `patience` seconds for other
    processes; `vector_ttl` is in seconds and `vector_bytes` bounds all vectors together.
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
        self._file = DatabaseFile(path)
        self._reads = Database(self._file, timeout, patience, writes=False)
        self._writes = Database(self._file, max(timeout, patience), patience, writes=True)
        self._buckets = Database(self._file, timeout, patience, writes=True)
        self.labelsets: LabelSetStore = SqliteLabelSets(self._reads, self._writes, clock)
        self.pictures: PictureStore = SqlitePictures(self._reads, self._writes)
        self.vectors: VectorCache = SqliteVectors(
            self._reads, self._writes, vector_ttl, vector_bytes, clock
        )
        self.rates: RateLimits = SqliteRates(self._buckets, clock)

    async def open(self) -> None:
        """Connect, create or migrate.

        Raises:
            StoreUnusable: not a database, a newer schema, or nothing can be written there.
            StoreAway: another process holds it, or the disk fails; the next call tries again.
        """
        await self._writes.open()
        await self._reads.open()

    async def ping(self) -> None:
        """Nothing if the file can be read, else StoreAway; StoreRefused if it is damaged."""
        sql = "SELECT count(*) FROM vector_total"
        await self._reads.run(lambda connection: connection.execute(sql).fetchone())
        self._file.check(writing=True)

    async def probe(self) -> None:
        """Write something expendable; StoreAway if writing is impossible now."""

        def probe(connection: sqlite3.Connection) -> None:
            with not_waiting_for_the_disk(connection), transaction(connection):
                connection.execute("UPDATE vector_total SET bytes = bytes")

        await self._buckets.run(probe)

    async def close(self) -> None:
        """Close the file and its threads."""
        for database in (self._buckets, self._reads, self._writes):
            await database.close()
        self._file.forget()
