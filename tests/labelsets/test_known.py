"""Definitions in memory: bounded in bytes, by namespace, and read again."""

import asyncio
import json
import time
import tracemalloc

import pytest

from app.errors import UnknownLabelset
from app.labelsets.definition import (
    Definition,
    Entry,
    from_body,
    in_namespace,
    memory_cost,
    namespace_bounds,
    new,
)
from app.labelsets.known import OVERHEAD, Known
from app.labelsets.registry import TOUCH_EVERY, Registry
from app.stores.memory import MemoryLabelSets, MemoryPictures, MemoryStore
from app.stores.protocols import Head, LabelSetRecord


def stored(name: str, version: int, cost: int):
    body = new(name, version, Definition((Entry("a", ("a",)), Entry("b", ("b",))))).body()
    labelset = from_body(name, version, body)
    object.__setattr__(labelset, "cost", cost - OVERHEAD)
    return labelset


def test_the_namespace_that_holds_the_most_gives_way_its_least_recently_used_first() -> None:
    cache = Known(100_000)
    for number in range(3):
        cache.put(stored(in_namespace("small", f"s{number}"), 1, 10_000))
    large = [in_namespace("large", f"l{number}") for number in range(4)]
    for name in large[:3]:
        cache.put(stored(name, 1, 20_000))
    assert cache.bytes == 90_000
    cache.get(large[0])
    cache.put(stored(large[3], 1, 20_000))
    names = {labelset.name for labelset in cache.all()}
    assert cache.bytes == 90_000
    assert large[1] not in names
    assert {large[0], large[2], large[3]} <= names
    assert len(names) == 6
    # another version takes the place of the one before
    cache.put(stored(large[3], 2, 30_000))
    assert cache.bytes == 100_000
    cache.put(stored("huge", 1, 200_000))
    assert cache.get("huge") is None
    for labelset in cache.all():
        cache.pop(labelset.name)
    assert (cache.bytes, cache.all()) == (0, [])
    assert not cache._sizes  # nor of a namespace whose last one is gone


def test_the_cost_of_a_body_is_about_what_it_takes_in_memory() -> None:
    few = Definition(
        tuple(Entry(f"label {n}", (f"a long text of label {n} " * 5,)) for n in range(3_000))
    )
    many = Definition(
        tuple(Entry(f"{n}", tuple(f"{n:x}{m:x}" for m in range(100))) for n in range(1_000))
    )
    for definition in (few, many):
        body = new("pets", 1, definition).body()
        del definition
        tracemalloc.start()
        labelset = from_body("pets", 1, body)
        memory = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert labelset.cost == memory_cost(body)
        assert 0.7 * memory < labelset.cost < 2 * memory


def test_names_are_forgotten_once_their_use_would_be_noted_again_also_where_clocks_are_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noted: list[str] = []

    class Noting(MemoryLabelSets):
        async def touch(self, name: str, when: float) -> None:
            noted.append(name)

    async def test() -> None:
        now = 1_000.0
        monkeypatch.setattr("app.labelsets.registry.time.monotonic", lambda: now)
        monkeypatch.setattr("app.labelsets.registry.time.time", lambda: 2e9 - 1e6 * now)
        registry = Registry(Noting(), MemoryStore().pictures, 10)
        for number in range(100):
            registry.touch(f"deleted elsewhere {number}")
        registry.touch("pets")
        registry.touch("pets")
        now += TOUCH_EVERY / 2
        registry.touch("cars")
        assert len(registry._touched) == 102
        now += TOUCH_EVERY / 2 + 1
        registry.touch("cars")
        registry.touch("pets")
        assert set(registry._touched) == {"cars", "pets"}
        await asyncio.gather(*registry._background)
        assert (noted.count("pets"), noted.count("cars")) == (2, 1)

    asyncio.run(test())


def test_what_there_is_no_room_for_is_read_again_and_noted_as_built() -> None:
    async def test() -> None:
        store = MemoryStore()
        registry = Registry(store.labelsets, store.pictures, 10, memory_bytes=0)
        definition = Definition((Entry("a", ("a",)), Entry("b", ("b",))))
        outcome = await registry.write(new("pets", 0, definition), None)
        assert (await registry.current("pets")).definition == definition
        await registry.built(outcome)
        record = await store.labelsets.get("pets")
        assert record is not None
        assert json.loads(record.body)["built"]
        fresh = await registry.fresh("pets")
        assert fresh is not None
        await registry.delete(fresh)
        assert await store.labelsets.get("pets") is None

    asyncio.run(test())


def test_what_was_made_anew_after_a_deletion_comes_back_where_the_store_lost_it() -> None:
    async def test() -> None:
        store = MemoryStore()
        registry = Registry(store.labelsets, store.pictures, 10)
        definition = Definition((Entry("a", ("a",)), Entry("b", ("b",))))
        await registry.delete(await registry.write(new("pets", 0, definition), None))
        lagging = MemoryStore()
        tombstone = await store.labelsets.head("pets")
        assert tombstone is not None
        await lagging.labelsets.write("pets", b"", None, 10, least=tombstone.version - 1)
        await lagging.labelsets.delete("pets", tombstone.version - 1)
        anew = await registry.write(new("pets", 0, definition), None)
        registry._store = lagging.labelsets  # a replica that had only the deletion took over
        assert await registry.page(*namespace_bounds(""), 10) == [anew]
        assert await registry.current("pets") == anew
        assert await lagging.labelsets.head("pets") == Head(anew.version, deleted=False)

    asyncio.run(test())


def test_what_was_deleted_after_the_store_went_back_stays_deleted() -> None:
    async def test() -> None:
        store, lagging = MemoryStore(), MemoryStore()
        definition = Definition((Entry("a", ("a",)), Entry("b", ("b",))))
        knows = Registry(store.labelsets, store.pictures, 10)
        knows_not = Registry(lagging.labelsets, lagging.pictures, 10)
        older = await knows.write(new("pets", 0, definition), None)
        await lagging.labelsets.restore(LabelSetRecord("pets", older.version, older.body()))
        newer = await knows.write(new("pets", 0, definition), older)
        knows._store = lagging.labelsets  # a replica that had not the newer version took over
        while time.time() < newer.version / 1000:  # a version may be a little ahead of the time
            await asyncio.sleep(0)
        await knows_not.delete(await knows_not.current("pets"))
        with pytest.raises(UnknownLabelset):
            await knows.current("pets")
        assert await knows.page(*namespace_bounds(""), 10) == []

    asyncio.run(test())


def test_what_others_deleted_long_ago_is_forgotten_before_a_lost_store_brings_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.stores.memory.TOMBSTONES", 2)
    definition = Definition((Entry("a", ("a",)), Entry("b", ("b",))))
    store = MemoryLabelSets()
    knows, deletes = (Registry(store, MemoryPictures(), 100) for _ in range(2))

    async def test() -> None:
        for number in range(4):
            await knows.write(new(f"set{number}", 0, definition), None)
        for number in range(4):
            await deletes.delete(await deletes.current(f"set{number}"))
        await knows.publish_lost()
        vars(store).update(vars(MemoryLabelSets()))  # and with it what was deleted
        await knows.publish_lost()
        assert await store.recent() == []

    asyncio.run(test())
