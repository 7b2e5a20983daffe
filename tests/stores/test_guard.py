"""The breaker: when it opens, how long, who may try, when it closes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.stores import guard
from app.stores.breaker import FIRST_PAUSE, LONGEST_PAUSE
from app.stores.gcra import Grant
from app.stores.guard import Guarded
from app.stores.memory import MemoryStore
from app.stores.protocols import (
    CHUNK,
    LabelSetRecord,
    LabelSetStore,
    PictureStore,
    RateLimits,
    StoreAway,
    StoreDamaged,
    StoreFull,
    StoreRefused,
    VectorCache,
    VersionConflict,
)

MOST = 10
END = "\U0010ffff"  # after every name


class Failing(MemoryStore):
    """A store in memory that can be taken away, or made to hang."""

    def __init__(self) -> None:
        super().__init__(60, 1 << 20)
        self.labelsets = Door(self, self.labelsets)
        self.vectors = Door(self, self.vectors)
        self.rates = Door(self, self.rates)
        self.pictures = Door(self, self.pictures)
        self.error: Exception | None = None
        self.read_only = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.calls = 0

    async def pass_door(self) -> None:
        self.calls += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error

    async def ping(self) -> None:
        await self.pass_door()

    async def probe(self) -> None:
        await self.pass_door()
        if self.read_only:
            raise StoreRefused("full")

    async def open(self) -> None:
        await self.pass_door()


# what a store that is full refuses
WRITES = {"put", "write", "amend", "restore", "touch", "put_many", "take"}


class Door:
    """Calls go through `pass_door` first, and writes need a store that takes them."""

    def __init__(self, store: Failing, inner: object) -> None:
        self._store = store
        self._inner = inner

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any) -> Any:
            await self._store.pass_door()
            if self._store.read_only and name in WRITES:
                raise StoreRefused("full")
            return await getattr(self._inner, name)(*args)

        return call


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def run(test: Callable[[Failing, Guarded, Clock], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(120):
            inner, clock = Failing(), Clock()
            await test(inner, Guarded(inner, 0.1, clock=clock), clock)

    asyncio.run(bounded())


async def refused(call: Awaitable[object]) -> None:
    with pytest.raises(StoreAway):
        await call


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_every_method_reaches_the_store() -> None:
    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        sets = store.labelsets
        await store.open()
        await store.ping()
        assert await sets.write("a", b"1", None, MOST) == LabelSetRecord("a", 1, b"1")
        assert await sets.amend("a", 1, b"2")
        assert await sets.get("a") == LabelSetRecord("a", 1, b"2")
        assert await sets.head("a") is not None
        assert await sets.restore(LabelSetRecord("b", 5, b"b"))
        await sets.touch("a", 1e12)
        assert list(await sets.recent()) == ["a", "b"]
        assert len(await sets.page("", END, 10)) == 2
        await sets.delete("a", 1)
        await store.vectors.put_many({"k": b"v"})
        assert list(await store.vectors.get_many(["k"])) == [b"v"]
        assert await store.rates.take("k", 1, 1, 1) == Grant(1, 0)
        await store.pictures.put("a", "0", b"picture", 100)
        assert await store.pictures.get("a", "0", 7) == b"picture"
        assert list(await store.pictures.listed()) == [("a", "0")]
        assert list(await store.pictures.missing("a", ["0", "1"])) == ["1"]
        await store.pictures.delete("a", ["0"])
        await store.close()
        assert inner.calls == 20
        assert not store.away

    run(test)


@pytest.mark.parametrize(
    ("protocol", "table"),
    [
        (LabelSetStore, guard.LABELSETS),
        (PictureStore, guard.PICTURES),
        (VectorCache, guard.VECTORS),
        (RateLimits, guard.RATES),
    ],
)
def test_every_method_of_a_store_is_in_the_table(protocol: type, table: dict[str, object]) -> None:
    assert {name for name in vars(protocol) if not name.startswith("_")} == set(table)


def test_a_damaged_key_is_an_answer_and_leaves_everything_else_as_it_is() -> None:
    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        inner.error = StoreDamaged("a key is of another kind")
        for call in (store.labelsets.recent, store.ping, lambda: store.labelsets.touch("a", 1)):
            with pytest.raises(StoreDamaged):
                await call()
        assert store.state == "ok"
        # it also ends an outage: the store answers
        inner.error = StoreAway("gone")
        await refused(store.labelsets.get("a"))
        assert store.away
        inner.error = StoreDamaged("a key is of another kind")
        clock.now = FIRST_PAUSE
        await refused(store.labelsets.get("a"))
        assert not store.away

    run(test)


def test_after_a_failure_the_store_is_not_asked_until_the_pause_is_over() -> None:
    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        inner.error = StoreAway("gone")
        await refused(store.labelsets.get("a"))
        assert store.away
        assert inner.calls == 1
        clock.now = FIRST_PAUSE - 0.01
        await refused(store.labelsets.get("a"))
        await refused(store.vectors.get_many(["a"]))
        await refused(store.ping())
        assert inner.calls == 1
        inner.error = None
        clock.now = FIRST_PAUSE
        assert await store.labelsets.get("a") is None
        assert not store.away
        assert await store.labelsets.get("a") is None

    run(test)


def test_each_failed_trial_doubles_the_pause_up_to_the_longest() -> None:
    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        inner.error = StoreAway("gone")
        await refused(store.ping())
        for pause in (0.5, 1, 2, 4, 8, LONGEST_PAUSE, LONGEST_PAUSE):
            before = inner.calls
            clock.now += pause - 0.01
            await refused(store.ping())
            assert inner.calls == before
            clock.now += 0.01
            await refused(store.ping())
            assert inner.calls == before + 1
        inner.error = None
        clock.now += LONGEST_PAUSE
        await store.ping()
        inner.error = StoreAway("gone again")
        await refused(store.ping())
        clock.now += FIRST_PAUSE
        inner.error = None
        await store.ping()

    run(test)


def test_a_store_that_hangs_is_given_up_at_the_time_limit() -> None:
    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        inner.gate.clear()
        start = asyncio.get_running_loop().time()
        await refused(store.labelsets.head("a"))
        assert 0.05 < asyncio.get_running_loop().time() - start < 1
        assert store.away

    run(test)


def test_only_one_call_at_a_time_is_a_trial() -> None:
    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        inner.error = StoreAway("gone")
        await refused(store.ping())
        clock.now += FIRST_PAUSE
        inner.error = None
        inner.gate.clear()
        trial = asyncio.create_task(store.ping())
        await turn()
        await refused(store.ping())
        await refused(store.labelsets.recent())
        assert inner.calls == 2
        inner.gate.set()
        await trial
        assert not store.away

    run(test)


def test_a_cancelled_trial_lets_another_try_at_once() -> None:
    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        inner.error = StoreAway("gone")
        await refused(store.ping())
        clock.now += FIRST_PAUSE
        inner.error = None
        inner.gate.clear()
        trial = asyncio.create_task(store.ping())
        await turn()
        trial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trial
        assert store.away
        inner.gate.set()
        await store.ping()
        assert not store.away

    run(test)


def test_calls_that_fail_together_are_one_failure() -> None:
    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        inner.error = StoreAway("gone")
        inner.gate.clear()
        calls = [asyncio.create_task(store.ping()) for _ in range(20)]
        await turn()
        inner.gate.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, StoreAway) for result in results)
        clock.now += FIRST_PAUSE
        inner.error = None
        await store.ping()

    run(test)


def test_a_call_that_began_before_an_outage_and_fails_in_it_says_nothing_new(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        inner, clock = Failing(), Clock()
        store = Guarded(inner, 60, clock=clock)
        inner.error = StoreAway("gone")

        async def begun() -> tuple[asyncio.Event, asyncio.Task[object]]:
            inner.gate = asyncio.Event()
            call = asyncio.create_task(store.labelsets.get("a"))
            await turn()
            return inner.gate, call

        (early, first), (later, second) = await begun(), await begun()
        inner.gate = asyncio.Event()
        inner.gate.set()
        await refused(store.labelsets.get("a"))
        # it lengthens no pause
        clock.now = FIRST_PAUSE / 2
        early.set()
        await refused(first)
        clock.now = FIRST_PAUSE
        answered, trial = await begun()
        assert inner.calls == 4
        # and lets nobody in beside the trial
        later.set()
        await refused(second)
        await refused(store.labelsets.get("a"))
        assert inner.calls == 4
        inner.error = None
        answered.set()
        await trial
        assert not store.away

    with caplog.at_level(logging.INFO, "openvocab.stores"):
        asyncio.run(asyncio.wait_for(test(), 240))
    assert len(caplog.messages) == 2


def test_a_conflict_and_a_full_store_are_answers_and_not_failures() -> None:
    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        for _ in range(3):
            with pytest.raises(VersionConflict):
                await store.labelsets.write("a", b"", 7, MOST)
            with pytest.raises(StoreFull):
                await store.labelsets.write("a", b"", None, 0)
        assert not store.away
        inner.error = StoreAway("gone")
        await refused(store.ping())
        clock.now += FIRST_PAUSE
        inner.error = None
        with pytest.raises(VersionConflict):
            await store.labelsets.write("a", b"", 7, MOST)
        assert not store.away

    run(test)


def test_a_fault_of_our_own_in_a_trial_does_not_block_the_next() -> None:
    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        inner.error = StoreAway("gone")
        await refused(store.ping())
        clock.now += FIRST_PAUSE
        inner.error = KeyError("a fault")
        with pytest.raises(KeyError):
            await store.ping()
        inner.error = None
        await store.ping()
        assert not store.away

    run(test)


def test_a_store_that_goes_and_comes_back_is_noticed_though_nobody_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "EVERY", 0.001)

    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        pinging = asyncio.create_task(store.keep_pinging())
        for error, state in ((StoreAway("gone"), "away"), (None, "ok")):
            inner.error = error
            clock.now += FIRST_PAUSE
            while store.state != state:
                await asyncio.sleep(0.001)
        pinging.cancel()

    run(test)


def test_a_store_away_at_the_start_is_away_until_it_answers() -> None:
    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        inner.error = StoreAway("gone")
        await refused(store.open())
        assert store.away
        inner.error = None
        clock.now += FIRST_PAUSE
        await store.ping()
        assert not store.away

    run(test)


def test_writes_may_have_a_limit_of_their_own() -> None:
    async def test() -> None:
        inner = Failing()
        store = Guarded(inner, 0.05, write_timeout=60)
        inner.gate.clear()
        write = asyncio.create_task(store.labelsets.write("a", b"", None, MOST))
        await asyncio.sleep(0.2)
        assert not write.done()
        inner.gate.set()
        assert (await write).version == 1
        inner.gate.clear()
        await refused(store.labelsets.get("a"))

    asyncio.run(test())


def test_a_call_has_the_time_limit_for_each_part_of_what_it_carries() -> None:
    def times(table: Any, name: str, *arguments: object) -> int | None:
        times: int | None = table[name][1](*arguments)
        return times

    for name, some in (("get_many", list), ("put_many", dict.fromkeys)):
        for count, chunks in ((0, 1), (1, 1), (CHUNK, 1), (CHUNK + 1, 2), (2 * CHUNK, 2)):
            assert times(guard.VECTORS, name, some(range(count))) == chunks
    assert times(guard.PICTURES, "missing", "pets", ["key"] * (CHUNK + 1)) == 2
    # one call of the server's for each
    assert [times(guard.PICTURES, "delete", "pets", ["key"] * n) for n in (0, 1, 3)] == [1, 1, 3]
    # a megabyte each, and what goes before and after
    assert times(guard.PICTURES, "put", "pets", "key", bytes(3_000_000), MOST) == 5
    assert times(guard.PICTURES, "get", "pets", "key", 3_000_000) == 5
    assert times(guard.PICTURES, "listed") is None


def test_a_store_that_answers_and_refuses_even_to_be_looked_at_takes_no_writes() -> None:
    async def test() -> None:
        inner = Failing()
        store = Guarded(inner, 60, write_timeout=60)
        await store.ping()
        inner.error = StoreRefused("damaged")
        with pytest.raises(StoreRefused):
            await store.ping()
        assert store.state == "read-only"

    asyncio.run(test())


def test_many_vectors_have_the_limit_for_each_chunk() -> None:
    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        inner.gate.clear()
        call = asyncio.create_task(store.vectors.get_many(["k"] * 300 * CHUNK))
        await asyncio.sleep(0.3)
        assert not call.done()
        inner.gate.set()
        assert len(await call) == 300 * CHUNK
        assert not store.away

    run(test)


def test_a_large_definition_has_the_limit_for_each_megabyte() -> None:
    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        large = LabelSetRecord("large", 1, b"x" * 16_000_000)
        for call in (
            store.labelsets.write("large", large.body, None, MOST),
            store.labelsets.get("large"),
            store.labelsets.page("", END, 10),
            store.labelsets.amend("large", 1, large.body),
            store.labelsets.restore(large),
        ):
            inner.gate.clear()
            task = asyncio.ensure_future(call)
            await asyncio.sleep(0.2)
            assert not task.done()
            inner.gate.set()
            await task
        assert not store.away

    run(test)


def test_one_line_is_logged_when_it_opens_and_one_when_it_closes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        inner.error = StoreAway("the reason")
        for _ in range(3):
            await refused(store.ping())
            clock.now += LONGEST_PAUSE
        inner.error = None
        for _ in range(3):
            await store.ping()

    with caplog.at_level(logging.INFO, "openvocab.stores"):
        run(test)
    opened, closed = caplog.messages
    assert "the reason" in opened
    assert "back" in closed


def test_a_store_that_takes_no_writes_is_read_as_ever() -> None:
    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        await store.labelsets.write("a", b"", None, MOST)
        inner.read_only = True
        await refused(store.vectors.put_many({"k": b"v"}))
        assert (store.state, store.away) == ("read-only", True)
        before = inner.calls
        for write in (
            store.labelsets.write("b", b"", None, MOST),
            store.labelsets.touch("a", 1.0),
            store.vectors.put_many({"k": b"v"}),
            store.rates.take("k", 1, 1, 1),
        ):
            await refused(write)
        assert inner.calls == before  # not asked again and again
        assert await store.labelsets.get("a") == LabelSetRecord("a", 1, b"")
        assert list(await store.labelsets.recent()) == ["a"]
        assert store.state == "read-only"
        clock.now += FIRST_PAUSE
        await refused(store.labelsets.write("b", b"", None, MOST))
        assert inner.calls == before + 3
        inner.read_only = False
        clock.now += 2 * FIRST_PAUSE
        await store.labelsets.write("b", b"", None, MOST)
        assert (store.state, store.away) == ("ok", False)

    run(test)


def test_a_store_that_takes_no_writes_is_asked_for_room_all_the_same() -> None:
    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        await store.labelsets.write("a", b"", None, MOST)
        await store.pictures.put("a", "0", b"picture", 100)
        inner.read_only = True
        await refused(store.vectors.put_many({"k": b"v"}))
        await store.labelsets.delete("a", 1)
        await store.pictures.delete("a", ["0"])
        assert await store.labelsets.get("a") is None
        assert await store.pictures.get("a", "0", 7) is None
        assert store.state == "read-only"  # that says nothing of other writes

    run(test)


def test_a_ping_finds_out_that_writes_are_refused_and_that_they_are_taken_again() -> None:
    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        await store.ping()
        inner.read_only = True
        await refused(store.ping())
        assert store.state == "read-only"
        inner.read_only = False
        clock.now += FIRST_PAUSE
        await store.ping()
        assert store.state == "ok"

    run(test)


def test_a_store_that_even_refuses_a_ping_because_it_cannot_write_is_read() -> None:
    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        inner.error = StoreRefused("no disk")  # what Redis answers to PING then
        await refused(store.ping())
        assert store.state == "read-only"
        inner.error = None
        assert await store.labelsets.get("a") is None

    run(test)


def test_a_store_that_goes_away_while_it_takes_no_writes_is_away_and_then_read_only() -> None:
    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        inner.read_only = True
        await refused(store.labelsets.touch("a", 1.0))
        clock.now += FIRST_PAUSE
        inner.error = StoreAway("gone")
        await refused(store.labelsets.touch("a", 1.0))
        assert store.state == "away"
        inner.error = None
        clock.now += FIRST_PAUSE
        await store.labelsets.get("a")
        assert store.state == "read-only"  # nothing has shown that it accepts writes again

    run(test)


def run_apart(test: Callable[[Failing, Guarded, Clock], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(120):
            inner, clock = Failing(), Clock()
            await test(inner, Guarded(inner, 0.05, write_timeout=0.2, clock=clock), clock)

    asyncio.run(bounded())


def test_where_writes_have_a_way_of_their_own_their_failures_say_nothing_of_reads() -> None:
    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        inner.error = StoreAway("the disk is full")
        await refused(store.labelsets.write("a", b"", None, MOST))
        assert store.state == "read-only"
        inner.error = None
        assert await store.labelsets.get("a") is None
        await refused(store.labelsets.write("a", b"", None, MOST))
        # a ping finds out that it is over
        await refused(store.ping())
        clock.now += FIRST_PAUSE
        await store.ping()
        assert store.state == "ok"
        inner.gate.clear()
        await refused(store.labelsets.write("a", b"", None, MOST))  # in its own time
        inner.gate.set()
        assert store.state == "read-only"
        assert await store.labelsets.get("a") is None

    run_apart(test)


def test_where_writes_have_a_way_of_their_own_a_busy_bucket_stops_none_of_them() -> None:
    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        inner.gate.clear()
        await refused(store.rates.take("k", 1, 1, 1))
        before = inner.calls
        await refused(store.rates.take("k", 1, 1, 1))
        assert inner.calls == before
        inner.gate.set()
        assert store.state == "ok"
        await store.labelsets.write("a", b"", None, MOST)
        clock.now += FIRST_PAUSE
        assert (await store.rates.take("k", 1, 1, 1)).granted == 1

    run_apart(test)


def test_a_ping_writes_nothing_where_writes_have_a_way_of_their_own_and_work() -> None:
    async def test(inner: Failing, store: Guarded, clock: Clock) -> None:
        inner.read_only = True
        await store.ping()
        assert inner.calls == 1

    run_apart(test)
