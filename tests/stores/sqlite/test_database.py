"""A SQLite file that is deleted, moved, replaced or overwritten while it is open."""

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from app.stores.protocols import LabelSetRecord, Store, StoreAway, StoreDamaged, StoreRefused
from app.stores.sqlite.store import SqliteStore

MOST = 1000
END = "\U0010ffff"
GARBAGE = b"this is no database " * 5_000
Run = Callable[[Store, Callable[[Store], Awaitable[None]]], None]


def at(path: Path) -> SqliteStore:
    return SqliteStore(path, 10.0, vector_ttl=3600, vector_bytes=1 << 30, patience=5)


def stored(path: Path) -> dict[str, bytes]:
    """What lies at the path now, as another program sees it."""
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT name, body FROM labelsets"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def remove(path: Path, *endings: str) -> None:
    for ending in endings:
        path.with_name(path.name + ending).unlink(missing_ok=True)


@pytest.mark.parametrize("endings", [("",), ("", "-wal"), ("", "-shm"), ("", "-wal", "-shm")])
def test_a_deleted_file_is_made_anew_and_takes_what_is_acknowledged(
    path: Path, with_store: Run, endings: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    async def test(store: Store) -> None:
        await store.labelsets.write("old", b"1", None, MOST)
        await store.rates.take("key", 1, 1, 1)
        remove(path, *endings)
        assert (await store.labelsets.write("new", b"2", None, MOST)).version == 1
        assert stored(path) == {"new": b"2"}
        # reads and buckets have connections of their own
        assert await store.labelsets.head("old") is None
        assert (await store.rates.take("key", 1, 1, 1)).granted == 1
        assert stored(path) == {"new": b"2"}

    with_store(at(path), test)
    assert stored(path) == {"new": b"2"}
    assert sum("deleted, moved or replaced" in line for line in caplog.messages) == 1


def test_a_deleted_folder_is_made_anew(tmp_path: Path, with_store: Run) -> None:
    path = tmp_path / "folder" / "file"

    async def test(store: Store) -> None:
        shutil.rmtree(path.parent)
        await store.labelsets.write("new", b"2", None, MOST)
        assert stored(path) == {"new": b"2"}

    with_store(at(path), test)


def test_a_log_that_was_deleted_alone_is_not_written_to(path: Path, with_store: Run) -> None:
    async def test(store: Store) -> None:
        await store.labelsets.write("old", b"1", None, MOST)
        remove(path, "-wal")
        await store.labelsets.write("new", b"2", None, MOST)
        assert stored(path)["new"] == b"2"

    with_store(at(path), test)


def test_a_file_that_was_moved_away_keeps_its_log_beside_the_new_one(
    path: Path, with_store: Run
) -> None:
    moved = path.with_name("moved")

    async def test(store: Store) -> None:
        await store.labelsets.write("old", b"1", None, MOST)
        path.rename(moved)
        assert await store.labelsets.get("old") is None

    with_store(at(path), test)
    path.with_name("file-wal.orphan").rename(path.with_name("moved-wal"))
    assert stored(moved) == {"old": b"1"}


def test_another_database_in_its_place_is_used(path: Path, with_store: Run) -> None:
    async def fill(store: Store) -> None:
        await store.labelsets.write("theirs", b"2", None, MOST)

    async def test(store: Store) -> None:
        await store.labelsets.write("ours", b"1", None, MOST)
        other.replace(path)
        remove(path, "-wal")
        assert await store.labelsets.get("theirs") == LabelSetRecord("theirs", 1, b"2")
        assert await store.labelsets.get("ours") is None

    other = path.with_name("other")
    with_store(at(other), fill)
    with_store(at(path), test)


def put_garbage(path: Path) -> None:
    other = path.with_name("garbage")
    other.write_bytes(GARBAGE)
    other.replace(path)


def overwrite(path: Path) -> None:
    # not opened here: closing it would let go of the locks that SQLite has in this process
    subprocess.run(["cp", "/dev/stdin", path], input=GARBAGE, check=True)


@pytest.mark.parametrize("damage", [put_garbage, overwrite])
def test_garbage_in_its_place_is_an_outage_until_it_is_gone(
    path: Path, with_store: Run, damage: Callable[[Path], None]
) -> None:
    async def test(store: Store) -> None:
        await store.labelsets.write("old", b"1", None, MOST)
        damage(path)
        for _ in range(2):
            with pytest.raises(StoreAway, match="database"):
                await store.labelsets.write("new", b"2", None, MOST)
            with pytest.raises(StoreAway, match="database"):
                await store.labelsets.get("old")
            with pytest.raises(StoreAway, match="database"):
                await store.ping()
            with pytest.raises(StoreAway, match="database"):
                await store.probe()
        assert path.read_bytes() == GARBAGE
        path.unlink()
        await store.labelsets.write("new", b"2", None, MOST)
        assert stored(path) == {"new": b"2"}

    with_store(at(path), test)


def damage(path: Path, marker: bytes) -> None:
    """Overwrite the head of the page that holds the marker."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    start = path.read_bytes().index(marker) // size * size
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xff" * 100)


def test_a_file_with_a_damaged_page_is_read_where_it_can_be_and_not_written(
    path: Path, with_store: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(store: Store) -> None:
        # each body has a page or more of its own
        for name in "abcdef":
            await store.labelsets.write(name, name.encode() * 9_000, None, MOST)
        damage(path, b"f" * 3_000)
        results = []
        for name in "abcdef":
            with contextlib.suppress(StoreDamaged):
                results.append(await store.labelsets.get(name))
        assert LabelSetRecord("a", 1, b"a" * 9_000) in results
        assert len(results) < 6
        for refused in (
            store.labelsets.write("g", b"1", None, MOST),
            store.labelsets.delete("a", 1),
            store.rates.take("key", 1, 1, 1),
            store.ping(),
        ):
            with pytest.raises(StoreRefused, match="damaged"):
                await refused
        path.rename(path.with_name("aside"))
        assert (await store.labelsets.write("g", b"1", None, MOST)).version == 1
        await store.ping()

    with_store(at(path), test)
    assert stored(path) == {"g": b"1"}
    assert sum("what is known is written anew" in line for line in caplog.messages) == 1


@pytest.mark.parametrize("mask", [0o000, 0o022])
def test_nobody_else_can_read_a_file_that_is_made(path: Path, with_store: Run, mask: int) -> None:
    async def test(store: Store) -> None:
        await store.labelsets.write("a", b"1", None, MOST)
        for ending in ("", "-wal", "-shm"):
            mode = path.with_name(path.name + ending).stat().st_mode
            assert oct(mode & 0o777) == "0o600"

    before = os.umask(mask)
    try:
        with_store(at(path), test)
    finally:
        os.umask(before)


def test_calls_under_way_while_it_is_deleted_end_well(path: Path, with_store: Run) -> None:
    """None of them takes the index of one file for that of another."""

    async def test(store: Store) -> None:
        async def call(number: int) -> None:
            await store.labelsets.touch(f"{number % 7}", 1.0)
            await store.labelsets.get(f"{number % 7}")
            await store.rates.take(f"{number % 5}", 1, 1e6, 100)

        for round_ in range(20):
            calls = [asyncio.create_task(call(number)) for number in range(30)]
            await asyncio.sleep(0.002)
            remove(path, "", *(["-wal", "-shm"] if round_ % 2 else []))
            for result in await asyncio.gather(*calls, return_exceptions=True):
                assert result is None or isinstance(result, StoreAway), result
            await store.ping()

    with_store(at(path), test)


OTHER = """
import asyncio, sys
from pathlib import Path
from app.stores.sqlite.store import SqliteStore

async def main(path):
    store = SqliteStore(Path(path), 10.0, 3600, 1 << 30, patience=5)
    await store.open()
    await store.labelsets.write("before", b"", None, 1000)
    await store.rates.take("key", 1, 1, 1)
    print("ready", flush=True)
    for line in sys.stdin:  # each line: a name to write, after having sat idle
        name = line.strip()
        await store.labelsets.write(name, name.encode(), None, 1000)
        print([one.name for one in await store.labelsets.page("", "\\U0010ffff", 100)], flush=True)
    await store.close()

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("endings", [("",), ("", "-wal", "-shm")])
def test_two_processes_meet_again_in_the_new_file(
    path: Path, with_store: Run, endings: tuple[str, ...]
) -> None:
    command = [sys.executable, "-c", OTHER, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        stdin, stdout = process.stdin, process.stdout

        def ask(name: str) -> str:
            print(name, file=stdin, flush=True)
            return stdout.readline().strip()

        async def test(store: Store) -> None:
            assert await store.labelsets.head("before") is not None
            for number in range(3):
                remove(path, *endings)
                # the other one has the old file open, and its index
                await store.labelsets.write("ours", b"1", None, MOST)
                assert ask("theirs") == "['ours', 'theirs']"
                names = [record.name for record in await store.labelsets.page("", END, 100)]
                assert names == ["ours", "theirs"]
                assert stored(path).keys() == {"ours", "theirs"}, number

        with_store(at(path), test)
        stdin.close()
        assert process.wait(120) == 0
    assert stored(path).keys() == {"ours", "theirs"}


def test_handles_of_files_that_are_gone_are_let_go(path: Path, with_store: Run) -> None:
    def handles() -> int:
        """Of this store, whatever else closes files in this process meanwhile."""
        count = 0
        for handle in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                count += str(handle.readlink()).startswith(str(path))
        return count

    async def test(store: Store) -> None:
        await store.labelsets.write("a", b"", None, MOST)
        await store.labelsets.get("a")
        before = handles()
        for _ in range(5):
            remove(path, "", "-wal", "-shm")
            await store.labelsets.write("a", b"", None, MOST)
            await store.labelsets.get("a")
        assert handles() == before

    with_store(at(path), test)
