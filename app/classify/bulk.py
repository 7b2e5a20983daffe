"""Many images through the one data flow, a few at a time.

Knows nothing of HTTP or archives, nor of the contents of a result.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from app.errors import Overloaded, Problem, failure
from app.telemetry import spans

log = logging.getLogger("openvocab.batch")

R = TypeVar("R")

# images of one upload on their way at once: enough to fill batches with others', too few to keep
# others waiting; and bytes of them, beyond which one at a time goes
WINDOW: Final = 16
WINDOW_BYTES: Final = 64_000_000

# bytes of answers that wait to be read, beyond which no more images are
WAITING_BYTES: Final = 64_000_000

# seconds until an image that met a full queue is tried again
PAUSE: Final = 0.1

# images of one upload that get spans of their own
TRACED: Final = 64


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a batch, or why there is none; `name` is what its sender calls it."""

    index: int
    name: str | None
    image: bytes | Problem


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """The outcome of an item: its result, or the problem."""

    index: int
    name: str | None
    result: R | Problem

    @property
    def called(self) -> str:
        """What a sentence calls it."""
        return f"index {self.index}" if self.name is None else self.name


def _weightless(_result: object) -> int:
    return 0


async def outcomes(
    items: AsyncIterator[Item],
    work: Callable[[bytes], Awaitable[R]],
    size_of: Callable[[R], int] = _weightless,
) -> AsyncGenerator[Outcome[R] | Problem, None]:
    """One outcome for each item, as they are done; a problem at the end if the items had one.

    Never holds more than WINDOW images or, but for a single one, WINDOW_BYTES; of answers that
    nobody has read yet little more than WAITING_BYTES, counted by `size_of`.
    """
    run = _Run(items, work, size_of)
    reader = asyncio.create_task(run.read())
    try:
        while (outcome := await run.done.get()) is not None:
            yield outcome
            await run.was_read(outcome)
    finally:
        reader.cancel()
        for task in run.tasks:
            task.cancel()
        await asyncio.gather(reader, *run.tasks, return_exceptions=True)


async def every_outcome(
    items: AsyncGenerator[Item, None], work: Callable[[bytes], Awaitable[R]]
) -> list[Outcome[R]]:
    """All outcomes in the order of the items. Raises the problem that the items had."""
    collected: list[Outcome[R]] = []
    async with aclosing(items), aclosing(outcomes(items, work)) as stream:
        async for outcome in stream:
            if isinstance(outcome, Problem):
                raise outcome
            collected.append(outcome)
    return sorted(collected, key=lambda outcome: outcome.index)


class _Run(Generic[R]):
    def __init__(
        self,
        items: AsyncIterator[Item],
        work: Callable[[bytes], Awaitable[R]],
        size_of: Callable[[R], int],
    ) -> None:
        self._items = items
        self._work = work
        self._size_of = size_of
        self._bytes = 0
        self._waiting = 0  # bytes of answers in `done`
        self._room = asyncio.Condition()
        self.tasks: set[asyncio.Task[None]] = set()
        # bounded by WAITING_BYTES and not by number: a client that reads only after it has sent
        # all must not stop its own upload where the answers are small
        self.done: asyncio.Queue[Outcome[R] | Problem | None] = asyncio.Queue()

    async def read(self) -> None:
        """Begin the items as there is room for them, and say when all are done."""
        problem: Problem | None = None
        try:
            async for item in self._items:
                await self._begin(item)
        except Problem as error:
            problem = error
        except Exception as error:
            log.exception("a batch of images cannot be read")
            problem = failure(error)
        async with self._room:
            await self._room.wait_for(lambda: not self.tasks)
        if problem is not None:
            self.done.put_nowait(problem)
        self.done.put_nowait(None)

    async def was_read(self, outcome: Outcome[R] | Problem) -> None:
        """An answer has left `done` for good."""
        async with self._room:
            self._waiting -= self._size(outcome)
            self._room.notify_all()

    async def _begin(self, item: Item) -> None:
        size = 0 if isinstance(item.image, Problem) else len(item.image)
        async with self._room:
            await self._room.wait_for(lambda: self._fits(size))
            self._bytes += size
        if isinstance(item.image, Problem):
            self._put(Outcome(item.index, item.name, item.image))
        else:
            # the task needs the lock to end, and so finds itself listed
            self.tasks.add(asyncio.create_task(self._run(item, item.image)))

    def _fits(self, size: int) -> bool:
        if self._waiting >= WAITING_BYTES:
            return False
        return not self.tasks or (len(self.tasks) < WINDOW and self._bytes + size <= WINDOW_BYTES)

    def _put(self, outcome: Outcome[R]) -> None:
        self._waiting += self._size(outcome)
        self.done.put_nowait(outcome)

    async def _run(self, item: Item, image: bytes) -> None:
        result: R | Problem
        try:
            with self._span(item):
                result = await self._patiently(image)
        except Problem as error:
            result = error
        except Exception as error:
            log.exception("image %d of a batch failed", item.index)
            result = failure(error)
        self._put(Outcome(item.index, item.name, result))
        async with self._room:
            self._bytes -= len(image)
            self.tasks = {task for task in self.tasks if task is not asyncio.current_task()}
            self._room.notify_all()

    def _span(self, item: Item) -> spans.Traced:
        """A trace of ten thousand pictures would be of no use to anybody."""
        if item.index >= TRACED:
            return spans.at(None)
        return spans.span("image", index=item.index)

    async def _patiently(self, image: bytes) -> R:
        """A full queue is a reason to wait for who has time, not to fail."""
        while True:
            try:
                return await self._work(image)
            except Overloaded:
                await asyncio.sleep(PAUSE)

    def _size(self, outcome: Outcome[R] | Problem) -> int:
        """Bytes that an outcome keeps, but for what all have."""
        if isinstance(outcome, Problem):
            return 0
        result = 0 if isinstance(outcome.result, Problem) else self._size_of(outcome.result)
        return result + len(outcome.name or "")
