"""A real Redis with our configuration: what it keeps, what it lets go, what a kill costs."""

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.servers import free_port, wait_until

CONF = Path(__file__).parents[2] / "docker" / "redis.conf"
DEFINITION = ("label set", "pets")
VECTORS = 8_000


def ask(port: int, *command: str, lines: str | None = None) -> str:
    return subprocess.run(
        ["redis-cli", "-p", str(port), *command],
        input=lines, capture_output=True, text=True, timeout=240, check=True,
    ).stdout.strip()  # fmt: skip


@contextlib.contextmanager
def redis(folder: Path, *options: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    port = free_port()
    # only what a container brings is different: address, port and folder
    text = CONF.read_text(encoding="utf-8")
    assert "\ndir /data\n" in text
    conf = folder / "redis.conf"
    conf.write_text(text.replace("\ndir /data\n", f"\ndir {folder}\n"), encoding="utf-8")
    place = ["--bind", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(
        ["redis-server", str(conf), *place, *options], stdout=subprocess.DEVNULL
    ) as server:

        def answers() -> bool:
            assert server.poll() is None, "redis-server does not take the file"
            with contextlib.suppress(subprocess.CalledProcessError):
                return ask(port, "PING") == "PONG"
            return False

        try:
            wait_until(answers, 240)
            yield port, server
        finally:
            server.kill()


def test_the_real_server_takes_every_line_and_means_the_same(tmp_path: Path) -> None:
    expected = {
        "maxmemory": str(512 * 2**20),
        "maxmemory-policy": "volatile-lru",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "protected-mode": "no",
    }
    with redis(tmp_path) as (port, _):
        for name, value in expected.items():
            assert ask(port, "CONFIG", "GET", name).splitlines()[1:] == ([value] if value else [])


def test_full_memory_costs_vectors_and_never_a_definition(tmp_path: Path) -> None:
    vector = "x" * 1000
    with redis(tmp_path, "--maxmemory", "5mb") as (port, _):
        assert ask(port, "SET", *DEFINITION) == "OK"
        lines = "".join(f"SET vector:{i} {vector} EX 600\n" for i in range(VECTORS))
        assert set(ask(port, lines=lines).splitlines()) == {"OK"}
        assert 1 < int(ask(port, "DBSIZE")) < VECTORS
        assert ask(port, "GET", DEFINITION[0]) == DEFINITION[1]


def test_definitions_that_fill_the_memory_are_refused_and_none_is_lost(tmp_path: Path) -> None:
    with redis(tmp_path, "--maxmemory", "5mb") as (port, _):
        lines = "".join(f"SET definition:{i} {'x' * 1000}\n" for i in range(VECTORS))
        answers = ask(port, lines=lines).split("\n")
        stored = answers.count("OK")
        assert any(line.startswith("OOM") for line in answers)
        assert int(ask(port, "DBSIZE")) == stored


def test_a_killed_server_loses_nothing_once_the_disk_is_not_busy(tmp_path: Path) -> None:
    with redis(tmp_path) as (port, server):
        lines = "".join(f"SET definition:{i} {i}\n" for i in range(500))
        assert ask(port, lines=lines).split() == ["OK"] * 500
        # while a sync lasts, everysec holds back what comes meanwhile
        wait_until(lambda: "aof_buffer_length:0" in ask(port, "INFO", "persistence").split(), 240)
        server.send_signal(signal.SIGKILL)
        server.wait()
    with redis(tmp_path) as (port, _):
        assert int(ask(port, "DBSIZE")) == 500
