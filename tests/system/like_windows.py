"""Runs commands and a server to whose code this system looks like Windows; prints what they did.

Only our own code is deceived: what others wrote runs on Windows as it is.
"""

import builtins
import contextlib
import ctypes
import errno
import fcntl
import importlib
import json
import multiprocessing.reduction
import os
import pkgutil
import platform
import select
import signal
import socket
import struct
import sys
import threading
import types
from pathlib import Path
from typing import Any

import httpx
from typer.testing import CliRunner

MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty", "uvloop"}
NAMES = {
    "os": "EX_IOERR O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK chown fork getegid geteuid getgid "
    "getpgid getuid killpg memfd_create mkfifo nice posix_fadvise pread pwrite register_at_fork "
    "sched_getaffinity sendfile setsid statvfs sync sysconf uname",
    "signal": "ITIMER_REAL SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGSTOP SIGUSR1 SIGUSR2 "
    "SIG_BLOCK SIG_SETMASK SIG_UNBLOCK pthread_sigmask setitimer sigwait",
    "socket": "AF_UNIX SO_REUSEPORT",
    "select": "epoll poll",
    "multiprocessing.reduction": "DupFd",
}


def no_folder(path: Any, *arguments: Any) -> int:
    if Path(path).is_dir():
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return os.open(path, *arguments)


def are_open() -> set[str]:
    """Files that this process has open or mapped."""
    opened = set()
    for file in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            opened.add(str(file.readlink()))
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return opened | {line.split(maxsplit=5)[5] for line in mapped if "/" in line}


def keep_what_is_open(name: str) -> None:
    """Have a function that deletes or moves refuse files that are open."""
    real = getattr(os, name)

    def careful(*paths: Any, dir_fd: int | None = None, **options: Any) -> Any:
        if dir_fd is None:
            held = are_open()
            for path in paths:
                if str(Path(path).resolve()) in held:
                    raise PermissionError(errno.EACCES, "it is open", str(path))
            return real(*paths, **options)
        path = Path(f"/proc/self/fd/{dir_fd}").readlink() / paths[0]
        return careful(path)

    setattr(os, name, careful)


def fsync_of_writers(file: int) -> None:
    if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    os.fsync(file)


def named_library(name: str | None, **options: Any) -> ctypes.CDLL:
    if name is None:
        raise TypeError("argument of type 'NoneType' is not iterable")
    return ctypes.CDLL(name, **options)


def locking(file: int, how: int, size: int) -> None:
    lock = struct.pack("hhqqi", how, os.SEEK_CUR, 0, size, 0)
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)  # another opening of a file is another's
    except BlockingIOError as error:
        raise PermissionError(errno.EACCES, error.strerror) from None


OTHERS: dict[str, dict[str, Any]] = {
    "os": {"name": "nt", "open": no_folder, "fsync": fsync_of_writers},
    "ctypes": {"CDLL": named_library},
    "platform": {"system": lambda: "Windows"},
    "msvcrt": {"LK_NBLCK": fcntl.F_WRLCK, "LK_UNLCK": fcntl.F_UNLCK, "locking": locking},
}


def like_windows(module: types.ModuleType) -> types.ModuleType:
    name = module.__name__
    copy = types.ModuleType(name)
    lacking = NAMES.get(name, "").split()
    copy.__dict__.update({key: its for key, its in vars(module).items() if key not in lacking})
    copy.__dict__.update(OTHERS.get(name, {}))
    return copy


def deceive() -> None:
    for name in ("remove", "unlink", "rename", "replace"):
        keep_what_is_open(name)
    real = builtins.__import__
    there = os, signal, socket, select, ctypes, platform, multiprocessing.reduction
    copies = {each.__name__: like_windows(each) for each in (*there, types.ModuleType("msvcrt"))}

    def deceiving(name: str, importer: Any = None, *arguments: Any, **options: Any) -> Any:
        if (importer or {}).get("__name__", "").partition(".")[0] in ("app", "models", "prompts"):
            if name in MODULES:
                raise ModuleNotFoundError(name)
            if name in copies:
                return copies[name]
        return real(name, importer, *arguments, **options)

    builtins.__import__ = deceiving
    sys.modules["uvloop"] = None  # type: ignore[assignment]  # asked for by uvicorn


def two_of_one_file(path: Path) -> list[str]:
    from models.open_files import lock, unlock

    happened = []
    with path.open("w+b") as one, path.open("r+b") as other:
        one.write(b"1234")
        lock(one.fileno())
        try:
            lock(other.fileno(), wait=False)
        except BlockingIOError:
            happened.append("refused")
        unlock(one.fileno())
        lock(other.fileno(), wait=False)
        happened.append(f"had, {one.tell()} bytes on")
    return happened


def rows_kept(path: Path) -> int:
    import numpy as np

    from app.evaluation.picture_vectors import RowFile

    for digest in (b"1" * 32, b"2" * 32):
        rows = RowFile(path, 4)
        rows.put(digest, np.arange(4, dtype=np.float32))
        rows.close()
    return len(RowFile(path, 4))


def ask(url: str, picture: Path, answers: dict[str, Any]) -> None:
    transport = httpx.HTTPTransport(retries=9)
    try:
        with httpx.Client(base_url=url, transport=transport, timeout=60) as client:
            definition = {"labels": ["cat", "dog"]}
            answers["put"] = client.put("/labelsets/pets", json=definition).status_code
            for name, content in (("picture", picture.read_bytes()), ("drawing", b"<svg/>")):
                answers[name] = client.post(
                    "/classify",
                    files={"image": content},
                    data={"labelset": "pets"},
                    headers={"Connection": "close"},
                ).json()
    finally:
        signal.raise_signal(signal.SIGINT)


def main(folder: Path, picture: Path) -> None:
    deceive()
    from app.__main__ import app

    def run(*arguments: object, **env: str) -> str:
        result = CliRunner().invoke(app, [*map(str, arguments)], env=env)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return f"{result.output}{result.exit_code}"

    for package in ("app.cli", "app.evaluation"):
        for module in pkgutil.walk_packages(
            importlib.import_module(package).__path__, f"{package}."
        ):
            importlib.import_module(module.name)
    out = folder / "out.ndjson"
    answers: dict[str, Any] = {
        "classify": run(
            *("classify", picture, "--labels=cat,dog", "--model=pictogram"),
            *("-o", out, "--copy-to", folder / "sorted"),
        ),
        "out": json.loads(out.read_text(encoding="utf-8")),
        "locks": two_of_one_file(folder / "file"),
        "rows": rows_kept(folder / "rows"),
        "workers": run("serve", "--workers=2"),
        "uds": run("serve", "--uds", folder / "socket"),
        "redis": run("serve", OPENVOCAB_STORE_URL="unix:///run/redis.sock"),
        "svg": run("serve", OPENVOCAB_SVG="true"),
    }
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = threading.Thread(target=ask, args=(f"http://127.0.0.1:{port}", picture, answers))
    client.start()
    answers["serve"] = run("serve", "--model=pictogram", f"--port={port}")
    client.join()
    sys.stdout.write(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
