"""The listening socket. Knows nothing of requests or models."""

import atexit
import contextlib
import ipaddress
import os
import socket
import stat
from pathlib import Path
from typing import Final

BACKLOG: Final = 2048

# of each Unix socket: the process that bound it, its file, and which file that was
_files: Final[list[tuple[int, Path, tuple[int, int]]]] = []


class CannotListen(Exception):
    """The address is not available; one line for the user."""


def bind(host: str, port: int) -> socket.socket:
    """Bind the port early: a wrong one should not cost the wait for a model. Raises CannotListen.

    Binding alone reserves nothing: a second server could do the same, so it listens too.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with contextlib.ExitStack() as undo:
            listener = undo.enter_context(socket.socket(family))  # not every kernel has IPv6
            if os.name != "nt":  # there two servers could have one port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(BACKLOG)
            undo.pop_all()
    except (OSError, UnicodeError) as error:  # the latter: it can be no name of a host
        reason = (isinstance(error, OSError) and error.strerror) or error
        shown_host = f"[{host}]" if family == socket.AF_INET6 else host
        raise CannotListen(f"cannot listen on {shown_host}:{port}: {reason}") from None
    listener.set_inheritable(True)
    return listener


def bind_unix(path: Path) -> socket.socket:
    """Bind a Unix socket; a stale one is replaced. Raises CannotListen.

    Every user may connect, as to a port of this machine; who may not is kept out by its folder.
    Its file is removed when this process ends.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise CannotListen(f"cannot listen on {path}: this system lacks Unix sockets")
    listener = socket.socket(socket.AF_UNIX)
    try:
        _remove_left_over(path)
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise CannotListen(f"cannot listen on {path}: {error.strerror or error}") from None
    _files.append((os.getpid(), path.absolute(), _identity(path)))
    atexit.register(remove_files)
    listener.set_inheritable(True)
    return listener


def shown(listener: socket.socket, *, tls: bool) -> str:
    """Its address for clients, as a URL or a path."""
    name = listener.getsockname()
    if _is_unix(listener):
        return str(name)
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{'https' if tls else 'http'}://{host}:{name[1]}"


def is_local(listener: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    if _is_unix(listener):
        return True
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def _is_unix(listener: socket.socket) -> bool:
    return listener.family not in (socket.AF_INET, socket.AF_INET6)


def _remove_left_over(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(0, "a file that is not a socket has this name; it was left alone")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)  # a busy server would let us wait
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
            except BlockingIOError:
                pass  # somebody listens, and is busy


def remove_files() -> None:
    """Remove the files of Unix sockets that this process has bound."""
    for process, path, identity in _files:
        if process == os.getpid():
            _remove(path, identity)


def _identity(path: Path) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _remove(path: Path, ours: tuple[int, int]) -> None:
    """Remove the file of a socket, unless it is another server's by now."""
    with contextlib.suppress(OSError):
        if _identity(path) == ours:
            path.unlink()
