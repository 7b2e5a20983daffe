"""The command line as a person runs it: a process of its own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from app.__main__ import app
from app.cli import serve
from app.server.exit_status import USAGE_ERROR
from app.server.settings import Settings
from benchmarks.servers import free_port
from models.catalog import catalog
from models.choice import CHOICE, Candidates, Choice
from models.export_cache import make_export
from models.export_folder import checked, seal
from models.info import Timing

COMMAND = [sys.executable, "-c", "from app.__main__ import app; app()"]


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, "COLUMNS": "200", **env},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def here(*arguments: str, **env: str) -> Result:
    """The same in this process, for a command that is no process of its own to anybody."""
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200", **env})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def test_the_server_answers_and_ends_cleanly(samples: dict[str, Path]) -> None:
    port = free_port()
    server = subprocess.Popen(
        [*COMMAND, "serve", "--model", "pictogram", "--port", str(port)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            while True:
                try:
                    client.get("/readyz").raise_for_status()
                    break
                except httpx.TransportError:
                    assert server.poll() is None, "the server ended"
                    time.sleep(0.05)
            answer = client.post(
                "/classify",
                files={"image": samples["cat"].read_bytes()},
                data={"labels": "cat,dog,pizza,rocket"},
            ).json()
        assert answer["predictions"][0]["label"] == "cat"
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=240)
    finally:
        server.kill()
    assert server.returncode == 0
    # it says which model answers, and what it is not for
    assert "pictogram on " in log
    assert "Not for photographs" in log
    assert "Traceback" not in log


def test_a_port_in_use_is_exit_status_1() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        completed = run("serve", "--model", "pictogram", "--port", str(sock.getsockname()[1]))
    assert completed.returncode == 1
    assert "Address already in use" in completed.stderr
    assert "loading" not in completed.stderr
    assert "Traceback" not in completed.stderr


def test_a_bad_setting_is_one_line_and_exit_status_2() -> None:
    completed = run("serve", OPENVOCAB_MAX_BATCH="none")
    assert completed.returncode == 2
    assert completed.stderr.count("\n") == 1
    assert "OPENVOCAB_MAX_BATCH" in completed.stderr
    assert "'none'" in completed.stderr


def test_a_misspelt_setting_is_said_at_the_start() -> None:
    completed = run("serve", "--model", "nothing", "--port", "0", OPENVOCAB_API_KEY_FILE="keys")
    (line,) = (line for line in completed.stderr.splitlines() if "KEY_FILE" in line)
    warning = json.loads(line)
    assert warning["level"] == "warning"
    assert "OPENVOCAB_API_KEY_FILE is not a setting" in warning["message"]
    assert "OPENVOCAB_API_KEYS_FILE" in warning["message"]


@pytest.mark.parametrize("model", ["nothing", "local-dir:/nowhere"])
def test_a_model_that_cannot_be_loaded_is_exit_status_3(model: str) -> None:
    completed = run("serve", "--model", model, "--port", "0")
    assert completed.returncode == 3
    assert completed.stderr.splitlines()[-1].startswith("openvocab: model ")
    assert "--model everyday" in completed.stderr
    assert "Traceback" not in completed.stderr


def test_it_starts_where_the_standard_streams_are_closed() -> None:
    words = [*COMMAND, "serve", "--workers", "2"]
    line = ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *words]
    env = {**os.environ, "OPENVOCAB_STORE_URL": "memory://"}
    # as far as what is wrong with it
    assert subprocess.run(line, env=env, timeout=240, check=False).returncode == USAGE_ERROR


def test_streams_that_were_closed_are_open_in_processes_that_are_started_later() -> None:
    later = "import os; [os.fstat(number) for number in range(3)]"
    code = (
        "import subprocess, sys; from app.cli import serve; serve._fill_streams(); "
        "command = [sys.executable, '-c', sys.argv[1]]; "
        "sys.exit(subprocess.run(command, close_fds=False).returncode)"
    )
    line = ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code, later]
    assert subprocess.run(line, timeout=240, check=False).returncode == 0


def test_models_are_listed() -> None:
    completed = here("models", "list")
    assert completed.exit_code == 0
    first = {line.split()[0]: line for line in completed.stdout.splitlines()}
    default = first["ViT-B-32-256/datacomp_s34b_b86k"]
    assert re.search(r"\s72\.8\s+11\.5\s+605\s+MIT, en\. First choice \(cheapest\)", default)
    assert " (not free)" in completed.stdout
    entries = json.loads(here("models", "list", "--json").stdout)
    assert [entry["name"] for entry in entries] == list(first)[1:]
    for entry in entries:  # a published figure has its source
        assert (entry["imagenet_top1"] is None) == (entry["figures"] is None), entry["name"]
    assert any("openclip_results.csv" in (entry["figures"] or "") for entry in entries)
    assert "not free)" not in here("models", "list", "--free").stdout


def test_bench_times_every_part_of_each_model_and_tells_what_it_runs_by(tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    make_export("pictogram", catalog()["pictogram"].loader, Candidates(("fp32",)), folder)
    both = (
        Timing(backend, "fp32", threads, {1: ms, 8: ms / 2}, {1: ms, 8: ms / 2})
        for backend, threads, ms in (("openvino", 0, 2.5), ("openvino", 4, 3.5), ("torch", 0, 9.0))
    )
    choice = Choice("openvino", "fp32", 8, measured=tuple(both))
    seal(folder, {**checked(folder), CHOICE: choice.as_json()})
    exported = ("--model", f"exported:{folder}")
    # pictures at once, of which as many as usual would show no more
    bench, env = ("bench", "--seconds", "0.01"), {"OPENVOCAB_MAX_BATCH": "2"}
    completed = here(*bench, "--model", "pictogram", *exported, "--json", **env)
    assert completed.exit_code == 0
    answer, other = map(json.loads, completed.stdout.splitlines())
    assert (answer["model"], answer["precision"]) == ("pictogram", "fp32")
    names = " ".join(figure["name"] for figure in answer["figures"])
    assert all(
        part in names
        for part in ("encode 1 image", "encode 2 images", "decode", "embed 50", "score 1,000")
    )
    assert all(0 < f["low"] <= f["median"] <= f["high"] for f in answer["figures"])
    # each of the two by what is its own
    assert not answer["measured"]
    assert other["measured"][2]["cpu_ms"] == {"1": 9.0, "8": 4.5}
    table = here(*bench, *exported, **env).stdout
    assert re.search(r"score 1,000 labels\s+[\d.]+", table)
    for row in (r"openvino in fp32 +2\.50 +1\.25", r"openvino in fp32, 4 threads +3\.50 +1\.75",
                r"torch in fp32 +9\.00 +4\.50"):  # fmt: skip
        assert re.search(row, table), table


def test_bench_ends_with_the_statuses_that_its_help_names() -> None:
    assert here("bench", "--help").stdout.splitlines()[-1] == (
        "  Exit status: 0 done, 2 a setting is invalid, 3 the model cannot be loaded."
    )
    assert here("bench", OPENVOCAB_MAX_BATCH="none").exit_code == 2
    assert here("bench", "--model", "nothing").exit_code == 3


def test_pulling_what_is_here_works_and_what_is_nowhere_does_not() -> None:
    assert here("models", "pull", "pictogram").exit_code == 0
    failed = here("models", "pull", "nothing")
    assert failed.exit_code == 3
    assert failed.stderr.startswith("openvocab: model 'nothing' ")


def test_a_port_is_taken_from_the_first_moment_on() -> None:
    port = str(free_port())
    command = [*COMMAND, "serve", "--model", "pictogram", "--port", port]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert first.stderr is not None
        while "loading" not in first.stderr.readline():
            assert first.poll() is None
        second = run("serve", "--model", "pictogram", "--port", port)
        assert second.returncode == 1
        assert "Address already in use" in second.stderr
    finally:
        first.kill()
        first.communicate()


def starting(files: str, *arguments: str, **env: str) -> tuple[list[str], list[int]]:
    """What a server says until it loads its model, and its soft and hard limit of open files.

    `files`: how the shell limits them before it.
    """
    command = [*COMMAND, "serve", "--model", "pictogram", "--port", "0", *arguments]
    with subprocess.Popen(
        ["bash", "-c", f'{files}; exec "$0" "$@"', *command],
        env={**os.environ, **env}, stderr=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        lines: list[str] = []
        try:
            assert server.stderr is not None
            while "loading" not in "".join(lines):
                lines.append(server.stderr.readline())
                assert lines[-1], lines
            limits = Path(f"/proc/{server.pid}/limits").read_text()
        finally:
            server.kill()
    (numbers,) = re.findall(r"Max open files +(\d+) +(\d+)", limits)
    return lines, [int(number) for number in numbers]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_as_many_files_may_be_open_as_there_may_be_connections() -> None:
    lines, (soft, hard) = starting("ulimit -Sn 300; ulimit -Hn 5000")
    assert (soft, hard) == (4096 + 200, 5000)  # as the default of max_connections needs
    assert not any("open files" in line for line in lines)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_too_few_open_files_for_the_connections_are_said_at_the_start() -> None:
    lines, (soft, _) = starting("ulimit -Sn 300; ulimit -Hn 1000")
    assert soft == 1000
    (warning,) = (line for line in lines if "open files" in line)
    assert "1000 open files are permitted" in warning
    assert "OPENVOCAB_MAX_CONNECTIONS=4096 needs 4296" in warning
    lines, (soft, _) = starting("ulimit -Sn 300; ulimit -Hn 1000", OPENVOCAB_MAX_CONNECTIONS="50")
    assert soft == 300
    assert not any("open files" in line for line in lines)


def test_too_few_open_files_for_a_start_end_it_in_one_line() -> None:
    command = [*COMMAND, "serve", "--model", "pictogram", "--port", "0", "--workers", "10"]
    done = subprocess.run(
        ["bash", "-c", 'ulimit -n 100; exec "$0" "$@"', *command],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        "openvocab: 100 open files are permitted, and a start needs 104: raise `ulimit -n`\n"
    )


@pytest.mark.parametrize(
    ("arguments", "env", "status", "complaint"),
    [
        (["--host", ""], {}, 2, "--host is empty"),
        ([], {"OPENVOCAB_STORE_URL": "mysql://x"}, 4, "mysql"),
        ([], {"OPENVOCAB_STORE_URL": "redis://"}, 3, ""),
        ([], {"OPENVOCAB_DATA_DIR": "/proc/nothing"}, 4, "/proc/nothing"),
    ],
)
def test_what_can_never_work_ends_the_start_with_one_line(
    arguments: list[str], env: dict[str, str], status: int, complaint: str
) -> None:
    completed = run("serve", "--model", "no-such-model", "--port", "0", *arguments, **env)
    assert completed.returncode == status, completed.stderr
    assert complaint in completed.stderr
    assert "Traceback" not in completed.stderr


def test_a_missing_extra_ends_the_start() -> None:
    code = "import sys; sys.modules['pi_heif'] = None; from app.__main__ import app; app()"
    completed = subprocess.run(
        [sys.executable, "-c", code, "serve"],
        env={**os.environ, "OPENVOCAB_HEIC": "true"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert completed.returncode == 2
    assert "openvocab[heic]" in completed.stderr


@pytest.mark.parametrize(
    ("package", "setting", "extra"),
    [("pi_heif", "HEIC", "heic"), ("resvg_py", "SVG", "svg"), ("pillow_jxl", "JPEG_XL", "jxl")],
)
def test_each_missing_extra_is_named(
    package: str,
    setting: str,
    extra: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setenv(f"OPENVOCAB_{setting}", "true")
    with pytest.raises(typer.Exit):
        serve._check_formats(Settings())
    assert f"OPENVOCAB_{setting} needs pip install 'openvocab[{extra}]'" in capsys.readouterr().err


def test_what_asks_a_server_and_what_fails_before_it_loads_waits_for_no_service() -> None:
    code = "import sys; from app.cli import classify, labelset, serve; print(*sys.modules)"
    completed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    imported = set(completed.stdout.split())
    assert "app.cli.client" in imported
    assert not {"fastapi", "uvicorn", "app.server.main", "app.api.classify"} & imported


def test_the_version_is_the_one_that_is_installed() -> None:
    process = run("--version")
    assert (process.returncode, process.stdout) == (0, f"openvocab {version('openvocab')}\n")


@pytest.mark.parametrize(
    ("workers", "largest", "pending", "told"),
    [
        (1, 50_000_000, 1_000_000_000, ()),
        (2, 25_000_000, 500_000_000, ()),
        (2, 50_000_000, 500_000_000, ("the largest image", 850, "MAX_IMAGE_PIXELS", 29411765)),
        (2, 25_000_000, 501_000_000, ("requests under way", 501, "MAX_PENDING_BYTES", 250000000)),
    ],
)
def test_what_would_not_fit_into_a_workers_memory_is_said_at_the_start(
    workers: int,
    largest: int,
    pending: int,
    told: tuple[object, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("app.server.settings.memory_limit", lambda: 2_000_000_000)
    serve._check_memory(
        Settings(workers=workers, max_image_pixels=largest, max_pending_bytes=pending)
    )
    line = (
        "openvocab: WARNING: {} may take {} MB, and half of a worker's memory is 500 MB: the "
        "system may end it. Lower OPENVOCAB_{}, to {} for example\n"
    )
    assert capsys.readouterr().err == (line.format(*told) if told else "")
