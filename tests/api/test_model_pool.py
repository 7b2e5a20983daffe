"""The pool of models alone: who is served, what makes room, and what goes when nobody uses it.

Time is simulated: it goes on to the next thing that is due, so that a minute takes no time.
"""

import asyncio
import random
import selectors
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import pytest

from app.api.model_pool import RETRY_AFTER, ModelPool, Room
from app.errors import ModelLoading, NotReady
from models import ModelError

T = TypeVar("T")


class _Now(selectors.SelectSelector):
    """Waits for nothing, and says so if nothing is left to wait for."""

    seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits for what never happens"
        self.seconds += max(timeout, 0)
        return super().select(0)


class _Simulated(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._now = _Now()
        super().__init__(self._now)

    def time(self) -> float:
        return self._now.seconds


def run(test: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        return await test()

    with asyncio.Runner(loop_factory=_Simulated) as runner:
        return runner.run(main())


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass(eq=False)
class Parts:
    """What is loaded of a model, with the requests that have it."""

    name: str
    leases: int = 0
    served: int = 0
    busy: bool = False


@dataclass
class Models:
    """Loads models and ends them; writes down what must never be."""

    most: int = 0
    download_seconds: Callable[[str], float] = lambda name: 0.0
    load_seconds: Callable[[], float] = lambda: 1.0
    end_seconds: Callable[[], float] = lambda: 0.1
    fails: Callable[[str], bool] = lambda name: False
    is_missing: Callable[[str], bool] = lambda name: False
    inside: list[Parts] = field(default_factory=list)
    loads: list[Parts] = field(default_factory=list)
    failed_at: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    reading: int = 0

    async def load(self, name: str, room: Room) -> tuple[Parts, Callable[[], Awaitable[None]]]:
        await asyncio.sleep(self.download_seconds(name))
        if self.is_missing(name):
            raise ModelError(f"{name} is nowhere")
        await room()
        # the first one is there, too
        if self.most and len(self.inside) + 2 > self.most:
            self.broken.append(f"no room for {name} beside {self.inside}")
        if self.reading:
            self.broken.append(f"{name} is read while another one is")
        self.reading += 1
        await asyncio.sleep(self.load_seconds())
        self.reading -= 1
        if self.fails(name):
            self.failed_at[name] = now()
            raise ModelError(f"{name} is broken")
        parts = Parts(name)
        self.loads.append(parts)
        self.inside.append(parts)

        async def end() -> None:
            if parts.leases:
                self.broken.append(f"{name} ends while {parts.leases} requests use it")
            await asyncio.sleep(self.end_seconds())
            self.inside.remove(parts)

        return parts, end

    def pool(self, names: str, idle: float = 0.0) -> ModelPool[Parts]:
        """Models with names of one letter, the first of which is loaded."""
        pool = ModelPool(
            names,
            self.load,
            {},
            self.most,
            idle,
            observe=lambda: asyncio.sleep(0.01),
            busy=lambda parts: parts.busy,
            clock=now,
        )
        pool.start(Parts(names[0]))
        return pool

    @property
    def names(self) -> str:
        return "".join(sorted(parts.name for parts in self.inside))


async def use(
    pool: ModelPool[Parts], name: str, seconds: float = 0.0, patience: float = 30.0
) -> Parts:
    """A request that has a model for so long."""
    with await pool.use(name, patience) as parts:
        assert parts.name == name
        parts.leases += 1
        parts.served += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            parts.leases -= 1
    return parts


def test_models_that_are_asked_for_at_once_are_each_loaded_once_and_serve() -> None:
    async def test() -> None:
        models = Models(most=2)
        pool = models.pool("abcd")
        await asyncio.gather(*(use(pool, name) for name in "bcdbcd"))
        assert [(parts.name, parts.served) for parts in models.loads] == [
            ("b", 2), ("c", 2), ("d", 2)
        ]  # fmt: skip
        await pool.close()
        assert (models.inside, models.broken) == ([], [])

    run(test)


def test_requests_that_overlap_do_not_keep_another_model_out() -> None:
    async def test() -> None:
        models = Models(most=2)
        pool = models.pool("abc")
        await use(pool, "b")

        async def again_and_again(start: float) -> None:
            await asyncio.sleep(start)
            while now() < 100:
                await use(pool, "b", 2.0)

        overlapping = [asyncio.create_task(again_and_again(start)) for start in (0, 0.5, 1, 1.5)]
        await asyncio.sleep(10)
        # as long as those take that are under way, and the load
        await use(pool, "c", patience=3.2)
        await asyncio.gather(*overlapping)
        assert [parts.name for parts in models.loads] == ["b", "c", "b"]

    run(test)


def test_one_that_nobody_uses_makes_room_before_one_that_is_in_use() -> None:
    async def test() -> None:
        models = Models(most=3)
        pool = models.pool("abcd")
        long = asyncio.create_task(use(pool, "b", 60.0))
        await asyncio.sleep(5)
        await use(pool, "c")
        await use(pool, "d")
        assert models.names == "bd"
        assert not long.done()
        # the one that is in use is as good as ever
        await use(pool, "b", patience=0)
        await long

    run(test)


def test_of_those_that_nobody_uses_the_one_used_longest_ago_makes_room() -> None:
    async def test() -> None:
        models = Models(most=3)
        pool = models.pool("abcd")
        for name in "bcbd":
            await use(pool, name, 1.0)
        assert models.names == "bd"

    run(test)


def test_a_download_takes_no_room_and_holds_up_nobody() -> None:
    async def test() -> None:
        models = Models(most=2, download_seconds=lambda name: 600.0 if name == "d" else 0.0)
        pool = models.pool("abcd")
        await use(pool, "b")
        downloading = asyncio.create_task(use(pool, "d", patience=700))
        await asyncio.sleep(60)
        await use(pool, "b", patience=0)
        await use(pool, "c", patience=2)
        assert (models.names, pool.states()[-1].state) == ("c", "loading")
        await downloading
        assert (models.names, models.broken) == ("d", [])

    run(test)


def test_a_model_that_cannot_be_had_unloads_no_other() -> None:
    async def test() -> None:
        models = Models(most=2, is_missing=lambda name: name == "c")
        pool = models.pool("abc")
        await use(pool, "b")
        with pytest.raises(NotReady, match="c is nowhere"):
            await use(pool, "c")
        await use(pool, "b", patience=0)
        assert [parts.name for parts in models.loads] == ["b"]

    run(test)


def test_one_that_is_busy_is_not_idle_until_it_has_been_done_for_a_while() -> None:
    async def test() -> None:
        models = Models()
        pool = models.pool("ab", idle=10)
        parts = await use(pool, "b")
        parts.busy = True
        await asyncio.sleep(100)
        assert models.names == "b"
        parts.busy = False
        await asyncio.sleep(8)
        assert models.names == "b"
        await asyncio.sleep(4)
        assert models.names == ""
        await pool.close()

    run(test)


def test_one_that_is_busy_makes_room_last() -> None:
    async def test() -> None:
        models = Models(most=3)
        pool = models.pool("abcd")
        building = await use(pool, "b")
        building.busy = True
        asking = asyncio.create_task(use(pool, "c", 10.0))
        await asyncio.sleep(5)
        (await use(pool, "d")).busy = True
        # what ended was in use, and was waited for
        assert (models.names, asking.done()) == ("bd", True)
        await use(pool, "c")
        assert models.names == "cd"

    run(test)


def test_a_model_that_is_in_use_is_not_idle() -> None:
    async def test() -> None:
        models = Models()
        pool = models.pool("ab", idle=10)
        await use(pool, "b", 100.0)
        assert len(models.loads) == 1
        await asyncio.sleep(12)
        assert models.inside == []
        await pool.close()

    run(test)


def test_a_request_that_gives_up_keeps_nothing_loaded() -> None:
    async def test() -> None:
        models = Models(most=2)
        pool = models.pool("abc")
        with pytest.raises(ModelLoading):
            await use(pool, "b", patience=0.5)
        left = asyncio.create_task(use(pool, "b"))
        await asyncio.sleep(0.25)
        left.cancel()
        await use(pool, "c", patience=3)
        assert models.names == "c"

    run(test)


def test_all_who_waited_for_a_model_that_fails_are_told_and_it_is_tried_again_later() -> None:
    async def test() -> None:
        broken = True
        models = Models(fails=lambda name: broken and name == "b")
        pool = models.pool("abc")
        results = await asyncio.gather(*(use(pool, "b") for _ in range(3)), return_exceptions=True)
        assert [str(result) for result in results] == ["b is broken"] * 3
        assert [state.state for state in pool.states()] == ["loaded", "failed", "loading"]
        broken = False
        with pytest.raises(NotReady):
            await use(pool, "b")
        await asyncio.sleep(RETRY_AFTER)
        await use(pool, "b")
        assert [state.reason for state in pool.states()] == [None] * 3

    run(test)


def test_the_end_waits_for_requests_and_leaves_nothing_loaded() -> None:
    async def test() -> None:
        models = Models(most=3)
        pool = models.pool("abcd")
        last = asyncio.create_task(use(pool, "b", 20.0))
        await asyncio.sleep(2)
        waiting = [asyncio.create_task(use(pool, name, 20.0)) for name in "cd"]
        await asyncio.sleep(5)
        # one is in use, one leaves and is in use, one waits for the room
        await pool.close()
        assert last.done()
        assert (models.inside, models.broken) == ([], [])
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [Parts, ModelLoading]

    run(test)


LONGEST = {"download": 4.0, "use": 5.0, "load": 3.0, "end": 0.5}


@pytest.mark.parametrize("seed", range(16))
def test_whoever_waits_long_enough_is_served_whatever_others_ask(seed: int) -> None:
    """A thousand requests by chance: bursts, pauses, some that leave, and loads that fail."""
    dice = random.Random(seed)
    most, idle, failing = dice.choice([0, 2, 3, 4]), dice.choice([0.0, 0.5, 4.0]), seed % 3 == 0
    names = "abcdef"[: dice.randint(max(3, most), 6)]
    models = Models(
        most,
        lambda _: dice.choice([0.0, dice.uniform(0, LONGEST["download"])]),
        lambda: dice.uniform(0, LONGEST["load"]),
        lambda: dice.uniform(0, LONGEST["end"]),
        lambda name: failing and dice.random() < 0.1,
    )
    # before a request each other model may have its turn once, then its own, and one that idles
    longest_wait = (len(names) + 1) * (sum(LONGEST.values()) + 0.02)
    ends: Counter[str] = Counter()

    async def request(pool: ModelPool[Parts], start: float) -> None:
        await asyncio.sleep(start)
        name = dice.choice(names + names[-1] * 2)
        seconds = dice.choice([0.0, dice.uniform(0, 0.2), dice.uniform(0, LONGEST["use"])])
        patient = dice.random() < 0.8
        patience = longest_wait if patient else dice.uniform(0, 4)
        try:
            async with asyncio.timeout(None if patient else dice.uniform(0, 8)):
                parts = await use(pool, name, seconds, patience)
            parts.busy = dice.random() < 0.2
            ends["served"] += 1
        except (ModelLoading, TimeoutError):
            ends["left"] += 1
            if patient:
                models.broken.append(f"{name} was not loaded within {patience} s")
        except NotReady:
            ends["failed"] += 1
            if now() - models.failed_at[name] > RETRY_AFTER:
                models.broken.append(f"{name} was not tried again")

    async def test() -> None:
        pool = models.pool(names, idle)
        start, requests = 0.0, []
        for _ in range(1000):
            if dice.random() < 0.3:
                start += dice.choice([dice.uniform(0, 0.1), dice.uniform(0, 3), dice.uniform(0, 9)])
            requests.append(request(pool, start))
        await asyncio.gather(*requests)
        for parts in models.inside:
            parts.busy = False
        if idle:
            await asyncio.sleep(idle + 1 + len(names) * sum(LONGEST.values()))
            assert models.inside == []
        await pool.close()

    run(test)
    assert models.broken == []
    assert models.inside == []
    assert ends.total() == 1000
    assert ends["served"] > 500
    # all are loaded at the start if all are to be
    unasked = len(names) if not most else 0
    assert sum(not parts.served for parts in models.loads) <= ends["left"] + unasked
