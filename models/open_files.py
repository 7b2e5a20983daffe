"""Locks on open files, and reads at a place, on every system. Knows nothing of what files hold.

A lock holds among processes, until it is given back, the file is closed or the process ends.
"""

try:
    import fcntl
    from os import pread as read_at
except ImportError:  # Windows
    import os
    import threading
    import time
    from msvcrt import LK_NBLCK, LK_UNLCK, locking  # type: ignore[attr-defined]

    # a lock is on bytes, which nobody else can read meanwhile: one that files hardly ever reach
    _LOCKED = 2**31 - 2
    _seeking = threading.Lock()

    def lock(file: int, *, wait: bool = True) -> None:
        while True:
            try:
                _change(file, LK_NBLCK)
            except PermissionError as error:
                if not wait:
                    raise BlockingIOError(*error.args) from None
                time.sleep(0.05)
            else:
                return

    def unlock(file: int) -> None:
        _change(file, LK_UNLCK)

    def read_at(file: int, size: int, place: int, /) -> bytes:
        with _seeking:
            os.lseek(file, place, os.SEEK_SET)
            return os.read(file, size)

    def _change(file: int, how: int) -> None:
        with _seeking:
            before = os.lseek(file, 0, os.SEEK_CUR)
            os.lseek(file, _LOCKED, os.SEEK_SET)
            try:
                locking(file, how, 1)
            finally:
                os.lseek(file, before, os.SEEK_SET)

else:

    def lock(file: int, *, wait: bool = True) -> None:
        """Nobody else has it then. Raises BlockingIOError where somebody has, without `wait`;
        OSError where the file system has no locks."""
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)

    def unlock(file: int) -> None:
        """Others may have it."""
        fcntl.flock(file, fcntl.LOCK_UN)


__all__ = ["lock", "read_at", "unlock"]
