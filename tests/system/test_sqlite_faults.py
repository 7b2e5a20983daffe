"""A running server while its SQLite file is full, locked, read-only, deleted or damaged."""

import contextlib
import io
import json
import os
import random
import re
import resource
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.reliability.faults.asking import look, names, put, status
from benchmarks.reliability.faults.writers import kill_writers
from benchmarks.servers import Server, free_port, serving, wait_until

PETS = ["cat", "dog", "rocket"]
FILE = "openvocab.sqlite3"
GARBAGE = b"this is no database " * 5_000
KILLS = 10  # `python -m benchmarks.reliability.faults --kills` does hundreds

# what keeps the superuser from writing where permissions do not allow it
DROP = """
import ctypes
for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP, in force after exec
import os, sys
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
SERVE = "from app.__main__ import app; app()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """One without the superuser's right to write everywhere; no fault needs another one."""
    with serve_modestly(folder) as client:
        yield client


@contextlib.contextmanager
def serve_modestly(folder: Path) -> Iterator[Server]:
    port = free_port()
    env = {**os.environ, "OPENVOCAB_STORE_URL": "", "OPENVOCAB_DATA_DIR": str(folder)}
    env |= {"OPENVOCAB_LOG_LEVEL": "warning", "OPENVOCAB_RATE_LIMIT": "1000"}
    log = folder.with_name(f"{folder.name}.log")
    with serving(modest("--port", str(port)), port, log, env) as server:
        yield server


def modest(*options: str) -> list[str]:
    arguments = ["-c", SERVE, "serve", "--model", "pictogram", *options]
    return [sys.executable, "-c", DROP, *arguments]


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """A client of it, once all is well, with the label set that it knows."""
    client = server.client
    wait_until(lambda: status(client) == "ready")
    put(client, "pets", PETS, wait=True)
    yield client
    for name in names(client):
        if name != "pets":
            client.delete(f"/labelsets/{name}")


def refused(*answers: httpx.Response) -> None:
    for answer in answers:
        assert answer.status_code == 503, answer.text
        assert answer.json()["error_type"] == "store_unavailable"
        assert int(answer.headers["retry-after"]) >= 1


def on_disk(folder: Path) -> dict[str, list[str]]:
    """What another program finds in the file: names and labels."""
    with contextlib.closing(sqlite3.connect(folder / FILE)) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = file.execute("SELECT name, body FROM labelsets WHERE body IS NOT NULL").fetchall()
    entries = {name: json.loads(body)["definition"]["entries"] for name, body in rows}
    return {name: [label for label, *_ in rows] for name, rows in entries.items()}


@contextlib.contextmanager
def full_disk(server: Server) -> Iterator[None]:
    """Nothing more can be written to any file."""
    pid, kind = server.process.pid, resource.RLIMIT_FSIZE
    _, most = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (0, most))
    try:
        yield
    finally:
        resource.prlimit(pid, kind, (most, most))


def test_on_a_full_disk_it_classifies_refuses_writes_and_heals(
    server: Server, client: httpx.Client, samples: dict[str, Path], folder: Path
) -> None:
    put(client, "other", ["x", "y"], wait=True)
    with full_disk(server):
        look(client, samples["cat"])
        refused(
            put(client, "new", [f"label {number}" for number in range(500)]),
            put(client, "pets", ["a", "b"]),
            client.delete("/labelsets/other"),
        )
        assert status(client) == "degraded"
        # what is there can be read
        assert names(client) == ["other", "pets"]
        look(client, samples["cat"])
    wait_until(lambda: status(client) == "ready")
    assert on_disk(folder) == {"other": ["x", "y"], "pets": PETS}
    assert put(client, "new", ["a", "b"]).is_success
    assert on_disk(folder)["new"] == ["a", "b"]


