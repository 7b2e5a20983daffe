"""Starting and stopping: what was accepted is answered, and what cannot work says so."""

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
import uvicorn

from app.server import run
from app.server.run import _Server
from app.server.settings import Settings
from benchmarks import servers
from benchmarks.reliability.misbehaving import Fault, misbehaving
from benchmarks.servers import Server, free_port, redis_server
from models.catalog import catalog

FIELDS = {"labels": "cat,dog,rocket", "templates": "pictogram"}
# enough for what a load balancer does here meanwhile, on a busy machine
DRAIN_SECONDS = 10
GRACE_SECONDS = 120


wait_until = partial(servers.wait_until, seconds=120)


def classify(server: Server, picture: bytes) -> httpx.Response:
    return httpx.post(f"{server.url}/classify", files={"image": picture}, data=FIELDS, timeout=300)


def in_service(server: Server) -> float:
    lines = httpx.get(f"{server.url}/metrics", timeout=60).text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("openvocab_in_service "))


def test_what_was_accepted_is_answered_and_new_requests_are_turned_away(
    samples: dict[str, Path], data_dir: Path
) -> None:
    picture = samples["cat"].read_bytes()
    with (
        misbehaving(data_dir, drain_seconds=DRAIN_SECONDS, request_timeout=300) as (server, faults),
        ThreadPoolExecutor(4) as pool,
    ):
        faults.set(Fault(blocked=True))
        accepted = [pool.submit(classify, server, picture) for _ in range(3)]
        wait_until(lambda: in_service(server) == 3)
        assert server.client.get("/healthz").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        # a load balancer is told, and what it still sends is taken
        wait_until(lambda: server.client.get("/readyz").status_code == 503)
        assert server.client.get("/readyz").json()["error_type"] == "draining"
        accepted.append(pool.submit(classify, server, picture))
        wait_until(lambda: in_service(server) == 4)
        wait_until(lambda: refuses(server))
        assert server.process.poll() is None
        faults.set(Fault())
        assert [future.result().status_code for future in accepted] == [200] * 4
        assert server.process.wait(GRACE_SECONDS) == 0
    assert "Traceback" not in (data_dir / "server.log").read_text()


def test_a_second_sigterm_does_not_end_the_time_in_which_load_balancers_are_told() -> None:
    app: Any = SimpleNamespace(state=SimpleNamespace(draining=False))
    server = _Server(app, uvicorn.Config(app), lambda: None, Settings(drain_seconds=60))
    for number in (signal.SIGTERM, signal.SIGTERM):
        server.end(number, None)
        assert (app.state.draining, server.should_exit) == (True, False)
    server.end(signal.SIGINT, None)
    assert server.should_exit


