"""A Redis server behind a proxy, and everything that can go wrong with it."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from redis import Redis

from benchmarks.reliability.faults.proxy import Proxy
from benchmarks.servers import free_port, redis_server, wait_until

NONSENSE = b"HTTP/1.1 400 Bad Request\r\n\r\n$99999999\r\n*3\r\n:x\r\n"
FILLERS, FILLER_BYTES = 2_000, 1_000
SYNC_SECONDS = 120.0


class Rig:
    """A Redis server that may be treated badly; `url` leads through the proxy."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._running = contextlib.ExitStack()
        self.start()
        self.proxy = Proxy(self._port)
        self.url = f"redis://127.0.0.1:{self.proxy.port}/0"

    def start(self) -> None:
        """Start the server, on what it has written so far."""
        self._running.enter_context(redis_server(self._folder, self._port))

    def kill(self) -> None:
        """End the server as a power cut would."""
        self._running.close()

    def close(self) -> None:
        """End everything."""
        self.proxy.close()
        self.kill()

    @contextlib.contextmanager
    def direct(self, port: int = 0) -> Iterator[Any]:
        """A client that does not go through the proxy."""
        with Redis(host="127.0.0.1", port=port or self._port) as client:
            yield client

    @contextlib.contextmanager
    def second(self) -> Iterator[int]:
        """The port of a server that has taken over from this one, with all it had."""
        folder = self._folder / "second"
        folder.mkdir(exist_ok=True)
        port = free_port()
        with redis_server(folder, port), self.direct(port) as second, self.direct() as first:
            for client in (first, second):
                client.config_set("repl-diskless-sync-delay", 0)
            second.replicaof("127.0.0.1", self._port)
            _wait_for_sync(second)
            second.replicaof("NO", "ONE")
            yield port


@contextlib.contextmanager
def killed(rig: Rig) -> Iterator[None]:
    """The process is gone, then started again on its append-only file."""
    rig.kill()
    try:
        yield
    finally:
        rig.start()


@contextlib.contextmanager
def paused(rig: Rig) -> Iterator[None]:
    """The process stands still; its connections stay open."""
    with rig.direct() as direct:
        pid = direct.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def refused(rig: Rig) -> Iterator[None]:
    """Nobody listens at the address."""
    with rig.proxy.outage():
        yield


@contextlib.contextmanager
def slow(rig: Rig) -> Iterator[None]:
    """Every answer takes longer than the store timeout."""
    rig.proxy.delay = 3.0
    try:
        yield
    finally:
        rig.proxy.delay = 0.0


@contextlib.contextmanager
def sluggish(rig: Rig) -> Iterator[None]:
    """Every answer takes so long that a new connection just fits into the store timeout."""
    rig.proxy.delay = 0.1
    try:
        yield
    finally:
        rig.proxy.delay = 0.0


@contextlib.contextmanager
def nonsense(rig: Rig) -> Iterator[None]:
    """Something answers, and not as Redis does."""
    rig.proxy.nonsense = NONSENSE
    try:
        yield
    finally:
        rig.proxy.nonsense = None
        rig.proxy.cut()


@contextlib.contextmanager
def locked(rig: Rig) -> Iterator[None]:
    """The password has changed, and every connection has to be made anew."""
    with rig.direct() as direct:
        direct.config_set("requirepass", "another")
        direct.client_kill_filter(_type="normal", skipme=True)
        try:
            yield
        finally:
            direct.config_set("requirepass", "")


@contextlib.contextmanager
def full(rig: Rig) -> Iterator[None]:
    """Memory is full and nothing may be evicted: every write is refused."""
    with rig.direct() as direct:
        direct.config_set("maxmemory", "100kb")
        try:
            yield
        finally:
            direct.config_set("maxmemory", 0)


@contextlib.contextmanager
def replica(rig: Rig) -> Iterator[None]:
    """After a failover the server is a copy of another one, and read-only."""
    with rig.second() as port, rig.direct() as direct:
        direct.replicaof("127.0.0.1", port)
        try:
            _wait_for_sync(direct)
            yield
        finally:
            direct.replicaof("NO", "ONE")


@contextlib.contextmanager
def evicting(rig: Rig) -> Iterator[None]:
    """Memory is full, and what has an expiry goes."""
    with rig.direct() as direct:
        for number in range(FILLERS):
            direct.set(f"filler:{number}", b"x" * FILLER_BYTES, ex=3600)
        direct.config_set("maxmemory-policy", "volatile-lru")
        direct.config_set("maxmemory", direct.info("memory")["used_memory"] - 500_000)
        try:
            yield
        finally:
            direct.config_set("maxmemory", 0)
            direct.config_set("maxmemory-policy", "noeviction")
            direct.delete(*(f"filler:{number}" for number in range(FILLERS)))


@contextlib.contextmanager
def flushed(rig: Rig) -> Iterator[None]:
    """Everything is lost, scripts too."""
    with rig.direct() as direct:
        direct.flushall()
        direct.script_flush()
    yield


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong, and what the store can still do then."""

    happening: Callable[[Rig], AbstractContextManager[None]]
    leaves: Literal["nothing", "reads", "everything"]


FAULTS: dict[str, Fault] = {
    "killed": Fault(killed, "nothing"),
    "paused": Fault(paused, "nothing"),
    "refused": Fault(refused, "nothing"),
    "slow": Fault(slow, "nothing"),
    "nonsense": Fault(nonsense, "nothing"),
    "wrong password": Fault(locked, "nothing"),
    "full": Fault(full, "reads"),
    "read-only replica": Fault(replica, "reads"),
    "sluggish": Fault(sluggish, "everything"),
    "evicting": Fault(evicting, "everything"),
    "flushed": Fault(flushed, "everything"),
}


def _wait_for_sync(direct: Any) -> None:
    def synced() -> bool:
        return bool(direct.info("replication").get("master_link_status") == "up")

    wait_until(synced, SYNC_SECONDS)
