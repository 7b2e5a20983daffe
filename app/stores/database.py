"""One SQLite connection on one thread of its own, opened again after a failure.

Knows nothing of what is stored.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from app.stores import schema
from app.stores.file import DatabaseFile
from app.stores.protocols import StoreAway, StoreUnusable

T = TypeVar("T")

# a waiting writer gives up a little before its caller does, so that "not written" is an answer
_SHARE_OF_TIMEOUT: Final = 0.8
# what no waiting heals, when met while opening
_HOPELESS: Final = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
}
_BUSY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class Database:
    """Runs functions of a connection, one after the other.

    `timeout` bounds the wait for other processes' writes, `patience` the same while opening, where
    another process may be creating or migrating the file. `busy` is held while the connection is
    used, opened or closed.
    """

    def __init__(self, file: DatabaseFile, timeout: float, patience: float) -> None:
        self.busy = threading.Lock()
        self._file = file
        self._path = file.path
        self._timeout = timeout * _SHARE_OF_TIMEOUT
        self._patience = patience
        self._threads = ThreadPoolExecutor(1, "openvocab-sqlite")
        self._connection: sqlite3.Connection | None = None
        file.add(self)

    async def open(self) -> None:
        """Connect and migrate.

        Raises:
            StoreUnusable, StoreAway
        """
        await self._submit(self._open)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What the function returns; whatever SQLite has against it is StoreAway."""
        try:
            return await self._submit(lambda: self._work(work))
        except StoreUnusable as error:
            raise StoreAway(str(error)) from error

    async def close(self) -> None:
        """Let go of the file and the thread; nothing can be run afterwards."""
        try:
            await self._submit(self._close)
        except StoreAway:
            return
        self._threads.shutdown()

    async def _submit(self, work: Callable[[], T]) -> T:
        try:
            future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        except RuntimeError as error:
            raise StoreAway(f"{self._path} is closed") from error
        return await future

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    def drop(self) -> None:
        """Close the connection; the caller holds `busy`."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> None:
        with self.busy:
            self._connected()

    def _close(self) -> None:
        with self.busy:
            self.drop()

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self.busy:
                if not self._file.moved():
                    return self._execute(work)
            self._file.renew(self._timeout)
            with self.busy:
                return self._execute(work)
        except OSError as error:
            raise StoreAway(f"{self._path}: {error.strerror}") from error

    def _execute(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._file.check()
        connection = self._connected()
        try:
            return work(connection)
        except sqlite3.Error as error:
            if _code(error) not in _BUSY:
                self.drop()
            raise StoreAway(f"{self._path}: {error}") from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            try:
                self._file.prepare()
                self._connection = _connect(self._path, self._patience)
                self._connection.execute(f"PRAGMA busy_timeout = {self._timeout * 1000:.0f}")
                self._file.opened()
            except sqlite3.Error as error:
                kind = StoreUnusable if _code(error) in _HOPELESS else StoreAway
                raise kind(f"{self._path}: {error}") from error
            except OSError as error:
                self.drop()
                text = f"{self._path}: its folder cannot be made or written: {error.strerror}"
                raise StoreUnusable(text) from error
            except StoreUnusable as error:
                raise StoreUnusable(f"{self._path}: {error}") from error
        return self._connection


def _connect(path: Path, patience: float) -> sqlite3.Connection:
    # used by one thread at a time, and closed by any
    connection = sqlite3.connect(
        path, timeout=patience, isolation_level=None, check_same_thread=False
    )
    try:
        _use_wal(connection, time.monotonic() + patience)
        # an acknowledged definition survives a power cut
        connection.execute("PRAGMA synchronous = FULL")
        schema.migrate(connection, schema.MIGRATIONS)
    except BaseException:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection, deadline: float) -> None:
    # two processes that switch a new file to WAL at once: SQLite answers "busy" without waiting
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if _code(error) not in _BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _code(error: sqlite3.Error) -> int | None:
    """The primary result code; None where the module itself raised."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
