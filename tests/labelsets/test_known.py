"""Definitions in memory: bounded in bytes, by namespace, and read again."""

import asyncio
import json
import tracemalloc

from app.labelsets.definition import Definition, Entry, from_body, in_namespace, memory_cost, new
from app.labelsets.known import OVERHEAD, Known
from app.labelsets.registry import Registry
from app.stores.memory import MemoryStore


def stored(name: str, version: int, cost: int):
    body = new(name, version, Definition((Entry("a", ("a",)), Entry("b", ("b",))))).body()
    made = from_body(name, version, body)
    object.__setattr__(made, "cost", cost - OVERHEAD)
    return made


def test_the_namespace_that_holds_the_most_gives_way_its_least_recently_used_first() -> None:
    known = Known(100_000)
    for number in range(3):
        known.put(stored(in_namespace("small", f"s{number}"), 1, 10_000))
    large = [in_namespace("large", f"l{number}") for number in range(4)]
    for name in large[:3]:
        known.put(stored(name, 1, 20_000))
    assert known.bytes == 90_000
    known.get(large[0])
    known.put(stored(large[3], 1, 20_000))
    kept = {found.name for found in known.all()}
    assert known.bytes == 90_000
    assert large[1] not in kept
    assert {large[0], large[2], large[3]} <= kept
    assert len(kept) == 6
    # another version takes the place of the one before
    known.put(stored(large[3], 2, 30_000))
    assert known.bytes == 100_000
    known.put(stored("huge", 1, 200_000))
    assert known.get("huge") is None
    for found in known.all():
        known.pop(found.name)
    assert (known.bytes, known.all()) == (0, [])


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
        made = from_body("pets", 1, body)
        taken = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert made.cost == memory_cost(body)
        assert 0.7 * taken < made.cost < 2 * taken


def test_what_there_is_no_room_for_is_read_again_and_noted_as_built() -> None:
    async def test() -> None:
        store = MemoryStore()
        registry = Registry(store.labelsets, store.pictures, 10, memory_bytes=0)
        definition = Definition((Entry("a", ("a",)), Entry("b", ("b",))))
        written = await registry.write(new("pets", 0, definition), None)
        assert (await registry.current("pets")).definition == definition
        await registry.built(written)
        record = await store.labelsets.get("pets")
        assert record is not None
        assert json.loads(record.body)["built"]
        fresh = await registry.fresh("pets")
        assert fresh is not None
        await registry.delete(fresh)
        assert await store.labelsets.get("pets") is None

    asyncio.run(test())
