"""One SQLite connection on one thread of its own, opened again after a failure.

Knows nothing of what is stored.
"""

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from app.stores.protocols import StoreAway, StoreDamaged, StoreRefused, StoreUnusable
from app.stores.sqlite import schema
from models.open_files import lock, read_at

log = logging.getLogger("openvocab.stores")

Identity = tuple[int, int]

_MAGIC: Final = b"SQLite format 3\0"


class DatabaseFile:
    """One path and the connections of this process to what lies there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._index = path.with_name(f"{path.name}-shm")
        self._users: list[Database] = []
        self._opening = threading.Lock()
        self._handle: int | None = None
        self._seen: dict[Path, Identity | None] = {}
        self._overwritten = False
        self._damaged = False

    def add(self, user: "Database") -> None:
        """One more that connects to this file."""
        self._users.append(user)

    def prepare(self) -> None:
        """Make the folder and the file where they are missing; called before each connection.

        What an older file of this name has left beside it would be taken for the new file's, also
        by processes that still have it open, and is put aside.
        """
        with self._opening:
            if self.path.exists():
                return
            with self._alone():
                if not self.path.exists():
                    self._put_aside(self._log, self._index)
                    # it holds people's pictures; SQLite gives its other files the same mode
                    self.path.touch(mode=0o600)

    def opened(self) -> None:
        """Remember which file it is; called once a connection is open."""
        with self._opening:
            if self._handle is None:
                # kept open: closing it would let go of the locks that SQLite has on the file
                self._handle = os.open(self.path, os.O_RDONLY)
            for path in (self.path, self._log, self._index):
                self._seen[path] = self._seen.get(path) or _identity(path)

    def moved(self) -> bool:
        """Whether the path has another file than the one that is open, or none."""
        if self._handle is None:
            return False
        same_log = self._seen[self._log] is None or self._is_as_seen(self._log)
        return not (same_log and self._is_as_seen(self.path))

    def check(self, *, writing: bool) -> None:
        """Nothing unless the file is damaged, which lasts until it has moved.

        Raises StoreAway where it was overwritten in place, StoreRefused for writes to a file of
        which a page is damaged: what SQLite can still read of it is read.
        """
        if self._handle is not None and not self._overwritten:
            self._overwritten = read_at(self._handle, len(_MAGIC), 0) != _MAGIC
        if self._overwritten:
            raise StoreAway(
                f"{self.path} was overwritten and is no longer a database: move it away"
            )
        if self._damaged and writing:
            raise StoreRefused(f"{self.path} is damaged, and nothing more is written to it")

    def damaged(self, error: sqlite3.Error) -> StoreDamaged:
        """Record that a page cannot be read; returns the error to raise."""
        if not self._damaged:
            log.error(
                "%s is damaged (%s); it is read where it can be, and not written any more: move "
                "it away, and what is known is written anew, or put a backup in its place",
                self.path, error,
            )  # fmt: skip
        self._damaged = True
        return StoreDamaged(f"{self.path}: {error}")

    def renew(self, patience: float) -> None:
        """Close every connection to a file that has moved; the next call opens the new one.

        All together: the index that connections share in memory is that of one file.

        Raises StoreAway where one of them is in use for longer than `patience` seconds.
        """
        with ExitStack() as held:
            for user in self._users:
                if not user.busy.acquire(timeout=patience):
                    raise StoreAway(f"{self.path} was moved, and is in use here")
                held.callback(user.busy.release)
            if not self.moved():
                return  # another was faster
            if any(user.connected for user in self._users):
                log.error("%s was deleted, moved or replaced; opening what is there", self.path)
            for user in self._users:
                user.drop()
            with self._alone():
                if not self._is_as_seen(self.path):
                    self._put_aside(*filter(self._is_as_seen, (self._log, self._index)))
            self.forget()

    def forget(self) -> None:
        """Forget the file; called when no connection to it is left."""
        if self._handle is not None:
            os.close(self._handle)
        self._handle = None
        self._seen = {}
        self._overwritten = False
        self._damaged = False

    def _is_as_seen(self, path: Path) -> bool:
        return _identity(path) == self._seen[path]

    def _put_aside(self, *paths: Path) -> None:
        for path in paths:
            with suppress(FileNotFoundError):
                if path == self._log:
                    # what was acknowledged last may be in it alone, should the file come back
                    path.replace(path.with_name(f"{path.name}.orphan"))
                else:
                    path.unlink()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Only one process at a time decides what is left over; the new file is made by it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folder
            yield
            return
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            with suppress(OSError):  # not every file system has such locks
                lock(folder)
            yield
        finally:
            os.close(folder)


def _identity(path: Path) -> Identity | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


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
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Database:
    """Runs functions of a connection, one after the other.

    `timeout` bounds the wait for other processes' writes, `patience` the same while opening, where
    another process may be creating or migrating the file. `busy` is held while the connection is
    used, opened or closed.
    """

    def __init__(
        self, file: DatabaseFile, timeout: float, patience: float, *, writes: bool
    ) -> None:
        self.busy = threading.Lock()
        self._file = file
        self._writes = writes
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
        """What the function returns; any error of SQLite becomes StoreAway."""
        try:
            return await self._submit(lambda: self._work(work))
        except StoreUnusable as error:
            raise StoreAway(str(error)) from error

    async def close(self) -> None:
        """Close the file and the thread; nothing can be run afterwards."""
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
        self._file.check(writing=self._writes)
        connection = self._connected()
        try:
            return work(connection)
        except sqlite3.Error as error:
            if _code(error) not in _BUSY:
                self.drop()
            if _code(error) in _DAMAGED:
                raise self._file.damaged(error) from error
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
                raise kind(f"{self._path}: {error}{_advice(error)}") from error
            except OSError as error:
                self.drop()
                text = f"{self._path}: its folder cannot be created or written: {error.strerror}"
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


def _advice(error: sqlite3.Error) -> str:
    """What to do about an error that no waiting heals; empty for others."""
    if _code(error) in _DAMAGED:
        return "; move it away, or put a backup in its place"
    if _code(error) in _HOPELESS:
        user = f"the user {os.geteuid()}" if hasattr(os, "geteuid") else "the user"
        return f"; {user} must be able to read and write the file and its folder"
    return ""


def _code(error: sqlite3.Error) -> int | None:
    """The primary result code; None where the module itself raised."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