def test_an_archive_that_the_disk_has_no_room_for_is_to_come_again_later(
    server: Server, client: httpx.Client, samples: dict[str, Path]
) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.write(samples["cat"], "cat/cat.png")
    archived = out.getvalue()

    def label() -> str:
        batch = client.post("/classify/batch?labels=cat,dog", content=archived).raise_for_status()
        return str(batch.json()["results"][0]["result"]["predictions"][0]["label"])

    assert label() == "cat"
    with full_disk(server):
        for path in ("/classify/batch?labels=cat,dog", "/labelsets/pets/examples"):
            answer = client.post(path, content=archived)
            assert (answer.status_code, answer.json()["error_type"]) == (503, "overloaded")
            assert re.search(r"temporary files, where \d+ bytes are free;", answer.json()["detail"])
            assert int(answer.headers["retry-after"]) > 0
        look(client, samples["cat"])
    assert label() == "cat"


def test_while_another_process_holds_the_lock_it_classifies_and_writes_wait_their_time(
    client: httpx.Client, samples: dict[str, Path], folder: Path
) -> None:
    writer = sqlite3.connect(folder / FILE, isolation_level=None)
    with contextlib.closing(writer):
        writer.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        refused(put(client, "new", ["a", "b"]))
        assert time.monotonic() - start > 2
        assert status(client) == "degraded"
        look(client, samples["cat"])
        assert names(client) == ["pets"]
        writer.execute("ROLLBACK")
    wait_until(lambda: status(client) == "ready")
    assert client.get("/labelsets/new").status_code == 404
    assert put(client, "new", ["a", "b"]).is_success


def test_while_another_process_holds_the_lock_new_labels_wait_for_nobody(
    client: httpx.Client, folder: Path, samples: dict[str, Path]
) -> None:
    def seconds(word: str) -> float:
        fields = {"labels": json.dumps([f"{word} {number}" for number in range(900)])}
        start = time.monotonic()
        with samples["cat"].open("rb") as file:
            client.post("/classify", files={"image": file}, data=fields).raise_for_status()
        return time.monotonic() - start

    alone = seconds("alone")
    with sqlite3.connect(folder / FILE, isolation_level=None) as reader:
        reader.execute("BEGIN EXCLUSIVE")
        # several blocks of vectors, each of which would wait four seconds for the lock
        assert seconds("beside") < 2 * alone + 10
        reader.execute("COMMIT")
    reader.close()


@pytest.mark.parametrize("endings", [("",), ("", "-wal", "-shm"), ("-wal",)])
def test_a_deleted_file_is_made_anew_with_all_that_is_known(
    client: httpx.Client, samples: dict[str, Path], folder: Path, endings: tuple[str, ...]
) -> None:
    put(client, "other", ["x", "y"], wait=True)
    put(client, "gone", ["x", "y"], wait=True)
    client.delete("/labelsets/gone")
    for ending in endings:
        (folder / f"{FILE}{ending}").unlink()
    look(client, samples["cat"])
    assert put(client, "new", ["a", "b"]).status_code in (201, 202)
    assert names(client) == ["new", "other", "pets"]
    assert on_disk(folder) == {"new": ["a", "b"], "other": ["x", "y"], "pets": PETS}
    assert status(client) == "ready"


def overwrite(path: Path) -> None:
    path.write_bytes(GARBAGE)


def replace(path: Path) -> None:
    other = path.with_name("garbage")
    other.write_bytes(GARBAGE)
    other.replace(path)


@pytest.mark.parametrize("damage", [overwrite, replace])
def test_garbage_in_place_of_the_file_is_left_alone_until_it_is_gone(
    client: httpx.Client, samples: dict[str, Path], folder: Path, damage: Any
) -> None:
    put(client, "other", ["x", "y"], wait=True)
    damage(folder / FILE)
    look(client, samples["cat"])
    refused(put(client, "new", ["a", "b"]), client.delete("/labelsets/pets"))
    assert status(client) == "degraded"
    look(client, samples["cat"])
    assert (folder / FILE).read_bytes() == GARBAGE
    (folder / FILE).unlink()
    wait_until(lambda: status(client) == "ready")
    assert names(client) == ["other", "pets"]
    assert on_disk(folder) == {"other": ["x", "y"], "pets": PETS}
    assert put(client, "new", ["a", "b"]).is_success


