"""The embedded store: one file that all processes of a machine share.

Knows nothing of what a definition says, what a vector stands for or who makes requests.
"""

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from app.stores.chunks import CHUNK, chunks
from app.stores.database import Database
from app.stores.file import DatabaseFile
from app.stores.gcra import Grant, take
from app.stores.protocols import LabelSets, Pictures, RateLimits, VectorCache
from app.stores.schema import not_waiting_for_the_disk, transaction
from app.stores.sqlite_labelsets import SqliteLabelSets
from app.stores.sqlite_pictures import SqlitePictures

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


class SqliteRates:
    """Buckets in a table; a power cut may fill them."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._takes = 0

    async def take(self, key: str, wanted: int, rate: float, burst: int) -> Grant:
        def grant(connection: sqlite3.Connection) -> Grant:
            with not_waiting_for_the_disk(connection), transaction(connection):
                now = self._clock()  # not before the transaction: it may have waited for others
                sql = "SELECT full_at FROM rates WHERE key = ? AND typeof(full_at) = 'real'"
                known = (connection.execute(sql, (key,)).fetchone() or (None,))[0]
                full_at, granted = take(known, now, wanted, rate, burst)
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
        self._reads = Database(self._file, timeout, patience)
        self._writes = Database(self._file, max(timeout, patience), patience)
        self._buckets = Database(self._file, timeout, patience)
        self.labelsets: LabelSets = SqliteLabelSets(self._reads, self._writes, clock)
        self.pictures: Pictures = SqlitePictures(self._reads, self._writes)
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
        """Nothing if the file can be read, else StoreAway."""
        sql = "SELECT count(*) FROM vector_total"
        await self._reads.run(lambda connection: connection.execute(sql).fetchone())

    async def probe(self) -> None:
        """Write something that nobody misses; StoreAway if that cannot be done now."""

        def probe(connection: sqlite3.Connection) -> None:
            with not_waiting_for_the_disk(connection), transaction(connection):
                connection.execute("UPDATE vector_total SET bytes = bytes")

        await self._buckets.run(probe)

    async def close(self) -> None:
        """Let go of the file and its threads."""
        for database in (self._buckets, self._reads, self._writes):
            await database.close()
        self._file.forget()
