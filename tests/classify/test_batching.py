"""Continuous batching: order, gathering, cancelled callers, failing items, the end."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from app.classify import batching
from app.classify.batching import Batcher, BatchPolicy
from app.errors import LONGEST_RETRY, Draining, Overloaded, Unavailable


class Consumer:
    """Doubles numbers when it is let; writes down its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.running = self.most_running = 0
        self.fails: Callable[[list[int]], Exception | None] = lambda batch: None

    async def __call__(self, batch: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(batch))
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        try:
            await self.open.wait()
            if error := self.fails(list(batch)):
                raise error
            return [2 * item for item in batch]
        finally:
            self.running -= 1


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(240):
            await test()

    asyncio.run(bounded())


async def turn() -> None:
    """Let everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_lone_item_goes_at_once() -> None:
    async def test() -> None:
        consumer = Consumer()
        batcher = Batcher(consumer, BatchPolicy())
        assert (await batcher.submit(4)).value == 8
        assert consumer.batches == [[4]]

    run(test)


def test_arrivals_gather_while_the_consumer_is_busy_and_keep_their_order() -> None:
    async def test() -> None:
        consumer = Consumer()
        consumer.open.clear()
        batcher = Batcher(consumer, BatchPolicy(max_batch=3))
        first = asyncio.create_task(batcher.submit(0))
        await turn()
        rest = [asyncio.create_task(batcher.submit(n)) for n in range(1, 6)]
        await turn()
        assert batcher.queued == 5
        consumer.open.set()
        assert [(await task).value for task in (first, *rest)] == [0, 2, 4, 6, 8, 10]
        assert consumer.batches == [[0], [1, 2, 3], [4, 5]]

    run(test)


def test_items_of_one_turn_share_a_batch() -> None:
    async def test() -> None:
        consumer = Consumer()
        batcher = Batcher(consumer, BatchPolicy())
        await asyncio.gather(*(batcher.submit(n) for n in range(4)))
        assert consumer.batches == [[0, 1, 2, 3]]

    run(test)


def test_a_late_caller_waits_behind_an_early_one_and_no_longer() -> None:
    async def test() -> None:
        consumer = Consumer()
        consumer.open.clear()
        batcher = Batcher(consumer, BatchPolicy(max_batch=2))
        flood = [asyncio.create_task(batcher.submit(n)) for n in range(5)]
        await turn()
        late = asyncio.create_task(batcher.submit(100))
        await turn()
        more = [asyncio.create_task(batcher.submit(n)) for n in range(200, 205)]
        consumer.open.set()
        await asyncio.gather(*flood, late, *more)
        assert [item for batch in consumer.batches for item in batch].index(100) == 5

    run(test)


@pytest.mark.parametrize("in_flight", [1, 2])
def test_no_more_batches_are_in_flight_than_allowed(in_flight: int) -> None:
    async def test() -> None:
        consumer = Consumer()
        consumer.open.clear()
        batcher = Batcher(consumer, BatchPolicy(max_batch=1, in_flight=in_flight))
        tasks = [asyncio.create_task(batcher.submit(n)) for n in range(8)]
        await turn()
        assert consumer.running == in_flight
        consumer.open.set()
        await asyncio.gather(*tasks)
        assert consumer.most_running == in_flight

    run(test)


def test_a_cancelled_caller_is_not_encoded() -> None:
    async def test() -> None:
        consumer = Consumer()
        consumer.open.clear()
        batcher = Batcher(consumer, BatchPolicy())
        first = asyncio.create_task(batcher.submit(0))
        await turn()
        leaver, stayer = (asyncio.create_task(batcher.submit(n)) for n in (1, 2))
        await turn()
        leaver.cancel()
        consumer.open.set()
        assert (await stayer).value == 4
        await first
        assert consumer.batches == [[0], [2]]

    run(test)


def test_a_caller_cancelled_in_its_batch_harms_nobody() -> None:
    async def test() -> None:
        consumer = Consumer()
        consumer.open.clear()
        batcher = Batcher(consumer, BatchPolicy())
        leaver, stayer = (asyncio.create_task(batcher.submit(n)) for n in (1, 2))
        await turn()
        leaver.cancel()
        await turn()
        consumer.open.set()
        assert (await stayer).value == 4
        assert (await batcher.submit(3)).value == 6

    run(test)


def test_a_failing_item_fails_alone_and_the_loop_lives() -> None:
    async def test() -> None:
        consumer = Consumer()
        consumer.fails = lambda batch: ValueError("13") if 13 in batch else None
        batcher = Batcher(consumer, BatchPolicy())
        outcomes = await asyncio.gather(
            *(batcher.submit(n) for n in (1, 13, 2)), return_exceptions=True
        )
        assert [getattr(outcome, "value", type(outcome)) for outcome in outcomes] == [
            2,
            ValueError,
            4,
        ]
        assert consumer.batches == [[1, 13, 2], [1], [13, 2], [13], [2]]
        assert (await batcher.submit(5)).value == 10

    run(test)


def test_a_failure_of_the_batch_alone_costs_nobody_anything() -> None:
    async def test() -> None:
        consumer = Consumer()
        consumer.fails = lambda batch: MemoryError() if len(batch) > 1 else None
        batcher = Batcher(consumer, BatchPolicy())
        outcomes = await asyncio.gather(*(batcher.submit(n) for n in range(3)))
        assert [outcome.value for outcome in outcomes] == [0, 2, 4]

    run(test)


def test_a_consumer_that_loses_results_is_an_error_of_its_batch() -> None:
    async def test() -> None:
        async def loses(batch: Sequence[int]) -> Sequence[int]:
            return []

        with pytest.raises(RuntimeError, match="This is a bug"):
            await Batcher(loses, BatchPolicy()).submit(1)

    run(test)


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    async def test() -> None:
        consumer = Consumer()
        consumer.open.clear()
        batcher = Batcher(consumer, BatchPolicy(max_queue=2))
        waiting = [asyncio.create_task(batcher.submit(0))]
        await turn()
        waiting += [asyncio.create_task(batcher.submit(n)) for n in (1, 2)]
        await turn()
        with pytest.raises(Overloaded) as caught:
            await batcher.submit(3)
        assert caught.value.limit == 2
        assert caught.value.retry_after is not None
        assert caught.value.retry_after >= 1
        consumer.open.set()
        await asyncio.gather(*waiting)

    run(test)


def test_a_full_queue_is_told_to_come_back_when_it_will_be_done_at_the_pace_so_far(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(batching, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    async def retry_after(seconds: float) -> int | None:
        clock.now = 0.0
        consumer = Consumer()
        consumer.open.clear()
        batcher = Batcher(consumer, BatchPolicy(max_batch=4, max_queue=6))
        tasks = [asyncio.create_task(batcher.submit(n)) for n in range(4)]
        await turn()
        clock.now = seconds
        consumer.open.set()
        await asyncio.gather(*tasks)
        consumer.open.clear()
        tasks = [asyncio.create_task(batcher.submit(0))]
        await turn()
        tasks += [asyncio.create_task(batcher.submit(n)) for n in range(6)]
        await turn()
        with pytest.raises(Overloaded) as caught:
            await batcher.submit(9)
        consumer.open.set()
        await asyncio.gather(*tasks)
        return caught.value.retry_after

    async def test() -> None:
        # two seconds for each of four, and six wait
        assert await retry_after(8.0) == 12
        assert await retry_after(800.0) == LONGEST_RETRY

    run(test)


def test_a_consumer_that_is_away_fails_its_batch_and_is_not_asked_again_in_halves() -> None:
    async def test() -> None:
        consumer = Consumer()
        consumer.fails = lambda batch: Unavailable("no encoder is there")
        batcher = Batcher(consumer, BatchPolicy())
        outcomes = await asyncio.gather(
            *(batcher.submit(n) for n in range(4)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [Unavailable] * 4
        assert consumer.batches == [[0, 1, 2, 3]]

    run(test)


def test_callers_that_left_make_room_in_a_full_queue() -> None:
    async def test() -> None:
        consumer = Consumer()
        consumer.open.clear()
        batcher = Batcher(consumer, BatchPolicy(max_queue=2))
        first = asyncio.create_task(batcher.submit(0))
        await turn()
        leavers = [asyncio.create_task(batcher.submit(n)) for n in (1, 2)]
        await turn()
        for leaver in leavers:
            leaver.cancel()
        await turn()
        stayer = asyncio.create_task(batcher.submit(3))
        await turn()
        consumer.open.set()
        await asyncio.gather(first, stayer)
        assert consumer.batches == [[0], [3]]

    run(test)


def test_draining_refuses_new_items_and_finishes_the_accepted_ones() -> None:
    async def test() -> None:
        consumer = Consumer()
        consumer.open.clear()
        batcher = Batcher(consumer, BatchPolicy(max_batch=2))
        accepted = [asyncio.create_task(batcher.submit(n)) for n in range(5)]
        await turn()
        drained = asyncio.create_task(batcher.drain())
        await turn()
        with pytest.raises(Draining):
            await batcher.submit(9)
        assert not drained.done()
        consumer.open.set()
        await drained
        assert [(await task).value for task in accepted] == [0, 2, 4, 6, 8]

    run(test)


def test_waiting_and_running_are_timed_apart() -> None:
    async def test() -> None:
        async def slow(batch: Sequence[Any]) -> Sequence[Any]:
            await asyncio.sleep(0.05)
            return batch

        batcher = Batcher(slow, BatchPolicy(max_batch=1))
        start = time.perf_counter()
        first, second = await asyncio.gather(batcher.submit(1), batcher.submit(2))
        passed = time.perf_counter() - start
        assert first.ran > 0.04
        assert second.ran > 0.04
        assert first.ran <= second.waited <= passed - second.ran

    run(test)