def test_with_a_damaged_page_it_classifies_refuses_writes_says_so_and_heals(
    client: httpx.Client, samples: dict[str, Path], folder: Path
) -> None:
    put(client, "other", ["x", "y"], wait=True)
    with contextlib.closing(sqlite3.connect(folder / FILE)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        table = "SELECT rootpage FROM sqlite_schema WHERE name = 'labelsets'"
        ((page,), (size,)) = (file.execute(sql).fetchone() for sql in (table, "PRAGMA page_size"))
    with (folder / FILE).open("r+b") as damaged:
        damaged.seek((page - 1) * size)
        damaged.write(b"\xff" * 100)
    look(client, samples["cat"])
    wait_until(lambda: status(client) == "degraded")
    refused(put(client, "new", ["a", "b"]), client.delete("/labelsets/pets"))
    # once noticed it stays so: a ping that works does not make it well
    assert {status(client) for _ in range(20)} == {"degraded"}
    look(client, samples["cat"])
    (folder / FILE).rename(folder / "aside")
    wait_until(lambda: status(client) == "ready")
    assert names(client) == ["other", "pets"]
    assert on_disk(folder) == {"other": ["x", "y"], "pets": PETS}
    assert put(client, "new", ["a", "b"]).is_success


def test_a_file_and_folder_that_become_read_only_are_read(
    client: httpx.Client, samples: dict[str, Path], folder: Path
) -> None:
    """As after a restore by another user: the file is another one, and may not be written."""
    put(client, "other", ["x", "y"], wait=True)
    with contextlib.closing(sqlite3.connect(folder / FILE)) as file:
        file.execute(f"VACUUM INTO '{folder / 'copy'}'")
    (folder / "copy").chmod(0o400)
    (folder / "copy").replace(folder / FILE)
    folder.chmod(0o500)
    try:
        look(client, samples["cat"])
        refused(put(client, "new", ["a", "b"]), client.delete("/labelsets/other"))
        assert status(client) == "degraded"
        look(client, samples["cat"])
    finally:
        folder.chmod(0o700)
        (folder / FILE).chmod(0o600)
    wait_until(lambda: status(client) == "ready")
    assert names(client) == ["other", "pets"]
    assert on_disk(folder) == {"other": ["x", "y"], "pets": PETS}
    assert put(client, "new", ["a", "b"]).is_success


def test_a_folder_that_cannot_be_written_ends_the_start_with_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    env = {**os.environ, "OPENVOCAB_STORE_URL": "", "OPENVOCAB_DATA_DIR": str(tmp_path)}
    try:
        ended = subprocess.run(
            modest("--port", str(free_port())),
            check=False,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
        )
    finally:
        tmp_path.chmod(0o700)
    assert ended.returncode != 0
    output = ended.stdout + ended.stderr
    assert "Traceback" not in output
    (line,) = [line for line in output.splitlines() if str(tmp_path) in line]
    assert "Permission denied" in line


def test_a_file_of_another_user_ends_the_start_with_one_line(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only the superuser gives files away")
    file = tmp_path / FILE
    file.touch(mode=0o600)
    os.chown(file, 12345, 12345)
    ended = subprocess.run(
        modest("--port", str(free_port())),
        check=False,
        env={**os.environ, "OPENVOCAB_STORE_URL": "", "OPENVOCAB_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 4
    (line,) = (ended.stdout + ended.stderr).splitlines()
    assert line.endswith("the user 0 must be able to read and write the file and its folder")


def test_kills_in_the_middle_of_writes_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    outcome = kill_writers(KILLS, tmp_path, random.Random(7))
    assert outcome.acknowledged > KILLS
    assert (outcome.lost, outcome.wrong, outcome.unreadable) == (0, 0, 0)
