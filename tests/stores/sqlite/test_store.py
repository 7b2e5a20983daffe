"""The embedded store: files old, new and broken, other processes, bounds."""

import asyncio
import os
import secrets
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from app.stores.protocols import (
    Head,
    LabelSetRecord,
    Store,
    StoreAway,
    StoreUnusable,
    VersionConflict,
)
from app.stores.sqlite import schema
from app.stores.sqlite.store import SqliteStore

PLENTY = 1_000_000
MOST = 1000
END = "\U0010ffff"  # after every name
Run = Callable[[Store, Callable[[Store], Awaitable[None]]], None]


def at(path: Path, timeout: float = 10.0, **options) -> SqliteStore:
    options = {"vector_ttl": 3600, "vector_bytes": 1 << 30, **options}
    return SqliteStore(path, timeout, **options)


def refusal(path: Path) -> str:
    """The text with which a store at this path refuses to open."""

    async def test() -> str:
        store = at(path)
        with pytest.raises(StoreUnusable) as raised:
            await store.open()
        with pytest.raises(StoreAway):
            await store.labelsets.get("pets")
        await store.close()
        return str(raised.value)

    text = asyncio.run(test())
    assert str(path) in text
    assert "\n" not in text
    return text


def query(path: Path, sql: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def test_what_is_stored_is_there_for_the_next_store(tmp_path: Path, with_store: Run) -> None:
    async def fill(store: Store) -> None:
        await store.labelsets.write("pets", b"body", None, MOST)
        await store.vectors.put_many({"a": b"1"})

    async def test(store: Store) -> None:
        assert await store.labelsets.get("pets") == LabelSetRecord("pets", 1, b"body")
        assert list(await store.vectors.get_many(["a"])) == [b"1"]

    with_store(at(tmp_path / "file"), fill)
    with_store(at(tmp_path / "file"), test)


def test_a_new_file_has_the_newest_schema_and_a_write_ahead_log(tmp_path: Path) -> None:
    async def test() -> None:
        store = at(tmp_path / "file")
        await store.open()
        await store.close()

    asyncio.run(test())
    assert query(tmp_path / "file", "PRAGMA user_version") == [(len(schema.MIGRATIONS),)]
    assert query(tmp_path / "file", "PRAGMA journal_mode") == [("wal",)]


def test_definitions_wait_for_the_disk_also_after_vectors(
    tmp_path: Path, with_store: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels: list[int] = []
    transaction = schema.transaction

    def noting(connection: sqlite3.Connection):
        levels.append(connection.execute("PRAGMA synchronous").fetchone()[0])
        return transaction(connection)

    async def test(store: Store) -> None:
        monkeypatch.setattr("app.stores.sqlite.store.transaction", noting)
        await store.vectors.put_many({"a": b"1"})
        await store.labelsets.write("pets", b"", None, MOST)
        await store.labelsets.touch("pets", 1.0)
        await store.labelsets.delete("pets", 1)
        await store.pictures.put("pets", "0", b"1", MOST)

    with_store(at(tmp_path / "file"), test)
    normal, full = 1, 2
    assert levels == [normal, full, normal, full, full]


def test_nothing_of_a_deleted_picture_is_left_on_the_disk(tmp_path: Path, with_store: Run) -> None:
    picture = b"a face, " * 10_000

    def found() -> bool:
        return any(picture[:64] in file.read_bytes() for file in tmp_path.iterdir())

    async def test(store: Store) -> None:
        await store.pictures.put("pets", "0", picture, PLENTY)
        await store.pictures.put("pets", "1", b"another", PLENTY)
        assert found()
        await store.pictures.delete("pets", ["0"])
        assert not found()
        assert await store.pictures.get("pets", "1", 7) == b"another"

    with_store(at(tmp_path / "file"), test)


def test_an_empty_file_is_made_a_store(tmp_path: Path, with_store: Run) -> None:
    (tmp_path / "file").touch()

    async def test(store: Store) -> None:
        await store.labelsets.write("pets", b"", None, MOST)

    with_store(at(tmp_path / "file"), test)


def test_an_older_file_is_migrated_in_order_and_keeps_its_data(
    tmp_path: Path, with_store: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fill(store: Store) -> None:
        await store.labelsets.write("pets", b"body", None, MOST)

    async def test(store: Store) -> None:
        assert await store.labelsets.get("pets") == LabelSetRecord("pets", 1, b"body")

    path, released = tmp_path / "file", len(schema.MIGRATIONS)
    with_store(at(path), fill)
    later = [("CREATE TABLE extra (x)",), ("ALTER TABLE extra RENAME TO renamed",)]
    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, *later])
    with_store(at(path), test)
    with_store(at(path), test)
    assert query(path, "PRAGMA user_version") == [(released + 2,)]
    assert query(path, "SELECT * FROM renamed") == []


def test_a_file_of_each_released_version_is_opened_and_keeps_its_data(
    tmp_path: Path, with_store: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for released in range(1, len(schema.MIGRATIONS)):
        path = tmp_path / f"version {released}"
        with monkeypatch.context() as older, closing(sqlite3.connect(path)) as connection:
            older.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:released])
            schema.migrate(connection, schema.MIGRATIONS)
            connection.execute("INSERT INTO labelsets VALUES ('pets', 3, ?, 0)", (b"body",))
            connection.commit()

        async def test(store: Store) -> None:
            assert await store.labelsets.get("pets") == LabelSetRecord("pets", 3, b"body")
            assert (await store.rates.take("key", 1, 1, 1)).granted == 1

        with_store(at(path), test)


