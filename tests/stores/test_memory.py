"""The store of one process: its bounds on vectors."""

import asyncio

from app.stores.memory import MemoryStore


def test_vectors_are_bounded_in_bytes_and_the_soonest_to_expire_go_first() -> None:
    async def test() -> None:
        vectors = MemoryStore(vector_ttl=60, vector_bytes=30).vectors
        for key in ("a", "b", "c", "a", "d"):
            await vectors.put_many({key: b"x" * 10})
        values = await vectors.get_many(list("abcd"))
        assert [value is not None for value in values] == [True, False, True, True]
        await vectors.put_many({"e": b"x" * 31})
        values = await vectors.get_many(list("acde"))
        assert [value is not None for value in values] == [True, True, True, False]

    asyncio.run(test())


def test_no_vectors_are_kept_unless_asked_for() -> None:
    async def test() -> None:
        vectors = MemoryStore().vectors
        await vectors.put_many({"a": b"1"})
        assert list(await vectors.get_many(["a"])) == [None]

    asyncio.run(test())
