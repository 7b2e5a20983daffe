"""Several worker processes on one socket: they agree, they are replaced, and they end together."""

import contextlib
import errno
import multiprocessing
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from app.server import workers
from app.server.certificates import valid_until
from app.server.exit_status import HUNG, START_ERROR
from app.server.main import create_app
from app.server.settings import Settings
from app.server.workers import STEADY, Supervisor, WorkerProcess, _Worker
from app.telemetry.metrics import Metrics
from benchmarks import servers
from benchmarks.reliability.misbehaving import Fault, Faults, misbehaving
from benchmarks.reliability.restarts import workers_of
from benchmarks.scraping import Scraped, scrape
from benchmarks.servers import Server, openvocab
from benchmarks.usage import resident_mb
from models.catalog import catalog

GRACE_SECONDS = 120
# longer than a worker ever waits for a core on a busy machine
HANG_SECONDS = 10
COUNTED = "openvocab_requests_total"
RENEWALS = "openvocab_worker_renewals_total"
WEIGHTS = "open_clip_model.safetensors"


wait_until = partial(servers.wait_until, seconds=400)


class Live:
    """One server with two workers for all tests here; started anew if a test ended it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = folder / "model"
        shutil.copytree(catalog()["pictogram"].loader.removeprefix("local-dir:"), self.model)
        self._stack = contextlib.ExitStack()
        self._found: tuple[Server, Faults] | None = None

    def server(self) -> Server:
        """It, with two workers that serve."""
        if self._found is None or self._found[0].process.poll() is not None:
            self.close()
            log_before = self.log
            self._found = self._stack.enter_context(
                misbehaving(
                    self.folder, "--workers", "2", hang_timeout=HANG_SECONDS, store_url="",
                    model=f"local-dir:{self.model}", precision="fp32", torch_threads=1,
                )
            )  # fmt: skip
            wait_until(lambda: "2 workers)" in self.log[len(log_before) :])
        wait_until(lambda: len(workers_of(self._found[0])) == 2)
        return self._found[0]

    @property
    def faults(self) -> Faults:
        return Faults(self.folder / "misbehaviour.json")

    @property
    def log(self) -> str:
        path = self.folder / "server.log"
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module")
def live(module_data_dir: Path) -> Iterator[Live]:
    live = Live(module_data_dir)
    yield live
    live.close()


@pytest.fixture
def server(live: Live) -> Server:
    return live.server()


class Callers:
    """Clients that ask all the time, and again where they got no answer."""

    def __init__(self, server: Server, picture: Path) -> None:
        self._server = server
        self._picture = picture
        self._stop = threading.Event()
        self.statuses: list[int] = []
        self.again = 0
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            try:
                response = ask(self._server, self._picture, labels="cat,dog", templates="pictogram")
            except httpx.TransportError:
                self.again += 1
            else:
                self.statuses.append(response.status_code)


def has_ended(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def ask(server: Server, picture: Path, **fields: str) -> httpx.Response:
    """Classify on a connection of its own: any worker may answer."""
    files = {"image": picture.read_bytes()}
    return httpx.post(f"{server.url}/classify", files=files, data=fields, timeout=60)


def test_workers_share_what_was_imported_and_loaded_before_they_were_forked(server: Server) -> None:
    watching = server.process.pid
    shared = re.search(
        r"Shared_Dirty: +(\d+) kB", Path(f"/proc/{watching}/smaps_rollup").read_text()
    )
    assert shared is not None
    assert int(shared[1]) > 50_000  # of some 140 MB; 20 without the model
    assert "libopenvino.so" in Path(f"/proc/{watching}/maps").read_text()


def test_a_change_in_one_worker_is_seen_by_the_next_request_in_any(
    server: Server, samples: dict[str, Path]
) -> None:
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
        first, second = (a["predictions"][0]["score"] for a in answers)
        assert first == pytest.approx(second, abs=1e-5)  # each worker encoded the picture


def test_one_scrape_of_any_worker_answers_for_all(server: Server) -> None:
    def classified(page: Scraped) -> float:
        return page("openvocab_requests_total", route="/templates", status="200")

    before = classified(scrape(server.url))
    for worker in workers_of(server):  # both have something to count
        os.kill(worker, signal.SIGSTOP)
        try:
            for _ in range(7):
                httpx.get(f"{server.url}/templates", timeout=60).raise_for_status()
        finally:
            os.kill(worker, signal.SIGCONT)
    # a response is counted just after it was sent
    wait_until(lambda: classified(scrape(server.url)) == before + 14)
    for worker in workers_of(server):
        os.kill(worker, signal.SIGSTOP)  # one that hangs keeps nobody waiting
        try:
            page = scrape(server.url)
        finally:
            os.kill(worker, signal.SIGCONT)
        assert classified(page) == before + 14
        assert page("openvocab_workers") == page("openvocab_workers_serving") == 2
        queues = {v for (n, _), v in page.found.items() if n == "openvocab_max_queued_images"}
        assert queues == {2 * 512}
        assert page("openvocab_canary_good") == 1
        # of the two workers and of the process that watches
        resident = page("process_resident_memory_bytes") / 1e6
        assert resident == pytest.approx(resident_mb(server.process.pid), rel=0.2)
        assert page("openvocab_memory_bytes") / 1e6 < 0.8 * resident  # most pages are shared


def test_a_worker_that_dies_is_replaced_while_the_other_goes_on(
    live: Live, server: Server, samples: dict[str, Path]
) -> None:
    killed, survivor = workers_of(server)
    page = scrape(server.url)
    os.kill(killed, signal.SIGKILL)
    assert ask(server, samples["cat"], labels="cat,dog").status_code == 200
    wait_until(lambda: len(workers_of(server)) == 2 and killed not in workers_of(server))
    assert survivor in workers_of(server)
    assert scrape(server.url).fell(page) == []
    assert scrape(server.url)(RENEWALS, reason="died") == page(RENEWALS, reason="died") + 1
    assert "exited with status -9" in live.log


def test_workers_killed_under_load_lose_nothing_that_was_acknowledged(
    server: Server, samples: dict[str, Path]
) -> None:
    acknowledged: dict[str, list[str]] = {}
    with Callers(server, samples["cat"]) as callers:
        for number in range(3):
            count = len(acknowledged) + 5
            while len(acknowledged) < count:
                name, labels = (
                    f"killed-{len(acknowledged)}",
                    [f"thing {len(acknowledged)}", "other"],
                )
                with contextlib.suppress(httpx.TransportError):
                    url = f"{server.url}/labelsets/{name}"
                    if httpx.put(url, json={"labels": labels}, timeout=60).is_success:
                        acknowledged[name] = labels
            total = len(callers.statuses)
            victims = workers_of(server)
            os.kill(victims[number % len(victims)], signal.SIGKILL)
            wait_until(lambda before=total: len(callers.statuses) > before + 3)  # type: ignore[misc]
            wait_until(lambda: len(workers_of(server)) == 2)
    assert set(callers.statuses) == {200}
    for name, labels in acknowledged.items():
        response = httpx.get(f"{server.url}/labelsets/{name}", timeout=60)
        assert response.json()["labels"] == labels
        httpx.delete(f"{server.url}/labelsets/{name}", timeout=60)
    wait_until(lambda: scrape(server.url)("openvocab_in_service") == 0)


@pytest.mark.parametrize(
    ("fault", "expected"), [("encoder", "the model"), ("decoder", "a decoder")]
)
def test_a_worker_that_hangs_ends_and_is_replaced(
    fault: str, expected: str, live: Live, server: Server, samples: dict[str, Path]
) -> None:
    before = workers_of(server)
    count = live.log.count(f"exited with status {HUNG}")
    live.faults.set(Fault(hang=fault))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(ask, server, samples["cat"], labels="cat,dog")
        wait_until(lambda: live.log.count(f"exited with status {HUNG}") == count + 1)
        assert isinstance(future.exception(), httpx.TransportError)
    # the other one goes on
    assert ask(server, samples["cat"], labels="cat,dog").status_code == 200
    assert len(re.findall(rf"{expected}(?: \S+)? has been hanging for ", live.log)) == 1
    wait_until(lambda: len(workers_of(server)) == 2)
    assert len(set(workers_of(server)) & set(before)) == 1


def test_all_are_renewed_without_a_lost_request(
    live: Live, server: Server, samples: dict[str, Path]
) -> None:
    before, page = set(workers_of(server)), scrape(server.url)
    with Callers(server, samples["cat"]) as callers:
        wait_until(lambda: len(callers.statuses) > 10)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(workers_of(server)) == 2 and not before & set(workers_of(server)))
    assert set(callers.statuses) == {200}
    # only what met a worker that had just stopped listening: it was never read
    assert callers.again <= 2 * len(before)
    now = scrape(server.url)
    assert now.fell(page) == []
    assert now(RENEWALS, reason="renewed") == page(RENEWALS, reason="renewed") + 2
    classified = partial(Scraped.__call__, name=COUNTED, route="/classify", status="200")
    # a response is counted just after it was sent
    count = classified(page) + len(callers.statuses)
    wait_until(lambda: classified(scrape(server.url)) == count)


def test_a_renewed_server_is_ready_all_the_time_and_its_workers_end_when_it_is_killed(
    data_dir: Path,
) -> None:
    statuses = []
    with openvocab("", data_dir, "--workers", "2", drain_seconds=30) as server:
        wait_until(lambda: len(workers_of(server)) == 2)
        before = set(workers_of(server))
        server.process.send_signal(signal.SIGHUP)
        while before & set(workers_of(server)):
            with contextlib.suppress(httpx.TransportError):
                statuses.append(httpx.get(f"{server.url}/readyz", timeout=60).status_code)
        assert set(statuses) == {200}
        pids = workers_of(server)
        assert len(pids) == 2
        server.process.kill()
        wait_until(lambda: all(has_ended(pid) for pid in pids))


def test_those_that_serve_stay_where_a_new_one_cannot(
    live: Live, server: Server, samples: dict[str, Path]
) -> None:
    before, weights = workers_of(server), (live.model / WEIGHTS).read_bytes()
    (live.model / WEIGHTS).write_bytes(b"no weights")
    try:
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the new worker cannot serve (it exited with status 3)" in live.log)
        assert workers_of(server) == before
        assert ask(server, samples["cat"], labels="cat,dog").status_code == 200
    finally:
        (live.model / WEIGHTS).write_bytes(weights)


def test_all_end_on_one_signal_and_answer_what_they_took(
    live: Live, server: Server, samples: dict[str, Path]
) -> None:
    pids = workers_of(server)
    with Callers(server, samples["cat"]) as callers:
        wait_until(lambda: len(callers.statuses) > 10)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(GRACE_SECONDS) == 0
    assert set(callers.statuses) == {200}
    assert all(has_ended(pid) for pid in pids)
    assert "Traceback" not in live.log


@pytest.mark.parametrize(("other_serves", "longest"), [(True, 30.0), (False, 5.0)])
def test_one_that_dies_again_and_again_waits_longer_each_time(
    other_serves: bool, longest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("app.server.workers.time", SimpleNamespace(monotonic=lambda: now))
    supervisor = Supervisor(Settings(), socket.socket(), 2)
    worker, second = (
        _Worker(number, SimpleNamespace(status=-9, serves=serves))  # type: ignore[arg-type]
        for number, serves in enumerate((False, other_serves))
    )
    supervisor._workers = [worker, second]
    pauses = []
    for _ in range(5):
        worker.since, worker.again_at = now, None  # it had begun to serve
        supervisor._due(worker)
        pauses.append(worker.again_at - now)
    assert pauses == pytest.approx([0.1, 1.0, 5.0, longest, longest])
    worker.since, worker.again_at = now - 2 * STEADY, None
    supervisor._due(worker)
    assert worker.again_at < now + 1
    supervisor.listener.close()


def test_a_second_ctrl_c_ends_workers_that_still_answer_requests() -> None:
    supervisor = Supervisor(Settings(), socket.socket(), 1)
    # nothing makes it end but SIGKILL
    process = multiprocessing.get_context("fork").Process(target=_answer_forever)
    process.start()
    try:
        worker = WorkerProcess(process, SimpleNamespace())  # type: ignore[arg-type]
        supervisor._workers = [_Worker(0, worker)]
        supervisor._stop(signal.SIGINT, None)
        assert worker.alive
        supervisor._stop(signal.SIGINT, None)
        supervisor._end()
        assert process.exitcode == -signal.SIGKILL
    finally:
        process.kill()


def _answer_forever() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    threading.Event().wait()


def test_no_room_for_a_second_worker_ends_the_start_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor = Supervisor(Settings(), socket.socket(), 2)
    first = SimpleNamespace(alive=True)

    def start(number: int) -> SimpleNamespace:
        if number:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return first

    monkeypatch.setattr(Supervisor, "_start", lambda _self, number: start(number))
    assert supervisor._watch(lambda _line: None) == START_ERROR
    assert [worker.current for worker in supervisor._workers] == [first]  # what `run` ends
    assert capsys.readouterr().err == (
        "openvocab: worker 1 cannot be started ([Errno 11] Resource temporarily unavailable)\n"
    )
    supervisor.listener.close()


def test_a_worker_for_which_there_are_too_few_threads_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workers, "FIRST_THREADS", 10_000)
    supervisor = Supervisor(Settings(), socket.socket(), 1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    room = pages * resource.getpagesize() + 100_000_000  # for the stacks of a few
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (room, before[1]))
    try:
        worker = supervisor._start(0)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    worker.process.join(GRACE_SECONDS)
    assert worker.status == START_ERROR
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("openvocab: 10000 more threads are needed")
    supervisor.listener.close()


def test_the_certificate_that_ends_is_one_that_a_worker_serves(tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    settings = Settings(tls_cert_file=file)
    certify(file, days=2)
    supervisor = Supervisor(settings, socket.socket(), 1)
    certify(file, days=90)  # then SIGHUP: only the workers are new
    renewed = Metrics(supervisor._board, supervisor._board.take() or 0)
    create_app(settings, metrics=renewed)
    supervisor._metrics.publish()
    page = Scraped(renewed.text().decode())
    assert page("openvocab_certificate_expiry_timestamp_seconds") == valid_until(file)
    supervisor.listener.close()


def certify(file: Path, days: int) -> None:
    """A self-signed certificate."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", str(days), "-subj", "/CN=localhost", "-keyout", os.devnull,
         "-out", str(file)],
        check=True, capture_output=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("store", "model", "status", "message"),
    [
        ("memory://", "pictogram", 2, "cannot be shared by several workers"),
        ("", "local-dir:/nowhere", 3, "no such folder"),
    ],
)
def test_what_cannot_work_ends_the_start(
    store: str, model: str, status: int, message: str, tmp_path: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from app.__main__ import app; app()", "serve", "--workers", "2",
         "--port", "0", "--model", model],
        env={**os.environ, "OPENVOCAB_STORE_URL": store, "OPENVOCAB_DATA_DIR": str(tmp_path)},
        stderr=subprocess.PIPE, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == status
    assert message in ended.stderr.decode()
    assert "Traceback" not in ended.stderr.decode()
