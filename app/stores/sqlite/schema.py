"""The SQLite file's tables, and how an older file becomes a newer one.

Knows nothing of the queries.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from app.stores.protocols import StoreUnusable

# one tuple of statements per version, never changed once released; PRAGMA user_version counts them
MIGRATIONS: Final[list[tuple[str, ...]]] = [
    (
        """CREATE TABLE labelsets (
            name TEXT PRIMARY KEY,
            version INTEGER NOT NULL,
            body BLOB,  -- NULL: deleted
            used REAL NOT NULL
        )""",
        """CREATE TABLE vectors (
            id INTEGER PRIMARY KEY,
            key TEXT NOT NULL UNIQUE,
            value BLOB NOT NULL,
            expires REAL NOT NULL
        )""",
        "CREATE INDEX vectors_by_expiry ON vectors (expires)",
        # the sum of the vectors' bytes, kept by triggers: adding them up would read the whole table
        "CREATE TABLE vector_total (bytes INTEGER NOT NULL)",
        "INSERT INTO vector_total VALUES (0)",
        """CREATE TRIGGER vector_added AFTER INSERT ON vectors BEGIN
            UPDATE vector_total SET bytes = bytes + length(new.value);
        END""",
        """CREATE TRIGGER vector_replaced AFTER UPDATE ON vectors BEGIN
            UPDATE vector_total SET bytes = bytes + length(new.value) - length(old.value);
        END""",
        """CREATE TRIGGER vector_dropped AFTER DELETE ON vectors BEGIN
            UPDATE vector_total SET bytes = bytes - length(old.value);
        END""",
    ),
    (
        # full_at: the time when a bucket of requests will be full again
        "CREATE TABLE rates (key TEXT PRIMARY KEY, full_at REAL NOT NULL) WITHOUT ROWID",
        "CREATE INDEX rates_by_time ON rates (full_at)",
    ),
    (
        """CREATE TABLE pictures (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL,
            key TEXT NOT NULL,
            value BLOB NOT NULL,
            UNIQUE (name, key)
        )""",
        # kept as that of the vectors is
        "CREATE TABLE picture_total (bytes INTEGER NOT NULL)",
        "INSERT INTO picture_total VALUES (0)",
        """CREATE TRIGGER picture_added AFTER INSERT ON pictures BEGIN
            UPDATE picture_total SET bytes = bytes + length(new.value);
        END""",
        """CREATE TRIGGER picture_dropped AFTER DELETE ON pictures BEGIN
            UPDATE picture_total SET bytes = bytes - length(old.value);
        END""",
    ),
    (
        "CREATE INDEX tombstones ON labelsets (used) WHERE body IS NULL",
        # the newest version of a tombstone that is no longer kept
        "CREATE TABLE forgotten (version INTEGER NOT NULL)",
        "INSERT INTO forgotten VALUES (0)",
    ),
]


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Everything inside is kept, or none of it; other writers wait."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


@contextmanager
def not_waiting_for_the_disk(connection: sqlite3.Connection) -> Iterator[None]:
    """Writes inside survive a crash of the process, but maybe not a power cut."""
    connection.execute("PRAGMA synchronous = NORMAL")
    try:
        yield
    finally:
        connection.execute("PRAGMA synchronous = FULL")


def migrate(connection: sqlite3.Connection, migrations: Sequence[Sequence[str]]) -> None:
    """Run the migrations that the file lacks, in order; several processes may try at once.

    Raises:
        StoreUnusable: the file was written by a newer release.
    """
    if _version(connection) == len(migrations):
        return
    with transaction(connection):
        # read again: another process may have been first
        version = _version(connection)
        if version > len(migrations):
            raise StoreUnusable(
                f"the file has schema version {version} and this release knows versions up to "
                f"{len(migrations)}: start the newer release, or use another file"
            )
        for statements in migrations[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations):d}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
