"""Several worker processes on one socket: they agree, they are replaced, and they end together."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from app.settings import Settings
from app.workers import STEADY, Supervisor, _Worker
from benchmarks.servers import Server, openvocab


def workers_of(server: Server) -> list[int]:
    """Process ids of the workers, which are the children that load torch."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    return [
        int(pid)
        for pid in children.split()
        if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def gone(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def wait_until(true: Callable[[], bool], seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def ask(server: Server, picture: Path, **fields: str) -> httpx.Response:
    """Classify on a connection of its own: any worker may answer."""
    files = {"image": picture.read_bytes()}
    return httpx.post(f"{server.url}/classify", files=files, data=fields, timeout=60)


def announced(folder: Path) -> bool:
    return "with 2 workers" in (folder / "server.log").read_text()


def test_a_change_in_one_worker_is_seen_by_the_next_request_in_any(
    samples: dict[str, Path], tmp_path: Path
) -> None:
    with openvocab("", tmp_path, "--workers", "2") as server:
        wait_until(lambda: announced(tmp_path))
        for labels in (["cat", "dog"], ["rocket", "key"]):
            put = httpx.put(
                f"{server.url}/labelsets/shared",
                json={"labels": labels},
                params={"wait": True},
                timeout=60,
            )
            answers = []
            for worker in workers_of(server):
                os.kill(worker, signal.SIGSTOP)  # only the other one can answer
                try:
                    answers.append(ask(server, samples["cat"], labelset="shared").json())
                finally:
                    os.kill(worker, signal.SIGCONT)
            assert len(answers) == 2
            assert {a["labelset_version"] for a in answers} == {put.json()["version"]}
            assert {a["predictions"][0]["label"] for a in answers} <= set(labels)
            assert len({a["predictions"][0]["score"] for a in answers}) == 1


def test_a_worker_that_dies_is_replaced_and_all_end_on_one_signal(
    samples: dict[str, Path], tmp_path: Path
) -> None:
    with openvocab("", tmp_path, "--workers", "2") as server:
        wait_until(lambda: announced(tmp_path))
        before = workers_of(server)
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        # the other one goes on
        assert ask(server, samples["cat"], labels="cat,dog").status_code == 200
        wait_until(lambda: len(workers_of(server)) == 2 and before[0] not in workers_of(server))
        after = workers_of(server)
        assert before[1] in after
        assert "ended with status -9" in (tmp_path / "server.log").read_text()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(40) == 0
        assert all(gone(pid) for pid in after)


def test_workers_end_when_the_one_that_watches_is_killed(tmp_path: Path) -> None:
    with openvocab("", tmp_path, "--workers", "2") as server:
        wait_until(lambda: announced(tmp_path))
        pids = workers_of(server)
        server.process.kill()
        wait_until(lambda: all(gone(pid) for pid in pids))


def test_one_that_dies_again_and_again_waits_longer_each_time() -> None:
    supervisor = Supervisor(Settings(), socket.socket(), 1)
    worker = _Worker(0, SimpleNamespace(exitcode=-9))  # type: ignore[arg-type]
    pauses = []
    for _ in range(5):
        worker.since, worker.again_at = time.monotonic(), None  # it had begun to serve
        before = time.monotonic()
        supervisor._due(worker)
        pauses.append(round(worker.again_at - before, 1))
    assert pauses == [0.1, 1.0, 5.0, 30.0, 30.0]
    worker.since, worker.again_at = time.monotonic() - 2 * STEADY, None
    supervisor._due(worker)
    assert worker.again_at < time.monotonic() + 1
    supervisor.listener.close()


@pytest.mark.parametrize(
    ("store", "model", "status", "said"),
    [
        ("memory://", "pictogram", 2, "cannot be shared by several workers"),
        ("", "local-dir:/nowhere", 3, "no such folder"),
    ],
)
def test_what_cannot_work_ends_the_start(
    store: str, model: str, status: int, said: str, tmp_path: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from app.cli import app; app()", "serve", "--workers", "2",
         "--port", "0", "--model", model],
        env={**os.environ, "OPENVOCAB_STORE_URL": store, "OPENVOCAB_DATA_DIR": str(tmp_path)},
        stderr=subprocess.PIPE, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == status
    assert said in ended.stderr.decode()
    assert "Traceback" not in ended.stderr.decode()