def test_a_migration_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, with_store: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(store: Store) -> None:
        pass

    path, released = tmp_path / "file", len(schema.MIGRATIONS)
    with_store(at(path), nothing)
    later = [("CREATE TABLE extra (x)",), ("not SQL",)]
    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, *later])

    async def test() -> None:
        store = at(path)
        with pytest.raises(StoreAway, match="syntax error"):
            await store.open()
        await store.close()

    asyncio.run(test())
    assert query(path, "PRAGMA user_version") == [(released,)]
    assert query(path, "SELECT name FROM sqlite_master WHERE name = 'extra'") == []


def test_a_newer_file_is_refused_naming_both_versions_and_left_alone(tmp_path: Path) -> None:
    path, newer = tmp_path / "file", len(schema.MIGRATIONS) + 5
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {newer}")
    text = refusal(path)
    assert f"version {newer} " in text
    assert f"up to {len(schema.MIGRATIONS)}:" in text
    assert query(path, "SELECT name FROM sqlite_master") == []


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    content = b"this is no database " * 500
    (tmp_path / "file").write_bytes(content)
    assert "not a database" in refusal(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == content


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    refusal(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "folder cannot be created" in refusal(tmp_path / "file" / "store")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    folder = tmp_path
    if os.geteuid() == 0:
        folder = Path("/proc/self")  # no permission keeps the superuser from writing elsewhere
    else:
        folder.chmod(0o500)
    try:
        refusal(folder / "store")
    finally:
        tmp_path.chmod(0o700)


def test_damage_found_later_is_an_outage_and_not_a_crash(tmp_path: Path, with_store: Run) -> None:
    path = tmp_path / "file"

    async def fill(store: Store) -> None:
        await store.labelsets.write("pets", b"x" * 100_000, None, MOST)

    async def test(store: Store) -> None:
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 50_000)
        with pytest.raises(StoreAway):
            await store.labelsets.page("", END, 10)

    with_store(at(path), fill)
    with_store(at(path), test)


def hold(path: Path) -> sqlite3.Connection:
    """A connection that holds the lock for writing, as another process would."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return connection


def test_a_locked_file_is_away_soon_and_back_without_a_new_store(
    tmp_path: Path, with_store: Run
) -> None:
    async def test(store: Store) -> None:
        loop = asyncio.get_running_loop()
        with closing(hold(tmp_path / "file")) as other:
            start = loop.time()
            writing = asyncio.create_task(store.labelsets.write("pets", b"", None, MOST))
            await asyncio.sleep(0.05)
            assert await store.labelsets.head("pets") is None
            assert not writing.done()  # the reader did not wait behind the writer
            with pytest.raises(StoreAway, match="locked"):
                await writing
            assert loop.time() - start < 60
            with pytest.raises(StoreAway, match="locked"):
                await store.vectors.put_many({"a": b"1"})
            assert await store.labelsets.get("pets") is None  # readers do not wait for writers
            other.execute("ROLLBACK")
        assert (await store.labelsets.write("pets", b"", None, MOST)).version == 1
        await store.vectors.put_many({"a": b"1"})

    with_store(at(tmp_path / "file", timeout=2, patience=3), test)


def test_a_file_locked_at_the_start_is_opened_with_a_later_call(tmp_path: Path) -> None:
    async def test() -> None:
        store = at(tmp_path / "file", timeout=2, patience=1)
        with closing(hold(tmp_path / "file")) as other:
            with pytest.raises(StoreAway, match="locked"):
                await store.open()
            with pytest.raises(StoreAway, match="locked"):
                await store.ping()
            other.execute("ROLLBACK")
        await store.ping()
        assert (await store.labelsets.write("pets", b"", None, MOST)).version == 1
        await store.close()

    asyncio.run(test())


def test_a_full_disk_is_an_outage_that_passes(tmp_path: Path, with_store: Run) -> None:
    async def test(store: SqliteStore) -> None:
        await store.labelsets.write("pets", b"body", None, MOST)
        pages = await store._writes.run(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
        await store._writes.run(lambda c: c.execute(f"PRAGMA max_page_count = {pages}"))
        with pytest.raises(StoreAway, match="full"):
            await store.labelsets.write("large", b"x" * 1_000_000, None, MOST)
        assert await store.labelsets.get("pets") == LabelSetRecord("pets", 1, b"body")
        # the connection was opened anew, without the limit
        assert (await store.labelsets.write("large", b"x" * 1_000_000, None, MOST)).version == 1

    with_store(at(tmp_path / "file"), test)


def test_a_closed_store_is_away(tmp_path: Path) -> None:
    async def test() -> None:
        store = at(tmp_path / "file")
        await store.open()
        await store.close()
        with pytest.raises(StoreAway, match="closed"):
            await store.ping()
        await store.close()

    asyncio.run(test())


def test_a_cancelled_call_does_not_harm_the_next(tmp_path: Path, with_store: Run) -> None:
    async def test(store: Store) -> None:
        for number in range(20):
            call = asyncio.create_task(store.labelsets.write(f"{number}", b"", None, MOST))
            await asyncio.sleep(0)
            call.cancel()
        assert (await store.labelsets.write("pets", b"", None, MOST)).version == 1

    with_store(at(tmp_path / "file"), test)


def test_full_buckets_are_forgotten_and_others_are_not(tmp_path: Path, with_store: Run) -> None:
    path, clock = tmp_path / "file", Clock()

    async def test(store: Store) -> None:
        for number in range(1_200):
            await store.rates.take(f"stale {number}", 1, 10, 1)
        await store.rates.take("used", 1, 0.001, 1)
        clock.now += 60
        for number in range(600):
            await store.rates.take(f"new {number}", 1, 0.001, 1)
        assert (await store.rates.take("used", 1, 0.001, 1)).granted == 0

    with_store(at(path, clock=clock), test)
    kinds = dict(query(path, "SELECT substr(key, 1, 3), count(*) FROM rates GROUP BY 1"))
    assert (kinds["new"], kinds["use"]) == (600, 1)
    assert kinds.get("sta", 0) <= 200


def test_a_damaged_bucket_is_one_that_is_full(tmp_path: Path, with_store: Run) -> None:
    path = tmp_path / "file"

    async def test(store: Store) -> None:
        for value in ("'text'", "x'00ff'", "9e999", "-9e999"):
            await store.rates.take("key", 3, 1, 3)
            subprocess.run(
                [sys.executable, "-c", CHANGE, path, f"UPDATE rates SET full_at = {value}"],
                check=True,
            )
            assert (await store.rates.take("key", 1, 0.001, 3)).wait <= 1000

    with_store(at(path), test)


# in another process: here, to close the file would let go of the locks of the store
CHANGE = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as connection:
    connection.execute(sys.argv[2])
"""

OTHER = """
import asyncio, sys
from pathlib import Path
from app.stores.protocols import VersionConflict
from app.stores.sqlite.store import SqliteStore

async def main(path, mine):
    store = SqliteStore(Path(path), 10.0, 3600, 1 << 30)
    await store.open()
    await store.labelsets.write(mine, mine.encode(), None, 1000)
    await store.vectors.put_many({mine: mine.encode()})
    done = 0
    granted = sum([(await store.rates.take("key", 2, 0.001, 41)).granted for _ in range(30)])
    print(granted)
    while done < 25:
        record = await store.labelsets.get("shared")
        try:
            if record is None:
                await store.labelsets.write("shared", b"1", None, 1000)
            else:
                body = str(int(record.body) + 1).encode()
                await store.labelsets.write("shared", body, record.version, 1000)
            done += 1
        except VersionConflict:
            pass
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""


def test_processes_that_create_one_file_at_once_see_each_other(
    tmp_path: Path, with_store: Run
) -> None:
    path, names = tmp_path / "new" / "file", ["one", "two", "three", "four"]
    processes = [
        subprocess.Popen([sys.executable, "-c", OTHER, path, name], stdout=subprocess.PIPE)
        for name in names
    ]
    granted = [int(process.communicate(timeout=300)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert sum(granted) == 41  # of one bucket

    async def test(store: Store) -> None:
        records = await store.labelsets.page("", END, 10)
        assert [record.name for record in records] == sorted([*names, "shared"])
        # 25 increments by each, none lost
        assert await store.labelsets.get("shared") == LabelSetRecord("shared", 100, b"100")
        assert list(await store.vectors.get_many(names)) == [name.encode() for name in names]

    with_store(at(path), test)


def test_a_change_by_one_store_is_seen_by_the_other_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        first, second = at(tmp_path / "file"), at(tmp_path / "file")
        await first.open()
        await second.open()
        for version in range(1, 20):
            await first.labelsets.write("pets", b"", version - 1 or None, MOST)
            head = await second.labelsets.head("pets")
            assert head is not None
            assert head.version == version
        with pytest.raises(VersionConflict):
            await second.labelsets.write("pets", b"", 3, MOST)
        await first.close()
        await second.close()

    asyncio.run(test())


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def sizes(path: Path) -> tuple[int, int]:
    """Bytes of all vectors: as counted by the store, and added up."""
    ((total,),) = query(path, "SELECT bytes FROM vector_total")
    ((summed,),) = query(path, "SELECT coalesce(sum(length(value)), 0) FROM vectors")
    return total, summed


def test_vectors_are_bounded_in_bytes_and_the_soonest_to_expire_go_first(
    tmp_path: Path, with_store: Run
) -> None:
    path, clock = tmp_path / "file", Clock()

    async def test(store: Store) -> None:
        for key in "abc":
            clock.now += 1
            await store.vectors.put_many({key: b"x" * 100})
        clock.now += 1
        await store.vectors.put_many({"a": b"y" * 100})  # no more the soonest to expire
        await store.vectors.put_many({"d": b"x" * 100})
        rows = await store.vectors.get_many(list("abcd"))
        assert [value is not None for value in rows] == [True, False, True, True]
        assert sizes(path) == (300, 300)
        await store.vectors.put_many({"e": b"x" * 301})  # does not fit alone, pushes nothing out
        assert sizes(path) == (300, 300)
        await store.vectors.put_many({str(n): b"x" * 10 for n in range(1000)})
        assert sizes(path) == (300, 300)

    with_store(at(path, vector_bytes=300, clock=clock), test)


def test_no_bytes_keep_no_vectors(tmp_path: Path, with_store: Run) -> None:
    async def test(store: Store) -> None:
        await store.vectors.put_many({"a": b"1"})
        assert list(await store.vectors.get_many(["a"])) == [None]

    with_store(at(tmp_path / "file", vector_bytes=0), test)


def test_expired_vectors_are_not_given_and_make_room(tmp_path: Path, with_store: Run) -> None:
    path, clock = tmp_path / "file", Clock()

    async def test(store: Store) -> None:
        await store.vectors.put_many({str(n): b"x" * 10 for n in range(100)})
        assert sizes(path) == (1000, 1000)
        clock.now += 60
        assert list(await store.vectors.get_many(["1"])) == [None]
        await store.vectors.put_many({"new": b"x"})
        assert sizes(path) == (1, 1)

    with_store(at(path, vector_ttl=60, clock=clock), test)


def test_values_that_others_wrote_are_a_definition_that_can_be_replaced(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "file"
        store = SqliteStore(path, 10, 3600, 1 << 20)
        await store.open()
        for name in ("a", "text", "version", "z"):
            await store.labelsets.write(name, b"body", None, 10)
        with sqlite3.connect(path) as other:
            other.execute("UPDATE labelsets SET body = 'text' WHERE name = 'text'")
            other.execute("UPDATE labelsets SET version = 'abc' WHERE name = 'version'")
        other.close()
        sets = store.labelsets
        for name in ("text", "version"):
            assert await sets.get(name) == LabelSetRecord(name, 0, b"")
            assert await sets.head(name) == Head(0, deleted=False)
        page = await sets.page("", "~", 10)
        assert [record.name for record in page] == ["a", "text", "version", "z"]
        assert len(await sets.recent()) == 4
        assert (await sets.write("text", b"good", 0, 10, least=7)).version == 7
        await sets.delete("version", 0)
        assert await sets.get("version") is None
        await store.close()

    asyncio.run(test())


def test_a_reader_of_the_file_keeps_nobody_waiting_and_the_log_is_emptied_later(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        path = tmp_path / "file"
        store = SqliteStore(path, 60, 3600, 1 << 20)
        await store.open()
        secret = secrets.token_bytes(5_000)
        await store.pictures.put("pets", "a", secret, 1 << 20)
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM pictures").fetchone()
        start = time.monotonic()
        await store.pictures.delete("pets", ["a"])
        await store.labelsets.write("pets", b"", None, 10)
        assert time.monotonic() - start < 30  # its patience is a minute
        log = path.with_name("file-wal")
        assert secret[:100] in log.read_bytes()
        reader.execute("COMMIT")
        reader.close()
        await store.pictures.listed()  # as a sweep does
        assert log.stat().st_size == 0
        assert secret[:100] not in path.read_bytes()
        await store.close()

    asyncio.run(test())
