"""The file behind SQLite connections: whether it is still the one that they opened.

Knows no SQL. SQLite goes on writing to a file that was deleted, moved or overwritten, and whatever
it acknowledges then is lost with the process.
"""

import fcntl
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

from app.stores.protocols import StoreAway

log = logging.getLogger("openvocab.stores")

Identity = tuple[int, int]

_MAGIC: Final = b"SQLite format 3\0"


class User(Protocol):
    """Whoever has a connection: `busy` is held while it is used or opened."""

    busy: threading.Lock

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""

    def drop(self) -> None:
        """Close the connection, if there is one."""


class DatabaseFile:
    """One path and the connections of this process to what lies there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._index = path.with_name(f"{path.name}-shm")
        self._users: list[User] = []
        self._opening = threading.Lock()
        self._handle: int | None = None
        self._seen: dict[Path, Identity | None] = {}
        self._damaged = False

    def add(self, user: User) -> None:
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
                    self.path.touch()

    def opened(self) -> None:
        """Remember which file it is; called once a connection stands."""
        with self._opening:
            if self._handle is None:
                # kept open: closing it would let go of the locks that SQLite has on the file
                self._handle = os.open(self.path, os.O_RDONLY)
            for path in (self.path, self._log, self._index):
                self._seen[path] = self._seen.get(path) or _identity(path)

    def moved(self) -> bool:
        """Whether another file lies at the path than the one that is open, or none."""
        if self._handle is None:
            return False
        same_log = self._seen[self._log] is None or self._is_as_seen(self._log)
        return not (same_log and self._is_as_seen(self.path))

    def check(self) -> None:
        """Nothing unless the file was overwritten in place; then StoreAway until it has moved."""
        if self._handle is not None and not self._damaged:
            self._damaged = os.pread(self._handle, len(_MAGIC), 0) != _MAGIC
        if self._damaged:
            raise StoreAway(
                f"{self.path} was overwritten and is no database any more: move it away"
            )

    def renew(self, patience: float) -> None:
        """Let go of every connection to a file that has moved; the next opens what is there.

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
        """Let go of the file; called when no connection to it is left."""
        if self._handle is not None:
            os.close(self._handle)
        self._handle = None
        self._seen = {}
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
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            with suppress(OSError):  # not every file system has such locks
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def _identity(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
