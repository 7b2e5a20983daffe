"""The shared store when its server is gone, slow, strange, locked, full, empty or newer."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from app.stores.breaker import FIRST_PAUSE
from app.stores.gcra import SLACK, Grant, take
from app.stores.guard import Guarded
from app.stores.protocols import (
    Head,
    LabelSetRecord,
    PicturesFull,
    StoreAway,
    StoreFull,
    StoreRefused,
    StoreUnusable,
)
from app.stores.redis import scripts
from app.stores.redis.link import SCHEMA
from app.stores.redis.store import RedisStore

T = TypeVar("T")

MOST = 1000
END = "\U0010ffff"  # after every name
# otherwise Redis holds writes back while the disk is busy
SYNCED = ("--appendfsync", "always")
TIMEOUT = 0.25
SOON = 15.0  # what a busy machine may make of TIMEOUT, and of an answer that comes at once


def at(url: str, timeout: float = 10.0) -> RedisStore:
    return RedisStore(url, timeout, vector_ttl=3600)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(240):
            await test()

    asyncio.run(bounded())


@asynccontextmanager
async def opened(url: str, timeout: float = 10.0) -> AsyncIterator[RedisStore]:
    store = at(url, timeout)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(url) as redis:
        yield redis
        await redis.connection_pool.disconnect()


async def away(store: RedisStore) -> str:
    """Every method is away, soon; the text of the last."""
    calls = [
        store.ping,
        lambda: store.labelsets.head("pets"),
        lambda: store.labelsets.get("pets"),
        lambda: store.labelsets.page("", END, 10),
        lambda: store.labelsets.write("new", b"", None, MOST),
        lambda: store.labelsets.amend("pets", 1, b""),
        lambda: store.labelsets.delete("pets", 1),
        lambda: store.labelsets.restore(LabelSetRecord("pets", 1, b"")),
        lambda: store.labelsets.touch("pets", time.time()),
        store.labelsets.recent,
        lambda: store.vectors.get_many(["a"]),
        lambda: store.vectors.put_many({"a": b"1"}),
        lambda: store.rates.take("key", 1, 1, 1),
        store.probe,
    ]

    async def ask(call: Callable[[], Awaitable[object]]) -> str:
        start = time.monotonic()
        with pytest.raises(StoreAway) as raised:
            await call()
        assert time.monotonic() - start < SOON
        return str(raised.value)

    texts = [await ask(call) for call in calls]
    # also many at once, more than there are connections
    await asyncio.gather(*(ask(calls[1 + number % 3]) for number in range(60)))
    assert not any("\n" in text for text in texts)
    return texts[-1]


async def back(call: Callable[[], Awaitable[T]]) -> T:
    """The same object works again; its result."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return await call()
        except StoreAway:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


def test_two_stores_on_one_server_see_each_other(start_redis) -> None:
    server = start_redis()

    async def test() -> None:
        async with opened(server.url) as first, opened(server.url) as second:
            await first.labelsets.write("pets", b"1", None, MOST)
            assert await second.labelsets.get("pets") == LabelSetRecord("pets", 1, b"1")
            await second.labelsets.delete("pets", 1)
            assert await first.labelsets.head("pets") == Head(2, deleted=True)
            await first.vectors.put_many({"a": b"1"})
            assert list(await second.vectors.get_many(["a"])) == [b"1"]

    run(test)


def test_only_vectors_expire(start_redis) -> None:
    server = start_redis()

    async def test() -> None:
        async with opened(server.url) as store, client(server.url) as redis:
            await store.labelsets.write("pets", b"", None, MOST)
            await store.labelsets.write("gone", b"", None, MOST)
            await store.labelsets.delete("gone", 1)
            await store.labelsets.touch("pets", time.time())
            await store.vectors.put_many({"a": b"1"})
            await redis.delete("openvocab:probe")
            lives = {key: await redis.ttl(key) for key in await redis.keys()}
            assert {key for key, life in lives.items() if life >= 0} == {b"openvocab:vector:a"}
            assert 3000 < lives[b"openvocab:vector:a"] <= 3600
            assert len(lives) == 7

    run(test)


