"""What every store promises, against memory, a SQLite file and a real Redis server."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from app.stores import vectors
from app.stores.gcra import Grant
from app.stores.protocols import (
    CHUNK,
    TOMBSTONES,
    Head,
    LabelSetRecord,
    PicturesFull,
    Quota,
    Store,
    StoreFull,
    VersionConflict,
)

MOST = 1000
END = "\U0010ffff"  # after every name
Run = Callable[[Store, Callable[[Store], Awaitable[None]]], None]
NAMES = [
    "pets",
    "Ünïcode",
    "猫と犬",
    "🐈",
    "a b/c:d*?[x]{y}",
    "e\u0301",
    "é",
    "0",
    "'; DROP TABLE x",
]


def test_a_written_record_is_read_back(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        sets = store.labelsets
        assert await sets.get("pets") is None
        assert await sets.head("pets") is None
        assert await sets.write("pets", b"body", None, MOST) == LabelSetRecord("pets", 1, b"body")
        assert await sets.get("pets") == LabelSetRecord("pets", 1, b"body")
        assert await sets.head("pets") == Head(1, deleted=False)

    with_store(make_store(), test)


def test_a_replacement_has_the_next_version(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        sets = store.labelsets
        await sets.write("pets", b"old", None, MOST)
        assert await sets.write("pets", b"new", 1, MOST) == LabelSetRecord("pets", 2, b"new")
        assert await sets.get("pets") == LabelSetRecord("pets", 2, b"new")

    with_store(make_store(), test)


def test_a_write_at_another_version_is_a_conflict_that_names_the_current(
    make_store, with_store: Run
) -> None:
    async def test(store: Store) -> None:
        sets = store.labelsets
        for expected in (1, 7):
            with pytest.raises(VersionConflict) as raised:
                await sets.write("pets", b"", expected, MOST)
            assert raised.value.current is None
        await sets.write("pets", b"first", None, MOST)
        for expected in (None, 0, 2):
            with pytest.raises(VersionConflict) as raised:
                await sets.write("pets", b"other", expected, MOST)
            assert raised.value.current == 1
        assert await sets.get("pets") == LabelSetRecord("pets", 1, b"first")

    with_store(make_store(), test)


def test_a_deleted_name_is_gone_and_leaves_a_tombstone(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        sets = store.labelsets
        await sets.write("pets", b"body", None, MOST)
        await sets.delete("pets", 1)
        assert await sets.get("pets") is None
        assert await sets.head("pets") == Head(2, deleted=True)
        assert await sets.page("", END, 10) == []
        assert list(await sets.recent()) == []

    with_store(make_store(), test)


def test_only_what_exists_at_the_expected_version_is_deleted(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        sets = store.labelsets
        with pytest.raises(VersionConflict) as raised:
            await sets.delete("pets", 1)
        assert raised.value.current is None
        await sets.write("pets", b"body", None, MOST)
        with pytest.raises(VersionConflict) as raised:
            await sets.delete("pets", 2)
        assert raised.value.current == 1
        await sets.delete("pets", 1)
        for expected in (1, 2):
            with pytest.raises(VersionConflict) as raised:
                await sets.delete("pets", expected)
            assert raised.value.current is None

    with_store(make_store(), test)


def test_versions_grow_across_delete_and_recreate(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        sets = store.labelsets
        await sets.write("pets", b"1", None, MOST)
        await sets.write("pets", b"2", 1, MOST)
        await sets.delete("pets", 2)
        with pytest.raises(VersionConflict) as raised:
            await sets.write("pets", b"", 3, MOST)
        assert raised.value.current is None
        assert (await sets.write("pets", b"4", None, MOST)).version == 4
        assert await sets.get("pets") == LabelSetRecord("pets", 4, b"4")
        assert await sets.head("pets") == Head(4, deleted=False)
        await sets.delete("pets", 4, least=1000)
        assert await sets.head("pets") == Head(1000, deleted=True)

    with_store(make_store(), test)


def test_versions_beyond_ten_stay_whole_numbers(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        expected = None
        for version in range(1, 13):
            expected = (await store.labelsets.write("pets", b"", expected, MOST)).version
            assert expected == version
        await store.labelsets.restore(LabelSetRecord("old", 10**14, b""))
        assert (await store.labelsets.write("old", b"", 10**14, MOST)).version == 10**14 + 1

    with_store(make_store(), test)


def test_deleted_names_leave_a_bounded_number_of_tombstones_and_still_never_come_back(
    make_store, with_store: Run
) -> None:
    async def test(store: Store) -> None:
        sets = store.labelsets
        extra = 5
        await sets.write("kept", b"body", None, MOST)
        for number in range(TOMBSTONES + extra):
            name = f"{number:05}"
            record = await sets.write(name, b"body", None, MOST, least=1000 + number)
            await sets.delete(name, record.version)
        # the oldest went, and it is known how new they were
        heads = [await sets.head(f"{number:05}") for number in range(TOMBSTONES + extra)]
        assert heads[:extra] == [None] * extra
        assert all(head is not None and head.deleted for head in heads[extra:])
        assert not await sets.restore(
            LabelSetRecord("00000", 1000, b"of somebody who has not heard")
        )
        assert await sets.get("00000") is None
        # what is newer was lost, and comes back
        assert await sets.restore(LabelSetRecord("lost", 5000, b"lost"))
        # a version never comes back
        assert (await sets.write("00001", b"", None, MOST)).version > 1002
        assert await sets.get("kept") == LabelSetRecord("kept", 1, b"body")
        assert {record.name for record in await sets.page("", END, 10)} == {"00001", "kept", "lost"}

    with_store(make_store(), test)


def test_pictures_that_are_missing_are_told(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        await store.pictures.put("pets", "a", b"picture", 1000)
        await store.pictures.put("other", "b", b"picture", 1000)
        keys = ["b", "a", *(f"{number}" for number in range(2 * CHUNK))]
        assert list(await store.pictures.missing("pets", keys)) == ["b", *keys[2:]]
        assert list(await store.pictures.missing("pets", [])) == []

    with_store(make_store(), test)


def test_amend_changes_the_body_and_not_the_version(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        sets = store.labelsets
        assert not await sets.amend("pets", 1, b"x")
        await sets.write("pets", b"body", None, MOST)
        assert await sets.amend("pets", 1, b"amended")
        assert await sets.get("pets") == LabelSetRecord("pets", 1, b"amended")
        assert not await sets.amend("pets", 2, b"x")
        assert await sets.get("pets") == LabelSetRecord("pets", 1, b"amended")
        await sets.delete("pets", 1)
        for version in (1, 2):
            assert not await sets.amend("pets", version, b"x")
        assert await sets.get("pets") is None

    with_store(make_store(), test)


def test_a_lost_record_is_restored_at_its_version(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        sets = store.labelsets
        assert await sets.restore(LabelSetRecord("pets", 7, b"body"))
        assert await sets.get("pets") == LabelSetRecord("pets", 7, b"body")
        assert [record.name for record in await sets.page("", END, 10)] == ["pets"]
        assert list(await sets.recent()) == ["pets"]
        assert (await sets.write("pets", b"next", 7, MOST)).version == 8

    with_store(make_store(), test)


def test_neither_a_known_name_nor_a_tombstone_is_restored_over(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        sets = store.labelsets
        await sets.write("pets", b"body", None, MOST)
        assert not await sets.restore(LabelSetRecord("pets", 9, b"other"))
        assert await sets.get("pets") == LabelSetRecord("pets", 1, b"body")
        await sets.delete("pets", 1)
        assert not await sets.restore(LabelSetRecord("pets", 9, b"other"))
        assert await sets.head("pets") == Head(2, deleted=True)

    with_store(make_store(), test)


def test_the_limit_counts_names_that_exist(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        sets = store.labelsets
        for name in "abc":
            await sets.write(name, b"", None, 3)
        with pytest.raises(StoreFull) as raised:
            await sets.write("d", b"", None, 3)
        assert raised.value.limit == 3
        assert await sets.head("d") is None
        await sets.write("a", b"replaced", 1, 3)
        await sets.delete("b", 1)
        await sets.write("d", b"", None, 3)
        with pytest.raises(StoreFull):
            await sets.write("b", b"", None, 3)
        with pytest.raises(VersionConflict):
            await sets.write("a", b"", None, 3)

    with_store(make_store(), test)


def test_concurrent_writers_never_pass_the_limit(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        async def write(number: int) -> bool:
            try:
                await store.labelsets.write(f"set {number}", b"", None, 10)
            except StoreFull:
                return False
            return True

        results = await asyncio.gather(*(write(number) for number in range(50)))
        assert sum(results) == 10
        assert len(await store.labelsets.page("", END, 100)) == 10

    with_store(make_store(), test)


def test_one_of_many_concurrent_writers_of_a_version_wins(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        async def write(number: int) -> int | None:
            try:
                await store.labelsets.write("pets", str(number).encode(), 1, MOST)
            except VersionConflict as conflict:
                currents.add(conflict.current)
                return None
            return number

        currents: set[int | None] = set()
        await store.labelsets.write("pets", b"", None, MOST)
        results = await asyncio.gather(*(write(number) for number in range(30)))
        assert currents == {2}
        (winner,) = [number for number in results if number is not None]
        assert await store.labelsets.get("pets") == LabelSetRecord("pets", 2, str(winner).encode())

    with_store(make_store(), test)


def test_a_quota_counts_the_names_between_its_bounds_alone(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        sets, quota = store.labelsets, Quota("~a/", "~a0", 2)
        for name in ("a", "~", "~a", "~a-b/x", "~a0", "~b/x"):  # neighbours of the bounds
            await sets.write(name, b"", None, MOST)
        for name in ("~a/x", "~a/y"):
            await sets.write(name, b"", None, MOST, 1, quota)
        with pytest.raises(StoreFull) as raised:
            await sets.write("~a/z", b"", None, MOST, 1, quota)
        assert (raised.value.limit, raised.value.own) == (2, True)
        assert await sets.head("~a/z") is None
        await sets.write("~a/x", b"replaced", 1, MOST, 1, quota)
        await sets.delete("~a/y", 1)
        await sets.write("~a/z", b"", None, MOST, 1, quota)
        # the limit of all is one of its own, and is told apart
        with pytest.raises(StoreFull) as raised:
            await sets.write("~a/w", b"", None, 8, 1, Quota("~a/", "~a0", 3))
        assert (raised.value.limit, raised.value.own) == (8, False)
        await sets.write("~c/x", b"", None, MOST, 1, Quota("~c/", "~c0", 1))

    with_store(make_store(), test)


def test_concurrent_writers_never_pass_a_quota(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        async def write(number: int) -> bool:
            quota = Quota("~a/", "~a0", 5)
            try:
                await store.labelsets.write(f"~a/{number}", b"", None, MOST, 1, quota)
            except StoreFull:
                return False
            return True

        assert sum(await asyncio.gather(*(write(number) for number in range(30)))) == 5

    with_store(make_store(), test)


def test_names_and_bodies_are_kept_to_the_byte(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        sets = store.labelsets
        bodies = [b"", b"\x00\xff\r\n", "猫🐈".encode(), b"$5\r\nhello\r\n"]
        for number, name in enumerate(NAMES):
            body = bodies[number % len(bodies)]
            await sets.write(name, body, None, MOST)
            assert await sets.get(name) == LabelSetRecord(name, 1, body)
        assert [record.name for record in await sets.page("", END, 100)] == sorted(NAMES)
        assert sorted(await sets.recent()) == sorted(NAMES)
        for name in NAMES:
            await sets.delete(name, 1)
        assert await sets.page("", END, 100) == []

    with_store(make_store(), test)


def test_pages_follow_one_another_without_gap_or_repetition(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        sets = store.labelsets
        names = sorted([*NAMES, *(f"set {number:03}" for number in range(20)), "set", "set 0"])
        for name in reversed(names):
            await sets.write(name, name.encode(), None, MOST)
        for limit in (1, 7, len(names), len(names) + 1):
            records: list[LabelSetRecord] = []
            while page := await sets.page(records[-1].name if records else "", END, limit):
                assert len(page) == min(limit, len(names) - len(records))
                records += page
            assert records == [LabelSetRecord(name, 1, name.encode()) for name in names]
        assert [record.name for record in await sets.page("set 0", END, 2)] == [
            "set 000",
            "set 001",
        ]
        assert [record.name for record in await sets.page("set 00", END, 1)] == ["set 000"]
        assert await sets.page(names[-1], END, 5) == []

    with_store(make_store(), test)


def test_a_page_ends_before_its_upper_bound(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        names = ["0", "z", "~", "~a", "~a-b/1", "~a/", "~a/1", "~a/2", "~a0", "~a0/1", "猫"]
        for name in names:
            await store.labelsets.write(name, b"", None, MOST)

        async def between(after: str, before: str, limit: int = 100) -> list[str]:
            return [record.name for record in await store.labelsets.page(after, before, limit)]

        assert await between("", END) == names
        assert await between("", "~") == ["0", "z"]
        assert await between("~a/", "~a0") == ["~a/1", "~a/2"]
        assert await between("~a/", "~a0", 1) == ["~a/1"]
        assert await between("~a/1", "~a0") == ["~a/2"]
        assert await between("~a/2", "~a0") == await between("z", "a") == []

    with_store(make_store(), test)


def test_more_names_than_a_chunk_are_listed(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        names = [f"{number:04}" for number in range(CHUNK + 10)]
        await asyncio.gather(*(store.labelsets.write(n, b"", None, MOST) for n in names))
        assert [record.name for record in await store.labelsets.page("", END, MOST)] == names
        assert sorted(await store.labelsets.recent()) == names

    with_store(make_store(), test)


def test_the_most_recently_touched_or_written_comes_first(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        sets = store.labelsets
        start = time.time()
        for name in "abcd":
            await sets.write(name, b"", None, MOST)
            await asyncio.sleep(0.002)
        assert list(await sets.recent()) == ["d", "c", "b", "a"]
        await sets.touch("b", time.time())
        assert list(await sets.recent()) == ["b", "d", "c", "a"]
        await asyncio.sleep(0.002)
        await sets.write("a", b"again", 1, MOST)
        assert list(await sets.recent()) == ["a", "b", "d", "c"]
        await sets.amend("c", 1, b"")
        assert list(await sets.recent()) == ["a", "b", "d", "c"]
        await sets.touch("a", start - 100)  # news of an older use
        assert list(await sets.recent()) == ["a", "b", "d", "c"]
        await sets.touch("c", start + 100.25)
        await sets.touch("d", start + 100.5)
        assert list(await sets.recent()) == ["d", "c", "a", "b"]

    with_store(make_store(), test)


def test_touching_what_does_not_exist_does_nothing(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        sets = store.labelsets
        await sets.touch("nothing", time.time())
        assert await sets.head("nothing") is None
        await sets.write("gone", b"", None, MOST)
        await sets.delete("gone", 1)
        await sets.touch("gone", time.time())
        assert await sets.head("gone") == Head(2, deleted=True)
        assert list(await sets.recent()) == []
        assert await sets.page("", END, 10) == []

    with_store(make_store(), test)


def test_a_large_body_is_kept(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        body = np.random.default_rng(0).bytes(5_000_000)
        await store.labelsets.write("large", body, None, MOST)
        assert await store.labelsets.get("large") == LabelSetRecord("large", 1, body)
        assert await store.labelsets.page("", END, 1) == [LabelSetRecord("large", 1, body)]
        assert await store.labelsets.amend("large", 1, body[::-1])
        assert await store.labelsets.get("large") == LabelSetRecord("large", 1, body[::-1])

    with_store(make_store(), test)


def test_vectors_come_back_in_the_order_asked_for(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        await store.vectors.put_many({"a": b"1", "b": b"\x00\r\n", "ü": b"3"})
        keys = ["ü", "missing", "a", "b", "a"]
        assert list(await store.vectors.get_many(keys)) == [b"3", None, b"1", b"\x00\r\n", b"1"]
        await store.vectors.put_many({"a": b"other"})
        assert list(await store.vectors.get_many(["a", "b"])) == [b"other", b"\x00\r\n"]

    with_store(make_store(), test)


def test_nothing_asked_is_nothing_answered(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        await store.vectors.put_many({})
        assert list(await store.vectors.get_many([])) == []

    with_store(make_store(), test)


def test_ten_thousand_vectors_are_kept(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        rows = np.random.default_rng(0).normal(size=(10_000, 128)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        entries = {f"key {number}": vectors.encode(row) for number, row in enumerate(rows)}
        await store.vectors.put_many(entries)
        values = await store.vectors.get_many(list(entries))
        assert list(values) == list(entries.values())

    with_store(make_store(), test)


def test_vectors_expire_and_definitions_and_pictures_do_not(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        await store.labelsets.write("pets", b"body", None, MOST)
        await store.labelsets.write("gone", b"body", None, MOST)
        await store.labelsets.delete("gone", 1)
        await store.pictures.put("pets", "0", b"picture", MOST)
        await store.vectors.put_many({"a": b"1", "b": b"2"})
        assert list(await store.vectors.get_many(["a", "b"])) == [b"1", b"2"]
        while list(await store.vectors.get_many(["a"])) == [b"1"]:
            await asyncio.sleep(0.1)
            await store.vectors.put_many({"b": b"3"})
        assert list(await store.vectors.get_many(["a", "b"])) == [None, b"3"]
        assert await store.labelsets.get("pets") == LabelSetRecord("pets", 1, b"body")
        assert await store.labelsets.head("gone") == Head(2, deleted=True)
        assert await store.pictures.get("pets", "0", 7) == b"picture"

    with_store(make_store(vector_ttl=3), test)


def test_pictures_are_kept_to_the_byte_under_name_and_key(make_store, with_store: Run) -> None:
    large = bytes(range(256)) * 10_000  # more than Redis is given at once
    values = {(name, key): f"{name} {key}".encode() for name in NAMES for key in ("0", "ff")}
    values["large", "0"] = large

    async def test(store: Store) -> None:
        pictures = store.pictures
        for (name, key), value in values.items():
            await pictures.put(name, key, value, 100_000_000)
        await pictures.put("large", "0", large, 100_000_000)  # again: the same, counted once
        for (name, key), value in values.items():
            assert await pictures.get(name, key, len(value)) == value
            assert await pictures.get(name, key, len(value) + 1) is None
        assert sorted(await pictures.listed()) == sorted(values)
        await pictures.delete("large", ["0", "unknown"])
        await pictures.delete("unknown", ["0"])
        await pictures.delete("pets", [])
        assert await pictures.get("large", "0", len(large)) is None
        assert sorted(await pictures.listed()) == sorted(set(values) - {("large", "0")})

    with_store(make_store(), test)


def test_pictures_are_bounded_together_and_what_is_deleted_makes_room(
    make_store, with_store: Run
) -> None:
    async def test(store: Store) -> None:
        pictures = store.pictures
        await pictures.put("a", "0", bytes(60), 100)
        with pytest.raises(PicturesFull) as raised:
            await pictures.put("b", "0", bytes(41), 100)
        assert (raised.value.limit, raised.value.value) == (100, 101)
        assert await pictures.get("b", "0", 41) is None
        await pictures.put("b", "0", bytes(40), 100)
        await pictures.put("a", "0", bytes(50), 100)  # in place of itself
        await pictures.delete("b", ["0"])
        await pictures.put("c", "0", bytes(50), 100)
        assert sorted(await pictures.listed()) == [("a", "0"), ("c", "0")]
        many = [f"{number:x}" for number in range(1_100)]
        for key in many:
            await pictures.put("d", key, b"", 100)
        assert len(await pictures.listed()) == 1_102

    with_store(make_store(), test)


def test_a_store_answers_a_ping_and_takes_a_probe(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        await store.ping()
        await store.probe()
        assert await store.labelsets.page("", END, 10) == []

    with_store(make_store(), test)


def test_a_bucket_grants_a_burst_and_then_its_rate(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        # one in three seconds: longer than these calls take on a busy machine
        rate = 1 / 3
        assert await store.rates.take("key", 3, rate, 4) == Grant(3, 0.0)
        grant = await store.rates.take("key", 3, rate, 4)
        assert grant.granted == 1
        grant = await store.rates.take("key", 1, rate, 4)
        assert grant.granted == 0
        assert 0 < grant.wait <= 3
        assert await store.rates.take("another", 1, rate, 4) == Grant(1, 0.0)
        await asyncio.sleep(grant.wait + 0.001)
        assert (await store.rates.take("key", 1, rate, 4)).granted == 1
        # and however long nobody asks, no more than a burst
        assert await store.rates.take("quick", 4, 100, 4) == Grant(4, 0.0)
        await asyncio.sleep(0.1)
        assert (await store.rates.take("quick", 9, 100, 4)).granted == 4

    with_store(make_store(), test)


def test_many_at_once_are_never_granted_more_than_there_is(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        calls = (store.rates.take("key", 3, 0.001, 50) for _ in range(40))
        assert sum(grant.granted for grant in await asyncio.gather(*calls)) == 50

    with_store(make_store(), test)


def test_keys_of_buckets_may_be_any_text(make_store, with_store: Run) -> None:
    async def test(store: Store) -> None:
        for name in [*NAMES, "127.0.0.1", "2001:db8::1", "x" * 1000]:
            assert await store.rates.take(name, 1, 0.001, 1) == Grant(1, 0.0)
            assert (await store.rates.take(name, 1, 0.001, 1)).granted == 0

    with_store(make_store(), test)
