"""Start and end real processes for measurements and tests: the service, its peers, and Redis."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

START_SECONDS = 280

# below those that Linux gives to connections, and to servers that leave the choice to it
PORTS: Final = range(20_000, 32_000)
BLOCK: Final = 200


class DidNotStart(RuntimeError):
    """A server ended or stayed silent; the text ends with what it logged."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server in a process group of its own, with a client for it."""

    process: subprocess.Popen[bytes]
    client: httpx.Client

    @property
    def url(self) -> str:
        """Where it listens."""
        return str(self.client.base_url).rstrip("/")

    def kill(self) -> None:
        """End it as a power cut would: no signal handler runs."""
        self._signal(signal.SIGKILL)
        self.process.wait()

    def pause(self) -> None:
        """Stop all its threads, so that another side is measured alone."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Return once it is true. Raises TimeoutError if that takes longer than `seconds`."""
    start = time.monotonic()
    while not true():
        if time.monotonic() > start + seconds:
            raise TimeoutError("it did not happen")
        time.sleep(_pause(start))


def _pause(start: float) -> float:
    """Seconds until another look: what takes long is not held up by who looks at it."""
    return min(0.02 + (time.monotonic() - start) / 20, 0.25)


def _own_ports() -> Iterator[int]:
    """Ports of this process, again and again: each block is held by a name, which ends with it."""
    for first in range(PORTS.start, PORTS.stop, BLOCK):
        with socket.socket(socket.AF_UNIX) as name, contextlib.suppress(OSError):
            name.bind(f"\0openvocab-ports-{first}")
            while True:
                yield from range(first, first + BLOCK)
    raise RuntimeError(f"other processes hold all ports from {PORTS.start} to {PORTS.stop}")


_ports = _own_ports()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on; no other process gets it here, or by binding 0.

    So it is still free when a server that takes seconds to start binds it, or binds it once more.
    """
    for port in _ports:
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("it never ends. This is a bug.")


@contextlib.contextmanager
def serving(
    command: Sequence[str],
    port: int,
    log: Path,
    env: Mapping[str, str],
    ready: str = "/readyz",
    start_seconds: float = START_SECONDS,
) -> Iterator[Server]:
    """Run a server's command until `ready` answers; ended, with its children, on leaving.

    Raises DidNotStart.
    """
    with log.open("ab") as out:
        process = subprocess.Popen(
            list(command), env=dict(env), stdout=out, stderr=out, start_new_session=True
        )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
        server = Server(process, client)
        try:
            _wait_for(server, ready, log, start_seconds)
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def openvocab(
    store_url: str, data_dir: Path, *arguments: str, **settings: object
) -> Iterator[Server]:
    """Serve pictogram on a free port; settings as in OPENVOCAB_*, in lower case."""
    port = free_port()
    env = {
        **os.environ,
        "OPENVOCAB_STORE_URL": store_url,
        "OPENVOCAB_DATA_DIR": str(data_dir),
        "OPENVOCAB_LOG_LEVEL": "warning",
        **{f"OPENVOCAB_{name.upper()}": str(value) for name, value in settings.items()},
    }
    model = str(settings.get("model", "pictogram"))
    command = [sys.executable, "-c", "from app.__main__ import app; app()", "serve"]
    command += ["--model", model, "--port", str(port), *arguments]
    with serving(command, port, data_dir / "server.log", env) as server:
        yield server


@contextlib.contextmanager
def redis_server(folder: Path, port: int = 0) -> Iterator[str]:
    """A Redis server with an append-only file in `folder`; yields its URL."""
    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError("redis-server is missing (on Debian: apt-get install redis-server)")
    port = port or free_port()
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    command += ["--save", "", "--appendonly", "yes", "--logfile", str(folder / "redis.log")]
    process = subprocess.Popen(command)
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


def _wait_for(server: Server, ready: str, log: Path, seconds: float) -> None:
    start = time.monotonic()
    while True:
        try:
            server.client.get(ready).raise_for_status()
        except httpx.HTTPError:
            if server.process.poll() is not None or time.monotonic() > start + seconds:
                log_text = log.read_text(errors="replace")
                raise DidNotStart(f"the server did not start:\n{log_text}") from None
            time.sleep(_pause(start))
        else:
            return