def test_a_killed_server_is_away_and_comes_back_with_everything(start_redis) -> None:
    server = start_redis(*SYNCED)

    async def test() -> None:
        async with opened(server.url) as store:
            await store.labelsets.write("pets", b"body", None, MOST)
            server.kill()
            assert "127.0.0.1" in await away(store)
            server.start()
            await back(store.ping)
            # the append-only file has it; the scripts are sent anew
            assert await store.labelsets.get("pets") == LabelSetRecord("pets", 1, b"body")
            assert (await store.labelsets.write("pets", b"2", 1, MOST)).version == 2

    run(test)


def test_no_acknowledged_write_is_lost_by_a_kill(start_redis) -> None:
    server = start_redis(*SYNCED)

    async def test() -> None:
        async with opened(server.url) as store:
            order: list[str] = []

            async def write() -> None:
                for number in range(100_000):
                    await store.labelsets.write(f"{number}", b"body", None, 10**6)
                    order.append(f"{number}")

            for rounds in range(3):
                writer = asyncio.create_task(write())
                while not order:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.2 + rounds / 20)
                server.kill()
                with pytest.raises(StoreAway):
                    await writer
                server.start()
                await back(store.ping)
                for name in order:
                    assert await store.labelsets.get(name) == LabelSetRecord(name, 1, b"body")
                    await store.labelsets.delete(name, 1)
                async with client(server.url) as redis:
                    await redis.flushall()
                order.clear()

    run(test)


