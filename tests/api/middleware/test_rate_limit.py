"""The rate limiter: a bucket in the store, one here while the store is away."""

import asyncio
import math

import pytest

from app.api.middleware import rate_limit
from app.api.middleware.rate_limit import FARTHEST, KEPT, RateLimiter
from app.stores.gcra import Grant
from app.stores.memory import MemoryRates
from app.stores.protocols import StoreAway


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Bucket:
    """A store with so many tokens, or none that answers."""

    def __init__(self, tokens: int, *, away: bool = False) -> None:
        self.tokens, self.away, self.calls = tokens, away, 0

    async def take(self, key: str, count: int, rate: float, burst: int) -> Grant:
        self.calls += 1
        if self.away:
            raise StoreAway("gone")
        granted = min(count, self.tokens)
        self.tokens -= granted
        return Grant(granted, 0.0 if granted else 0.5)


def test_who_comes_often_asks_the_store_seldom() -> None:
    async def run() -> None:
        bucket = Bucket(1_000)
        limiter = RateLimiter(bucket, Clock())
        waits = [await limiter.wait_for("key", 1_000, 1_000) for _ in range(100)]
        assert waits == [0.0] * 100
        assert bucket.calls == 2

    asyncio.run(run())


def test_who_was_refused_costs_the_store_nothing_until_there_is_something() -> None:
    async def run() -> None:
        clock, bucket = Clock(), Bucket(1)
        limiter = RateLimiter(bucket, clock)
        assert await limiter.wait_for("key", 2, 1) == 0
        assert await limiter.wait_for("key", 2, 1) == 0.5
        for _ in range(50):
            clock.now += 0.009
            assert 0 < await limiter.wait_for("key", 2, 1) < 0.5 + FARTHEST
        assert bucket.calls == 2
        clock.now += 0.1
        bucket.tokens = 1
        assert await limiter.wait_for("key", 2, 1) == 0
        assert await limiter.wait_for("other", 2, 1) == 0.5

    asyncio.run(run())


def test_who_is_refused_together_and_waits_as_told_is_not_refused_again() -> None:
    async def run() -> None:
        clock = Clock()
        limiter = RateLimiter(MemoryRates(clock), clock)
        waits = [await limiter.wait_for("key", 10, 10) for _ in range(50)]
        assert waits[:10] == [0.0] * 10
        # in whole seconds, as they are told
        turns = sorted(max(1, math.ceil(wait)) for wait in waits[10:])
        assert turns == [second for second in (1, 2, 3, 4) for _ in range(10)]
        for second in (1, 2, 3, 4):
            clock.now = 100.0 + second
            assert [await limiter.wait_for("key", 10, 10) for _ in range(10)] == [0.0] * 10

    asyncio.run(run())


def test_who_asks_on_without_waiting_is_not_sent_away_for_ever() -> None:
    async def run() -> None:
        limiter = RateLimiter(Bucket(0), Clock())
        waits = [await limiter.wait_for("key", 1, 1) for _ in range(100)]
        assert waits[0] == 0.5
        assert waits == sorted(waits)
        assert waits[-1] == 0.5 + FARTHEST

    asyncio.run(run())


def test_a_changed_rate_holds_at_once_for_who_was_refused_and_for_who_was_not() -> None:
    async def run() -> None:
        clock = Clock()
        limiter = RateLimiter(MemoryRates(clock), clock)
        assert await limiter.wait_for("key", 0.01, 1) == 0
        assert await limiter.wait_for("key", 0.01, 1) > 90
        # as much as the new rate has had time to give
        assert await limiter.wait_for("key", 100, 100) <= 0.01
        clock.now += 1
        assert [await limiter.wait_for("key", 100, 100) for _ in range(3)] == [0.0] * 3
        # and what was fetched at it is not spent at a lower one
        assert await limiter.wait_for("key", 0.01, 1) > 0

    asyncio.run(run())


def test_what_was_fetched_lapses() -> None:
    async def run() -> None:
        clock, bucket = Clock(), Bucket(1_000)
        limiter = RateLimiter(bucket, clock)
        await limiter.wait_for("key", 1_000, 1_000)
        clock.now += KEPT + 0.1
        await limiter.wait_for("key", 1_000, 1_000)
        assert bucket.calls == 2

    asyncio.run(run())


def test_of_more_callers_than_are_remembered_the_one_that_is_longest_gone_begins_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_limit, "REMEMBERED", 2)

    async def run() -> None:
        bucket = Bucket(1_000)
        limiter = RateLimiter(bucket, Clock())
        for name in ("often", "once", "often", "new", "often", "new"):
            await limiter.wait_for(name, 1_000, 1_000)
        assert bucket.calls == 3  # each has tokens left
        await limiter.wait_for("once", 1_000, 1_000)
        assert bucket.calls == 4
        assert len(limiter._callers) == 2

    asyncio.run(run())


def test_while_the_store_is_away_each_process_counts_for_itself() -> None:
    async def run() -> None:
        clock = Clock()
        limiter = RateLimiter(Bucket(0, away=True), clock)
        waits = [await limiter.wait_for("key", 1, 3) for _ in range(4)]
        assert waits[:3] == [0.0] * 3
        assert 0 < waits[3] <= 1
        clock.now += 1.01
        assert await limiter.wait_for("key", 1, 3) == 0
        assert await limiter.wait_for("key", 1, 3) > 0

    asyncio.run(run())
