"""Restart the service repeatedly under load, with clients that retry: what is lost.

    python -m benchmarks.reliability.restarts

`rolling` replaces both workers of a server with SIGHUP; `stopping` ends a server of one process
with SIGTERM and starts it anew. A request counts as lost where no answer came within a minute.
Writes results/restarts.json.
"""

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Final

import httpx

from benchmarks.folders import RESULTS
from benchmarks.record import Result
from benchmarks.reliability import page
from benchmarks.servers import Server, free_port, serving, wait_until

PICTURE: Final = Path(__file__).parents[2] / "tests" / "samples" / "cat.png"
FIELDS: Final = {"labels": "cat,dog,rocket", "templates": "pictogram"}
CLIENTS: Final = 4
PAUSE_SECONDS: Final = 0.1
GIVE_UP_SECONDS: Final = 60.0

# what a machine that is busy with other things may need to load two models
RENEWED_SECONDS: Final = 300.0

# under load for so long after a start, before the next one
STEADY_SECONDS: Final = 0.5

TRIED: Final = ("sent", "answered first time", "retried", "lost", "wrong")


class Clients:
    """Ask all the time, and again where the connection ended or the answer was 503."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(CLIENTS)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ask no more, once what was asked is answered or lost."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        dice, picture = random.Random(number), PICTURE.read_bytes()
        with httpx.Client(base_url=self._url, timeout=GIVE_UP_SECONDS) as client:
            while not self._stop.wait(dice.uniform(0, 2 * PAUSE_SECONDS)):
                self._ask(client, picture)

    def _ask(self, client: httpx.Client, picture: bytes) -> None:
        failures: list[str] = []
        outcome, end = "lost", time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < end:
            try:
                answer = client.post("/classify", files={"image": picture}, data=FIELDS)
            except httpx.TransportError as error:
                failures.append(type(error).__name__)
            else:
                if answer.status_code == httpx.codes.OK:
                    right = answer.json()["predictions"][0]["label"] == "cat"
                    outcome = (
                        ("retried" if failures else "answered first time") if right else "wrong"
                    )
                    break
                failures.append(str(answer.status_code))
            time.sleep(PAUSE_SECONDS)
        with self._lock:
            self.counts.update(["sent", outcome])
            self.reasons.update(failures[:1])


def workers_of(server: Server) -> list[int]:
    """Process ids of a server's workers."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    workers = []
    for pid in children.split():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                workers.append(int(pid))
    return workers


def rolling(count: int, folder: Path) -> tuple[Clients, Counter[int]]:
    """Both workers, one after the other, `count` times; the last exit status."""
    log = folder / "server.log"
    with _serving(folder, free_port(), "--workers", "2") as server:
        wait_until(lambda: "with 2 workers" in log.read_text(), RENEWED_SECONDS)
        with Clients(server.url) as clients:
            for _ in range(count):
                before = set(workers_of(server))
                time.sleep(STEADY_SECONDS)
                server.process.send_signal(signal.SIGHUP)
                wait_until(partial(_all_new, server, before), RENEWED_SECONDS)
        server.process.send_signal(signal.SIGTERM)
        return clients, Counter([server.process.wait(GIVE_UP_SECONDS)])


def stopping(count: int, folder: Path) -> tuple[Clients, Counter[int]]:
    """Stop and start on one port, `count` times; the exit statuses."""
    port, statuses = free_port(), Counter[int]()
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(contextlib.ExitStack())
        server = running.enter_context(_serving(folder, port))
        clients = stack.enter_context(Clients(server.url))
        for _ in range(count):
            time.sleep(STEADY_SECONDS)
            server.process.send_signal(signal.SIGTERM)
            statuses[server.process.wait(GIVE_UP_SECONDS)] += 1
            running.close()
            server = running.enter_context(_serving(folder, port))
        clients.stop()  # while there is somebody to answer the last ones
    return clients, statuses


def _serving(folder: Path, port: int, *arguments: str) -> AbstractContextManager[Server]:
    command = [sys.executable, "-c", "from app.__main__ import app; app()", "serve"]
    command += ["--model", "pictogram", "--port", str(port), *arguments]
    env = {**os.environ, "OPENVOCAB_DATA_DIR": str(folder), "OPENVOCAB_LOG_LEVEL": "warning"}
    return serving(command, port, folder / "server.log", env)


def _all_new(server: Server, before: set[int]) -> bool:
    now = set(workers_of(server))
    return len(now) == len(before) and not now & before


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=50, help="restarts of each kind")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    start, rows, notes, lost = time.monotonic(), [], [], 0
    for name, about, restart in (
        ("rolling", "SIGHUP, 2 workers", rolling),
        ("stopping", "SIGTERM and a new start, 1 process", stopping),
    ):
        with tempfile.TemporaryDirectory() as folder:
            clients, statuses = restart(options.count, Path(folder))
        counts = [clients.counts[key] for key in TRIED]
        rows.append([about, options.count, *counts, ", ".join(map(str, sorted(statuses)))])
        why = ", ".join(f"{n} {reason}" for reason, n in clients.reasons.most_common())
        notes.append(f"{about}: first errors of the retried requests: {why or 'none'}.")
        lost += clients.counts["lost"] + clients.counts["wrong"]
        print(name, dict(clients.counts), dict(statuses), flush=True)
    result = Result(
        f"Restarts under load, {CLIENTS} clients that retry",
        ["restart", "times", *TRIED, "exit status"],
        rows, notes, {"lost": lost},
    )  # fmt: skip
    subject = "requests lost by restarts under load, with clients that retry"
    page.write("restarts", subject, [result], time.monotonic() - start, options.results)


if __name__ == "__main__":
    main()
