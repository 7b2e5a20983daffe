"""Many images through the one data flow, a few at a time. Knows nothing of HTTP or archives."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from app.classifier import Classification
from app.errors import Internal, Overloaded, Problem

log = logging.getLogger("openvocab.batch")

# images of one upload on their way at once: enough to fill batches with others', too few to keep
# others waiting; and bytes of them, beyond which one at a time goes
WINDOW: Final = 16
WINDOW_BYTES: Final = 64_000_000

# seconds until an image that met a full queue is tried again
PAUSE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a batch, or why there is none; `name` is what its sender calls it."""

    index: int
    name: str | None
    image: bytes | Problem


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an item."""

    index: int
    name: str | None
    found: Classification | Problem


Classify = Callable[[bytes], Awaitable[Classification]]


async def outcomes(
    items: AsyncIterator[Item], classify: Classify
) -> AsyncGenerator[Outcome | Problem, None]:
    """One outcome for each item, as they are done; a problem at the end if the items had one.

    Never holds more than WINDOW images or, but for a single one, WINDOW_BYTES.
    """
    run = _Run(items, classify)
    reader = asyncio.create_task(run.read())
    try:
        while (outcome := await run.done.get()) is not None:
            yield outcome
    finally:
        reader.cancel()
        for task in run.tasks:
            task.cancel()
        await asyncio.gather(reader, *run.tasks, return_exceptions=True)


class _Run:
    def __init__(self, items: AsyncIterator[Item], classify: Classify) -> None:
        self._items = items
        self._classify = classify
        self._bytes = 0
        self._room = asyncio.Condition()
        self.tasks: set[asyncio.Task[None]] = set()
        # not bounded: a client that reads only after it has sent all must not stop its own upload,
        # and what waits here is small
        self.done: asyncio.Queue[Outcome | Problem | None] = asyncio.Queue()

    async def read(self) -> None:
        """Begin the items as there is room for them, and say when all are done."""
        problem: Problem | None = None
        try:
            async for item in self._items:
                await self._begin(item)
        except Problem as error:
            problem = error
        except Exception:
            log.exception("a batch of images cannot be read")
            problem = Internal("the server failed; its log tells more")
        async with self._room:
            await self._room.wait_for(lambda: not self.tasks)
        if problem is not None:
            self.done.put_nowait(problem)
        self.done.put_nowait(None)

    async def _begin(self, item: Item) -> None:
        if isinstance(item.image, Problem):
            self.done.put_nowait(Outcome(item.index, item.name, item.image))
            return
        size = len(item.image)
        async with self._room:
            await self._room.wait_for(lambda: self._fits(size))
            self._bytes += size
        # the task needs the lock to end, and so finds itself listed
        self.tasks.add(asyncio.create_task(self._run(item, item.image)))

    def _fits(self, size: int) -> bool:
        return not self.tasks or (len(self.tasks) < WINDOW and self._bytes + size <= WINDOW_BYTES)

    async def _run(self, item: Item, image: bytes) -> None:
        found: Classification | Problem
        try:
            found = await self._patiently(image)
        except Problem as error:
            found = error
        except Exception:
            log.exception("image %d of a batch failed", item.index)
            found = Internal("the server failed; its log tells more")
        self.done.put_nowait(Outcome(item.index, item.name, found))
        async with self._room:
            self._bytes -= len(image)
            self.tasks = {one for one in self.tasks if one is not asyncio.current_task()}
            self._room.notify_all()

    async def _patiently(self, image: bytes) -> Classification:
        """A full queue is a reason to wait for who has time, not to fail."""
        while True:
            try:
                return await self._classify(image)
            except Overloaded:
                await asyncio.sleep(PAUSE)
