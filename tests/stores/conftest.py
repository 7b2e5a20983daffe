"""A real Redis server, and stores of every kind."""

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from app.stores.memory import MemoryStore
from app.stores.protocols import Store
from app.stores.redis.store import RedisStore
from app.stores.sqlite.store import SqliteStore
from benchmarks.servers import free_port

# long enough for a busy machine; tests of time-outs choose their own
PATIENT = 10.0


class RedisServer:
    """A redis-server process on a free port, with an append-only file in a folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        program = shutil.which("redis-server")
        if program is None:
            pytest.fail("these tests need redis-server (on Debian: apt-get install redis-server)")
        self._command = [program, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]
        self._command += ["--dir", str(folder), *options]
        self._log = folder / "redis.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self._log.open("ab") as log:
            command = [*self._command, "--port", str(self.port)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + 60
        while self._process.poll() is None and time.monotonic() < end:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as link:
                    link.sendall(b"PING\r\n")
                    if link.recv(100).startswith((b"+PONG", b"-NOAUTH")):
                        return
            except OSError:
                pass
            time.sleep(0.02)
        self.kill()
        pytest.fail(f"redis-server did not start:\n{self._log.read_text()}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)


StartRedis = Callable[..., RedisServer]


class MakeStore(Protocol):
    """Makes stores that see the same data, with these bounds on vectors."""

    def __call__(self, vector_ttl: float = 3600, vector_bytes: int = 1 << 30) -> Store: ...


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One for all tests that leave it as it is."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[StartRedis]:
    """Starts servers that a test may treat badly."""
    servers: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        server = RedisServer(tmp_path, *options)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.kill()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    """Stores of each kind; two of them share their data, except in memory."""
    if request.param == "memory":
        return lambda vector_ttl=3600, vector_bytes=1 << 30: MemoryStore(vector_ttl, vector_bytes)
    if request.param == "sqlite":
        path = tmp_path / "new" / "folder" / "store.sqlite3"
        return lambda vector_ttl=3600, vector_bytes=1 << 30: SqliteStore(
            path, PATIENT, vector_ttl, vector_bytes
        )
    server: RedisServer = request.getfixturevalue("redis_server")
    prefix = f"test:{secrets.token_hex(8)}:"
    return lambda vector_ttl=3600, vector_bytes=0: RedisStore(
        server.url, PATIENT, vector_ttl, prefix
    )


Test = Callable[[Store], Awaitable[None]]


@pytest.fixture
def with_store() -> Callable[[Store, Test], None]:
    """Runs a test in an event loop with the store open, and closes it."""

    def run(store: Store, test: Test) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(240):
                await store.open()
                try:
                    await test(store)
                finally:
                    await store.close()

        asyncio.run(bounded())

    return run