def test_a_paused_server_is_away_at_its_time_limit_and_comes_back(start_redis) -> None:
    server = start_redis()

    async def test() -> None:
        async with opened(server.url) as patient:
            await patient.labelsets.write("pets", b"body", None, MOST)
        store = at(server.url, TIMEOUT)
        try:
            await back(store.ping)
            server.pause()
            try:
                assert "no response" in await away(store)
            finally:
                server.go_on()
            await back(store.ping)
            # no connection that was cut off gives the answer to another question
            vectors = {f"{number}": b"%d" % number for number in range(40)}
            await back(lambda: store.vectors.put_many(vectors))
            calls = [store.vectors.get_many([f"{number}"]) for number in range(40)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            answers = {n: list(v) for n, v in enumerate(results) if not isinstance(v, StoreAway)}
            assert answers
            assert answers == {number: [b"%d" % number] for number in answers}
            pets = await back(lambda: store.labelsets.get("pets"))
            assert pets == LabelSetRecord("pets", 1, b"body")
        finally:
            await store.close()

    run(test)


def test_cancelled_calls_never_mix_up_answers(redis_server) -> None:
    async def test() -> None:
        async with opened(redis_server.url) as store:
            keys = [f"mix {number}" for number in range(50)]
            await store.vectors.put_many({key: key.encode() * 1000 for key in keys})
            for pause in range(30):
                calls = [asyncio.create_task(store.vectors.get_many([key])) for key in keys]
                await asyncio.sleep(pause / 3000)
                for call in calls[::2]:
                    call.cancel()
                results = await asyncio.gather(*calls, return_exceptions=True)
                for key, values in zip(keys, results, strict=True):
                    if not isinstance(values, asyncio.CancelledError):
                        assert list(values) == [key.encode() * 1000]

    run(test)


def test_a_server_that_is_away_at_the_start_is_used_when_it_comes(start_redis) -> None:
    server = start_redis()
    server.kill()

    async def test() -> None:
        store = at(server.url)
        with pytest.raises(StoreAway):
            await store.open()
        await away(store)
        server.start()
        await back(store.ping)
        assert (await store.labelsets.write("pets", b"", None, MOST)).version == 1
        await store.close()

    run(test)


def test_an_emptied_server_is_an_empty_store(start_redis) -> None:
    server = start_redis()

    async def test() -> None:
        async with opened(server.url) as store, client(server.url) as redis:
            await store.labelsets.write("pets", b"body", None, MOST)
            await store.vectors.put_many({"a": b"1"})
            await redis.flushall()
            await redis.script_flush()
            assert await store.labelsets.head("pets") is None
            assert await store.labelsets.page("", END, 10) == []
            assert list(await store.labelsets.recent()) == []
            assert list(await store.vectors.get_many(["a"])) == [None]
            assert await store.labelsets.restore(LabelSetRecord("pets", 1, b"body"))
            assert await store.labelsets.get("pets") == LabelSetRecord("pets", 1, b"body")

    run(test)


def test_names_without_a_definition_are_passed_over_and_make_room(start_redis) -> None:
    server = start_redis()

    async def test() -> None:
        async with opened(server.url) as store, client(server.url) as redis:
            for name in "abcdef":
                await store.labelsets.write(name, name.encode(), None, 6)
            for name in "abe":
                await redis.delete(f"openvocab:labelset:{name}")
            assert sorted(await store.labelsets.recent()) == ["c", "d", "f"]
            with pytest.raises(StoreFull):
                await store.labelsets.write("g", b"", None, 6)
            page = await store.labelsets.page("", END, 2)
            assert [record.name for record in page] == ["c", "d"]
            page = await store.labelsets.page("d", END, 2)
            assert [record.name for record in page] == ["f"]
            await store.labelsets.write("g", b"", None, 6)

    run(test)


def test_definitions_without_a_name_on_the_lists_are_found_and_listed_again(start_redis) -> None:
    server = start_redis()

    async def test() -> None:
        async with opened(server.url) as store, client(server.url) as redis:
            for name in "abc":
                await store.labelsets.write(name, name.encode(), None, MOST)
            await redis.delete("openvocab:names", "openvocab:recent")
            assert await store.labelsets.get("a") == LabelSetRecord("a", 1, b"a")
            assert await store.labelsets.page("", END, 10) == []
            assert not await store.labelsets.restore(LabelSetRecord("c", 1, b"c"))
            await store.labelsets.write("a", b"2", 1, MOST)
            await store.labelsets.touch("b", time.time())
            assert [record.name for record in await store.labelsets.page("", END, 10)] == ["a", "b"]
            assert sorted(await store.labelsets.recent()) == ["a", "b"]

    run(test)


@pytest.mark.parametrize("lost", ["names", "recent"])
def test_of_two_lists_of_names_the_one_that_is_left_makes_the_other_anew(
    lost: str, start_redis
) -> None:
    server = start_redis()

    async def test() -> None:
        async with opened(server.url) as store, client(server.url) as redis:
            for name in "abc":
                await store.labelsets.write(name, name.encode(), None, MOST)
            await store.labelsets.delete("b", 1)
            await redis.delete(f"openvocab:{lost}")
            await store.labelsets.write("d", b"d", None, MOST)
            assert sorted(await store.labelsets.recent()) == ["a", "c", "d"]
            page = await store.labelsets.page("", END, 10)
            assert [record.name for record in page] == ["a", "c", "d"]
            with pytest.raises(StoreFull):
                await store.labelsets.write("e", b"", None, 3)

    run(test)


FOREIGN = ["text", "a list", "no version", "a version of -1", "no body"]


async def damage(redis: Redis, key: str, how: str) -> None:
    """Leave under a key what this release never wrote."""
    await redis.delete(key)
    if how == "text":
        await redis.set(key, "text")
    elif how == "a list":
        await redis.lpush(key, "text")
    else:
        fields = {"version": "7", "body": "body", "deleted": "0"}
        fields |= {"no version": {"version": "abc"}, "a version of -1": {"version": "-1"}}.get(
            how, {}
        )
        if how == "no body":
            del fields["body"]
        await redis.hset(key, mapping=fields)


@pytest.mark.parametrize("how", FOREIGN)
def test_a_definition_that_others_wrote_or_damaged_concerns_its_own_name(
    how: str, start_redis
) -> None:
    server = start_redis()

    async def test() -> None:
        async with opened(server.url) as inner, client(server.url) as redis:
            store = Guarded(inner, 10)
            sets = store.labelsets
            for name in ("a", "bad", "c"):
                await sets.write(name, name.encode(), None, MOST)
            await damage(redis, "openvocab:labelset:bad", how)
            assert await sets.get("bad") == LabelSetRecord("bad", 0, b"")
            head = await sets.head("bad")
            assert head is not None
            assert not head.deleted
            # lists and others' changes go on
            assert [r.name for r in await sets.page("", END, 10)] == ["a", "bad", "c"]
            assert sorted(await sets.recent()) == ["a", "bad", "c"]
            await sets.touch("bad", time.time())
            assert (await sets.write("a", b"2", 1, MOST)).version == 2
            assert not await sets.restore(LabelSetRecord("bad", 5, b""))
            assert not await sets.amend("bad", 7, b"")
            assert store.state == "ok"
            # it can be replaced
            assert (await sets.write("bad", b"good", 0, MOST, least=9)).version == 9
            assert await sets.get("bad") == LabelSetRecord("bad", 9, b"good")
            # and deleted
            await damage(redis, "openvocab:labelset:bad", how)
            await sets.delete("bad", 0)
            assert await sets.get("bad") is None
            assert [r.name for r in await sets.page("", END, 10)] == ["a", "c"]

    run(test)


def test_lists_that_others_wrote_are_refused_and_nothing_is_half_written(start_redis) -> None:
    server = start_redis()

    async def test() -> None:
        async with opened(server.url) as inner, client(server.url) as redis:
            store = Guarded(inner, 10)
            await store.labelsets.write("pets", b"body", None, MOST)
            await redis.set("openvocab:recent", "text")
            await redis.set("openvocab:tombstones", "text")
            await redis.lpush("openvocab:forgotten", "text")
            with pytest.raises(StoreRefused, match="openvocab:recent is a string; delete it"):
                await store.labelsets.write("new", b"", None, MOST)
            assert await redis.exists("openvocab:labelset:new") == 0
            assert store.state == "read-only"
            with pytest.raises(StoreAway):
                await store.labelsets.recent()
            assert await store.labelsets.get("pets") == LabelSetRecord("pets", 1, b"body")
            assert store.state == "read-only"
            await redis.delete("openvocab:recent")
            await asyncio.sleep(FIRST_PAUSE)
            await store.ping()
            assert store.state == "ok"
            await store.labelsets.delete("pets", 1)

    run(test)


def test_pictures_sizes_that_others_wrote_are_named_and_nothing_is_half_written(
    start_redis,
) -> None:
    server = start_redis()

    async def test() -> None:
        async with opened(server.url) as inner, client(server.url) as redis:
            store = Guarded(inner, 10)
            await redis.set("openvocab:pictures", "text")
            with pytest.raises(StoreRefused, match="openvocab:pictures is a string; delete it"):
                await store.pictures.put("pets", "a", b"1", 10)
            assert await redis.exists("openvocab:picture:pets/a") == 0
            await asyncio.sleep(FIRST_PAUSE)
            with pytest.raises(StoreRefused, match="openvocab:pictures is a string; delete it"):
                await store.ping()
            assert store.state == "read-only"
            await redis.delete("openvocab:pictures")
            await asyncio.sleep(2 * FIRST_PAUSE)
            await store.ping()
            assert store.state == "ok"
            await store.pictures.put("pets", "a", b"1", 10)

    run(test)


@asynccontextmanager
async def narrow(port: int, rate: int) -> AsyncIterator[str]:
    """A URL of the server that carries so many bytes a second."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await asyncio.sleep(len(data) / rate)
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", port)
        with suppress(OSError):
            await asyncio.gather(carry(reader, forth), carry(back, writer))

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    proxy.close()


def test_a_definition_of_many_megabytes_has_the_time_limit_for_each(start_redis) -> None:
    server = start_redis()
    limit = 1.0
    large = b"x" * 4_000_000

    async def test() -> None:
        async with opened(server.url) as store, narrow(server.port, 3_000_000) as url:
            for name in ("a", "b"):
                await store.labelsets.write(name, large, None, MOST)
            async with opened(url, limit) as far:
                sets = Guarded(far, limit).labelsets
                start = time.monotonic()
                assert await sets.get("a") == LabelSetRecord("a", 1, large)
                assert time.monotonic() - start > limit
                assert [r.body for r in await sets.page("", END, 10)] == [large, large]
                assert (await sets.write("a", large, 1, MOST)).version == 2

    run(test)


def test_names_that_are_no_text_are_passed_over(start_redis) -> None:
    server = start_redis()

    async def test() -> None:
        async with opened(server.url) as store, client(server.url) as redis:
            for name in ("a", "z"):
                await store.labelsets.write(name, b"", None, MOST)
            await redis.zadd("openvocab:names", {b"b\xff\xfe": 0, b"\xff": 0})
            await redis.zadd("openvocab:recent", {b"b\xff\xfe": 0})
            for limit in (1, 2, 10):
                page = await store.labelsets.page("", END, limit)
                assert [record.name for record in page] == ["a", "z"][:limit]
            assert sorted(await store.labelsets.recent()) == ["a", "z"]

    run(test)


def test_garbled_sizes_of_pictures_are_added_up_anew(start_redis) -> None:
    server = start_redis()

    async def test() -> None:
        async with opened(server.url) as inner, client(server.url) as redis:
            store = Guarded(inner, 10)
            await store.pictures.put("pets", "a", b"1234", 10)
            for value in ("hello", "nan", "-inf junk"):
                await redis.set("openvocab:picture_bytes", value)
                await store.pictures.put("pets", "b", b"1234", 10)
                assert await redis.get("openvocab:picture_bytes") == b"8"
            await redis.delete("openvocab:picture_bytes")
            await redis.lpush("openvocab:picture_bytes", "x")
            with pytest.raises(PicturesFull):
                await store.pictures.put("pets", "c", b"1234", 10)
            await redis.delete("openvocab:picture_bytes")
            await redis.lpush("openvocab:picture_bytes", "x")
            await store.pictures.delete("pets", ["b"])
            assert await redis.get("openvocab:picture_bytes") == b"4"
            await redis.hset("openvocab:pictures", "pets/a", "garbled")
            await store.pictures.delete("pets", ["a"])
            assert await redis.get("openvocab:picture_bytes") == b"4"
            await redis.lpush("openvocab:picture:pets/d", "x")
            assert await store.pictures.get("pets", "d", 4) is None
            assert store.state == "ok"

    run(test)


def test_vectors_and_buckets_of_another_kind_are_none(start_redis) -> None:
    server = start_redis()

    async def test() -> None:
        async with opened(server.url) as store, client(server.url) as redis:
            await redis.lpush("openvocab:vector:a", "text")
            assert list(await store.vectors.get_many(["a", "b"])) == [None, None]
            await store.vectors.put_many({"a": b"1"})
            assert list(await store.vectors.get_many(["a"])) == [b"1"]
            await redis.lpush("openvocab:rate:a", "text")
            assert (await store.rates.take("a", 1, 1, 1)).granted == 1

    run(test)


@pytest.mark.parametrize(
    ("rights", "needed"),
    [
        ("+@all -@scripting", "evalsha"),
        ("+@all -zadd -hset", "needs +hset +zadd"),
        ("+@all -setrange", "needs +setrange"),
        ("+@read +@scripting +@connection", "set"),
    ],
)
def test_a_user_without_a_needed_right_ends_the_start_with_one_line(
    rights: str, needed: str, start_redis
) -> None:
    server = start_redis()
    with SyncRedis.from_url(server.url) as redis:
        redis.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", *rights.split())
    url = server.url.replace("//", "//app:secret@")

    async def test() -> None:
        store = at(url)
        with pytest.raises(StoreUnusable, match=re.escape(needed)):
            await store.open()
        await store.close()

    run(test)


def test_a_user_with_no_more_than_the_needed_rights_is_enough(start_redis) -> None:
    server = start_redis()
    rights = "+ping +info +select +evalsha +eval +script|load +del +hset +hget +hmget +hexists"
    rights += " +hvals +hstrlen +hscan +hdel +type +unlink +zadd +zscore +zcard +zrange +zlexcount"
    rights += " +zrem +set +setrange +get +getrange +mget +time"
    with SyncRedis.from_url(server.url) as redis:
        keys = ("~openvocab:*", "on", ">secret")
        redis.execute_command("ACL", "SETUSER", "app", *keys, *rights.split())

    async def test() -> None:
        async with opened(server.url.replace("//", "//app:secret@")) as store:
            await store.ping()
            await store.probe()
            await store.labelsets.write("pets", b"", None, MOST)
            await store.labelsets.touch("pets", time.time())
            assert list(await store.labelsets.recent()) == ["pets"]
            assert len(await store.labelsets.page("", END, 10)) == 1
            await store.pictures.put("pets", "a", b"1", 10)
            assert await store.pictures.get("pets", "a", 1) == b"1"
            assert list(await store.pictures.listed()) == [("pets", "a")]
            assert list(await store.pictures.missing("pets", ["b"])) == ["b"]
            await store.pictures.delete("pets", ["a"])
            await store.labelsets.delete("pets", 1)
            await store.vectors.put_many({"a": b"1"})
            await store.vectors.get_many(["a"])
            await store.rates.take("a", 1, 1, 1)

    run(test)


def refusal(url: str) -> str:
    async def test() -> str:
        store = at(url)
        with pytest.raises(StoreUnusable) as raised:
            await store.open()
        with pytest.raises(StoreAway):
            await store.labelsets.get("pets")
        await store.close()
        return str(raised.value)

    text = asyncio.run(test())
    assert "secret" not in text
    assert "\n" not in text
    return text


def test_a_wrong_password_no_password_or_one_too_many_is_refused(start_redis) -> None:
    guarded = start_redis("--requirepass", "open sesame")
    host = f"127.0.0.1:{guarded.port}"
    assert host in refusal(f"redis://:secret@{host}")
    refusal(f"redis://nobody:secret@{host}")
    refusal(f"redis://{host}")

    async def test() -> None:
        async with opened(f"redis://:open%20sesame@{host}") as store:
            await store.ping()

    run(test)


def test_a_password_for_a_server_without_one_is_refused(redis_server) -> None:
    refusal(f"redis://nobody:secret@127.0.0.1:{redis_server.port}")


def test_a_user_who_may_not_read_is_refused(start_redis) -> None:
    server = start_redis("--user", "reader", "on", ">secret", "+ping")
    refusal(f"redis://reader:secret@127.0.0.1:{server.port}")


def test_a_database_the_server_does_not_have_is_refused(redis_server) -> None:
    assert "DB index" in refusal(f"{redis_server.url}/99")


def test_a_newer_schema_is_refused_naming_both_versions_also_when_met_late(start_redis) -> None:
    server = start_redis()

    async def raise_schema() -> None:
        async with client(server.url) as redis:
            await redis.set("openvocab:schema", SCHEMA + 1)

    run(raise_schema)
    text = refusal(server.url)
    assert f"version {SCHEMA + 1} " in text
    assert f"up to {SCHEMA}:" in text

    async def test() -> None:
        store = at(server.url)
        with pytest.raises(StoreAway, match="schema version"):
            await store.labelsets.write("pets", b"", None, MOST)
        await store.close()
        async with client(server.url) as redis:
            assert await redis.keys("*labelset*") == []

    run(test)


def test_the_schema_is_checked_again_after_an_outage(start_redis) -> None:
    server = start_redis()

    async def test() -> None:
        async with opened(server.url) as store:
            server.kill()
            with pytest.raises(StoreAway):
                await store.ping()
            server.start()
            async with client(server.url) as redis:
                await redis.set("openvocab:schema", SCHEMA + 1)
            with pytest.raises(StoreAway, match="schema version"):
                await store.labelsets.write("pets", b"", None, MOST)

    run(test)


async def refuses(store: RedisStore) -> None:
    """Nothing can be written, and everything read."""
    writes = [
        lambda: store.labelsets.write("new", b"", None, MOST),
        lambda: store.labelsets.restore(LabelSetRecord("new", 1, b"")),
        lambda: store.vectors.put_many({"a": b"1"}),
        lambda: store.rates.take("key", 1, 1, 1),
        store.probe,
    ]
    for write in writes:
        with pytest.raises(StoreRefused) as raised:
            await write()
        assert "\n" not in str(raised.value)
    assert list(await store.vectors.get_many(["a"])) == [None]
    assert await store.labelsets.head("new") is None
    assert "new" not in await store.labelsets.recent()
    await store.labelsets.page("", END, 10)
    await store.ping()


def test_a_full_server_keeps_serving_and_refuses_new_definitions(start_redis) -> None:
    server = start_redis("--maxmemory-policy", "noeviction")

    async def test() -> None:
        async with opened(server.url) as store, client(server.url) as redis:
            await store.labelsets.write("pets", b"body", None, MOST)
            await redis.config_set("maxmemory", "100kb")
            await refuses(store)
            assert await store.labelsets.get("pets") == LabelSetRecord("pets", 1, b"body")
            # to make room is no write of this kind
            await store.labelsets.delete("pets", 1)
            await redis.config_set("maxmemory", 0)
            assert (await store.labelsets.write("new", b"", None, MOST)).version == 1

    run(test)


def test_eviction_only_takes_vectors(start_redis) -> None:
    server = start_redis("--maxmemory", "8mb", "--maxmemory-policy", "volatile-lru")

    async def test() -> None:
        async with opened(server.url) as store:
            for number in range(50):
                await store.labelsets.write(f"set {number}", b"body", None, MOST)
            for number in range(40):
                await store.vectors.put_many({f"{number}": b"x" * 500_000})
            assert len(await store.labelsets.page("", END, 100)) == 50
            rows = await store.vectors.get_many([f"{number}" for number in range(40)])
            assert 0 < sum(value is not None for value in rows) < 40

    run(test)


def test_a_replica_is_read_and_refuses_writes(start_redis) -> None:
    server = start_redis()

    async def test() -> None:
        async with opened(server.url) as store, client(server.url) as redis:
            for name in "ab":
                await store.labelsets.write(name, b"body", None, MOST)
            await redis.delete("openvocab:labelset:b")  # lost; the replica cannot clear up
            await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
            await refuses(store)
            assert await store.labelsets.page("", END, 10) == [LabelSetRecord("a", 1, b"body")]
            await redis.execute_command("REPLICAOF", "NO", "ONE")
            assert (await store.labelsets.write("a", b"2", 1, MOST)).version == 2

    run(test)


def test_a_new_replica_without_a_schema_can_be_opened_and_read(start_redis) -> None:
    server = start_redis("--replicaof", "127.0.0.1 1")

    async def test() -> None:
        async with opened(server.url) as store, client(server.url) as redis:
            await refuses(store)
            await redis.execute_command("REPLICAOF", "NO", "ONE")
            await store.labelsets.write("new", b"", None, MOST)
            assert await redis.get("openvocab:schema") == str(SCHEMA).encode()

    run(test)


def test_a_server_without_the_replicas_it_needs_refuses_writes(start_redis) -> None:
    server = start_redis("--min-replicas-to-write", "1")

    async def test() -> None:
        async with opened(server.url) as store:
            await refuses(store)

    run(test)


times = st.lists(
    st.tuples(st.floats(-5, 5), st.integers(0, 20), st.sampled_from([0.1, 3.0, 1000.0])),
    min_size=1,
    max_size=20,
)


@settings(max_examples=50, deadline=None)
@given(times, st.integers(1, 30))
def test_the_script_counts_as_the_formula_does(
    redis_server, steps: list[tuple[float, int, float]], burst: int
) -> None:
    """The server's clock is replaced by a number, which may also go back."""
    lua = "local now = tonumber(ARGV[5])" + scripts.GCRA
    tat, now = None, float(int(time.time()))
    with SyncRedis.from_url(redis_server.url) as redis:
        redis.delete("bucket")
        for pause, count, rate in steps:
            now += pause
            tat, grant = take(tat, now, count, rate, burst)
            granted, wait = redis.eval(lua, 1, "bucket", rate, burst, count, SLACK, repr(now))
            assert Grant(granted, float(wait)) == grant
            # the server's own clock would let it vanish
            assert float(redis.get("bucket") or tat) == tat
            redis.set("bucket", repr(tat), px=10_000_000)


def test_a_bucket_vanishes_when_it_is_full_again(start_redis) -> None:
    server = start_redis()

    async def test() -> None:
        one, two = opened(server.url), opened(server.url)
        async with one as first, two as second, client(server.url) as redis:
            # one in 1,000 s: none comes back meanwhile
            await first.rates.take("key", 3, 0.001, 100)
            assert 2_000_000 < await redis.pttl("openvocab:rate:key") <= 3_000_000
            assert (await second.rates.take("key", 100, 0.001, 100)).granted == 97
            # what is refused does not lengthen its life
            assert (await first.rates.take("key", 100, 0.001, 100)).granted == 0
            assert 90_000_000 < await redis.pttl("openvocab:rate:key") <= 100_000_000
            await first.rates.take("short", 1, 20, 1)
            await asyncio.sleep(0.1)
            assert await redis.keys("*rate:*") == [b"openvocab:rate:key"]

    run(test)


@pytest.mark.parametrize("value", ["text", "nan", "inf", "-inf", "1e999", ""])
def test_a_damaged_bucket_is_mended(start_redis, value: str) -> None:
    server = start_redis()

    async def test() -> None:
        async with opened(server.url) as store, client(server.url) as redis:
            await redis.set("openvocab:rate:key", value)
            await redis.lpush("openvocab:rate:list", value)
            for key in ("key", "list"):
                await store.rates.take(key, 1, 0.001, 3)
                assert 0 < await redis.pttl(f"openvocab:rate:{key}") <= 3_000_000

    run(test)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def test_a_unix_socket_is_a_way_too(start_redis, tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    start_redis("--unixsocket", str(path))

    async def test() -> None:
        async with opened(f"unix://{path}?db=1") as store:
            assert (await store.labelsets.write("pets", b"", None, MOST)).version == 1

    run(test)


@asynccontextmanager
async def strange_server(answer: Handler) -> AsyncIterator[str]:
    """A server that is not Redis, and its URL."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.sleep(0.1)  # the last handlers notice that their caller is gone


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        b"\x00\xff\xfe" * 1000,
        b"\r\n\r\n\r\n",
        b"+OK\r\n",
        b"+PONG\r\n",
        b":notanumber\r\n",
        b":1\r\n",
        b"$abc\r\n",
        b"$-7\r\n",
        b"$99999999999\r\nabc",
        b"*2\r\n$1\r\na\r\n$1\r\nb\r\n",
        b"*3\r\n*-1\r\n_\r\n#t\r\n",
        b"-ERR something\nwith lines\r\n",
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-CLUSTERDOWN The cluster is down\r\n",
        b"*1\r\n" * 5000,
        b"*1\r\n:5\r\n",
        b"",
    ],
)
def test_a_server_that_is_no_redis_is_away(garbage: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            writer.write(garbage)
            await writer.drain()
            if not garbage:
                return

    async def test() -> None:
        async with strange_server(answer) as url:
            store = at(url, TIMEOUT)
            start = time.monotonic()
            with pytest.raises(StoreAway):
                await store.open()
            assert time.monotonic() - start < SOON
            await away(store)
            await store.close()

    run(test)


def test_a_server_that_trickles_is_cut_off_at_the_time_limit() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(b"$1000\r\n")
        while not reader.at_eof():
            writer.write(b"x")  # each byte well within a time-out that starts anew with it
            await writer.drain()
            await asyncio.sleep(0.05)

    async def test() -> None:
        async with strange_server(answer) as url:
            store = at(url, TIMEOUT)
            await away(store)
            await store.close()

    run(test)


def test_a_server_that_accepts_and_says_nothing_is_cut_off_at_the_time_limit() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def test() -> None:
        async with strange_server(answer) as url:
            store = at(url + "?socket_timeout=30&socket_connect_timeout=30", TIMEOUT)
            await away(store)
            await store.close()

    run(test)
