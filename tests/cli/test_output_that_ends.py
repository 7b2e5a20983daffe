"""Output that nobody takes: a full disk, a closed pipe, none at all; with every way of printing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

COMMANDS = {
    "--version": (),
    "models": ("list",),
    "labelset": ("list",),
    "eval": ("--no-keep",),
    "classify": ("--labels", "cat,dog", "--format", "csv"),
}


@pytest.fixture(params=COMMANDS)
def words(
    request: pytest.FixtureRequest, tmp_path: Path, samples: dict[str, Path], client: httpx.Client
) -> list[str]:
    name = str(request.param)
    options = list(COMMANDS[name])
    if name in ("eval", "classify"):
        for label in ("cat", "dog"):
            (tmp_path / "in" / label).mkdir(parents=True)
            shutil.copy(samples[label], tmp_path / "in" / label)
        options.append(str(tmp_path / "in"))
    if name not in ("--version", "models"):
        options += ["--url", str(client.base_url)]
    return [sys.executable, "-m", "app", name, *options]


def test_a_full_disk_is_told_in_a_line(words: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(
            words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=240, check=False
        )
    assert process.returncode == 1
    assert process.stderr == "openvocab: standard output: no space left on device\n"


def test_a_pipe_that_is_closed_is_status_141(words: list[str]) -> None:
    source, sink = os.pipe()
    os.close(source)
    process = subprocess.run(
        words, stdout=sink, stderr=subprocess.PIPE, text=True, timeout=240, check=False
    )
    os.close(sink)
    assert (process.returncode, process.stderr) == (141, "")


def test_no_standard_output_is_nothing_to_write(words: list[str]) -> None:
    line = ["sh", "-c", '"$@" >&-', "sh", *words]
    process = subprocess.run(line, stderr=subprocess.PIPE, text=True, timeout=240, check=False)
    assert process.returncode == 0
    assert "Traceback" not in process.stderr


def test_a_journal_that_has_no_room_is_named(
    tmp_path: Path, samples: dict[str, Path], client: httpx.Client
) -> None:
    out = tmp_path / "out.csv"
    words = [sys.executable, "-m", "app", "classify", *map(str, samples.values()), "-o", str(out)]
    words += ["--labels", "cat,dog", "--url", str(client.base_url)]
    line = ["sh", "-c", 'ulimit -f 2; "$@"', "sh", *words]
    process = subprocess.run(line, capture_output=True, text=True, timeout=240, check=False)
    assert process.returncode == 2, process.stderr
    assert f"openvocab: {out}.part: file too large" in process.stderr
    assert "Traceback" not in process.stderr
