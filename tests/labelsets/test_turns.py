"""Builds take turns: by namespace, and small ones pass large ones."""

import asyncio

from app.labelsets.turns import AT_ONCE, SMALL, Turns

LARGE = 100_000


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Step:
    """One step of a build, which ends when it is told to."""

    def __init__(self, turns: Turns, namespace: str, remaining: int) -> None:
        self.runs = False
        self.end = asyncio.Event()

        async def work() -> None:
            async with turns.turn(namespace, remaining):
                self.runs = True
                await self.end.wait()
            self.runs = False

        self.task = asyncio.create_task(work())


def test_a_namespace_waits_for_no_other() -> None:
    async def test() -> None:
        turns = Turns()
        large = [Step(turns, "a", LARGE) for _ in range(10)]
        other = Step(turns, "b", LARGE)
        await settle()
        assert sum(step.runs for step in large) == AT_ONCE
        assert other.runs
        for step in (*large, other):
            step.end.set()
        await asyncio.gather(*(step.task for step in (*large, other)))
        assert not turns._queues

    asyncio.run(test())


def test_a_small_build_passes_large_ones_and_these_still_come_to_their_end() -> None:
    async def test() -> None:
        turns = Turns()
        large = [Step(turns, "a", LARGE) for _ in range(AT_ONCE + 2)]
        await settle()
        small = Step(turns, "a", SMALL)
        await settle()
        assert small.runs
        # the place that it had beside the others is not a large one's
        small.end.set()
        await settle()
        assert sum(step.runs for step in large) == AT_ONCE
        middle = [Step(turns, "a", SMALL + 1) for _ in range(4)]
        await settle()
        assert not any(step.runs for step in middle)
        large[0].end.set()
        await settle()
        assert middle[0].runs
        middle[0].end.set()
        await settle()
        assert large[AT_ONCE].runs  # every second place goes to who waits the longest
        for step in (*large, *middle):
            step.end.set()
        await asyncio.gather(*(step.task for step in (*large, *middle)))
        assert not turns._queues

    asyncio.run(test())


def test_a_cancelled_step_passes_its_turn_on() -> None:
    async def test() -> None:
        turns = Turns()
        steps = [Step(turns, "a", LARGE) for _ in range(AT_ONCE + 3)]
        await settle()
        steps[AT_ONCE].task.cancel()
        steps[0].end.set()
        # its turn comes in the same moment in which it is cancelled
        await asyncio.sleep(0)
        steps[AT_ONCE + 1].task.cancel()
        await settle()
        assert steps[AT_ONCE + 2].runs
        for step in steps:
            step.end.set()
        await asyncio.gather(*(step.task for step in steps), return_exceptions=True)
        assert not turns._queues

    asyncio.run(test())