def test_a_hang_up_signal_without_a_terminal_ends_nothing_and_a_second_ctrl_c_everything(
    samples: dict[str, Path], data_dir: Path
) -> None:
    def log() -> str:
        return (data_dir / "server.log").read_text()

    with misbehaving(data_dir, log_level="info") as (server, faults), ThreadPoolExecutor(1) as pool:
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "SIGHUP renews worker" in log())
        assert server.client.get("/healthz").status_code == 200
        faults.set(Fault(blocked=True))
        accepted = pool.submit(classify, server, samples["cat"].read_bytes())
        wait_until(lambda: in_service(server) == 1)
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: "CTRL+C to force quit" in log())
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(GRACE_SECONDS) == 0
        assert isinstance(accepted.exception(), httpx.TransportError)
    assert "Traceback" not in log()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_hang_up_signal_during_the_start_ends_nothing(tmp_path: Path, workers: str) -> None:
    port = free_port()
    command = [sys.executable, "-c", "from app.__main__ import app; app()", "serve"]
    command += ["--model", "pictogram", "--port", str(port), "--workers", workers]
    env = {**os.environ, "OPENVOCAB_DATA_DIR": str(tmp_path), "OPENVOCAB_LOG_FORMAT": "text"}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            assert ": loading " in process.stderr.readline()
            process.send_signal(signal.SIGHUP)
            output = ""
            while "Ready" not in output:
                line = process.stderr.readline()
                assert line, output
                output += line
            assert "SIGHUP during startup" in output or workers == "2"
            assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=60).status_code == 200
            process.terminate()
            process.communicate(timeout=GRACE_SECONDS)
        finally:
            process.kill()
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_while_the_model_of_all_workers_is_loaded_ends_the_start(
    tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-c", "from app.__main__ import app; app()", "serve"]
    command += ["--model", "pictogram", "--port", "0", "--workers", "2"]
    env = {**os.environ, "OPENVOCAB_DATA_DIR": str(tmp_path), "OPENVOCAB_TORCH_THREADS": "1"}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until((tmp_path / "models").exists)
            process.send_signal(number)
            _, output = process.communicate(timeout=GRACE_SECONDS)
        finally:
            process.kill()
    assert process.returncode == 128 + number, output
    assert "Traceback" not in output


def test_the_first_process_of_a_container_hears_sigterm_while_it_loads(tmp_path: Path) -> None:
    first = "import os; os.getpid = lambda: 1; from app.__main__ import app; app()"
    command = [sys.executable, "-c", first, "serve", "--model", "pictogram", "--port", "0"]
    env = {**os.environ, "OPENVOCAB_DATA_DIR": str(tmp_path)}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until((tmp_path / "models").exists)
            process.terminate()
            _, output = process.communicate(timeout=GRACE_SECONDS)
        finally:
            process.kill()
    # by the default action, which such a process does not have, it would be -15
    assert process.returncode == 128 + signal.SIGTERM, output


def test_a_server_whose_workers_load_their_own_models_ends_at_a_signal(data_dir: Path) -> None:
    program = "from models import forking; forking.TRIAL_SECONDS = 0.001; "
    program += "from app.__main__ import app; app()"
    command = [sys.executable, "-c", program, "serve", "--model", "pictogram", "--port", "0"]
    env = {**os.environ, "OPENVOCAB_DATA_DIR": str(data_dir), "OPENVOCAB_WORKERS": "2"}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            output = ""
            while "Ready" not in output:
                line = process.stderr.readline()
                assert line, output
                output += line
            assert "cannot use the loaded model" in output
            process.terminate()
            process.communicate(timeout=GRACE_SECONDS)
        finally:
            process.kill()
    assert process.returncode == 0


def refuses(server: Server) -> bool:
    """Whether nobody listens any more."""
    try:
        httpx.get(f"{server.url}/healthz")
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        return False
    return False


def start(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from app.__main__ import app; app()", "serve", "--port", "0"]
    return subprocess.run(
        [*command, *arguments],
        env={**os.environ, **env}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture
def redis_with_password(tmp_path: Path) -> Iterator[str]:
    import redis

    with redis_server(tmp_path) as url:
        with redis.Redis.from_url(url) as direct:
            direct.config_set("requirepass", "secret")
        yield url


def ends_in_one_line(process: subprocess.CompletedProcess[str], status: int, message: str) -> None:
    assert process.returncode == status, process.stderr
    lines = [line for line in process.stderr.splitlines() if ": loading " not in line]
    assert len(lines) == 1, process.stderr
    assert lines[0].startswith("openvocab: ")
    assert message in lines[0]


def test_a_wrong_password_of_redis_ends_the_start(redis_with_password: str) -> None:
    url = redis_with_password.replace("redis://", "redis://:guessed@")
    completed = start("--model", "pictogram", OPENVOCAB_STORE_URL=url)
    ends_in_one_line(completed, 4, "password")
    assert "guessed" not in completed.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ('[keys.a]\nsha256 = "secret"\nscopes = ["admin"]', "keys.a.sha256"),
    ],
)
def test_a_file_of_keys_that_cannot_be_read_ends_the_start(
    content: str | None, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "keys.toml"
    if content is not None:
        file.write_text(content)
    completed = start("--model", "pictogram", OPENVOCAB_API_KEYS_FILE=str(file))
    ends_in_one_line(completed, 2, message)
    assert "secret" not in completed.stderr


def test_a_certificate_that_is_none_ends_the_start(tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n")
    process = start("--model", "pictogram", OPENVOCAB_TLS_CERT_FILE=str(file))
    ends_in_one_line(process, 2, "not a certificate with its key")


def test_a_damaged_checkpoint_ends_the_start(tmp_path: Path) -> None:
    bundled = Path(catalog()["pictogram"].loader.removeprefix("local-dir:"))
    config = (bundled / "open_clip_config.json").read_text()
    (tmp_path / "open_clip_config.json").write_text(config)
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"no weights")
    ends_in_one_line(start("--model", f"local-dir:{tmp_path}"), 3, "openvocab: ")


def test_a_folder_without_a_socket_ends_the_start(tmp_path: Path) -> None:
    process = start("--model", "pictogram", "--uds", str(tmp_path / "none" / "x.sock"))
    ends_in_one_line(process, 1, "cannot listen on")


def test_a_system_that_permits_no_more_threads_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed: list[str] = []
    encoder: Any = SimpleNamespace(close=lambda: closed.append("encoder"))
    monkeypatch.setattr(run, "FIRST_THREADS", 10_000)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    room = pages * resource.getpagesize() + 100_000_000  # for the stacks of a few
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (room, before[1]))
    try:
        status = run.serve(Settings(), encoder, cast("socket.socket", None))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert (status, closed) == (1, ["encoder"])
    assert capsys.readouterr().err == (
        "openvocab: 10000 more threads are needed, and the system does not permit them: raise its "
        "limit of tasks (TasksMax=, pids.max, `ulimit -u`) or `ulimit -v`\n"
    )
    assert run.permits(8)
