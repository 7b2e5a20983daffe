"""Start and end real processes for measurements and tests: the service, and Redis."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

START_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Server:
    """A running `openvocab serve`, with a client for it."""

    process: subprocess.Popen[bytes]
    client: httpx.Client

    def kill(self) -> None:
        """End it as a power cut would: no signal handler runs."""
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def openvocab(store_url: str, data_dir: Path, **settings: object) -> Iterator[Server]:
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
    command = [sys.executable, "-c", "from app.cli import app; app()", "serve"]
    with (data_dir / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--model", model, "--port", str(port)], env=env, stdout=log, stderr=log
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            _wait_for(client, process, data_dir / "server.log")
            yield Server(process, client)
    finally:
        process.kill()
        process.wait()


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


def _wait_for(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            client.get("/readyz").raise_for_status()
        except httpx.HTTPError:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the server did not start:\n{log.read_text()}") from None
            time.sleep(0.02)
        else:
            return
