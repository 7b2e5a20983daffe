"""Send files to a service, many at once, and hand out what became of them in order.

Knows nothing of options, forms of output or what carries a request.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from app.cli.client import Client, Refused
from app.cli.files import Finder, Found, listed, read, read_descriptor, reason
from app.cli.output import Record
from app.cli.sorting import Sorter
from app.cli.terminal import STDIN, aside, opened

# finished ones may wait for a slow one before them, so many for each that is under way
AHEAD: Final = 4


@dataclass(frozen=True, slots=True)
class Source:
    """Which files: names, and lists of names, read as they are needed."""

    names: tuple[str, ...]
    finder: Finder
    lists: str | None = None
    null: bool = False

    def files(self) -> Iterator[Found]:
        """One after the other. Raises Ended for a list that cannot be read."""
        for name in self.names:
            yield from [Found(STDIN)] if name == STDIN else self.finder.found([name])
        if self.lists is not None:
            with opened(self.lists) as file:
                yield from self.finder.found(listed(file.fileno(), null=self.null))


@dataclass(slots=True)
class Tally:
    """How many files there were, and how many could not be classified or put in their place."""

    files: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """What is done with each file: asked with `fields`, `jobs` at once, then put in its place.

    `limit` in bytes of a file.
    """

    client: Client
    fields: Mapping[str, str]
    jobs: int
    limit: int
    sorter: Sorter | None = None

    async def over(self, source: Source, show: Callable[[Record], None]) -> Tally:
        """Show a record for each file, in order, as soon as those before it are there.

        Raises:
            Ended: what every file would meet.
            OSError: of `show`.
        """
        tally = Tally()
        queue: asyncio.Queue[asyncio.Task[Record] | None] = asyncio.Queue(AHEAD * self.jobs)
        places = asyncio.Semaphore(self.jobs)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._feed(source, group, queue, places))
                while (task := await queue.get()) is not None:
                    record = await self._placed(await task)
                    tally.files += 1
                    tally.failed += record.problem is not None
                    show(record)
        except BaseExceptionGroup as raised:
            raise raised.exceptions[0] from None
        return tally

    async def _feed(
        self,
        source: Source,
        group: asyncio.TaskGroup,
        queue: asyncio.Queue[asyncio.Task[Record] | None],
        places: asyncio.Semaphore,
    ) -> None:
        files = source.files()
        # a list may come as slowly as whoever writes it
        step: Callable[[], Awaitable[Found | None]]
        step = partial(aside, partial(next, files, None)) if source.lists else _at_once(files)
        while (found := await step()) is not None:
            await places.acquire()
            task = group.create_task(self._one(found))
            task.add_done_callback(lambda _: places.release())
            await queue.put(task)
        await queue.put(None)

    async def _one(self, found: Found) -> Record:
        if found.error is not None:
            return _failed(found.path, found.error)
        try:
            image = await aside(partial(_image, found.path, self.limit))
            return Record(found.path, await self.client.classify(image, self.fields))
        except OSError as error:
            return _failed(found.path, reason(error))
        except ValueError as error:
            return _failed(found.path, str(error))
        except Refused as refused:
            return Record(found.path, problem=refused.problem)

    async def _placed(self, record: Record) -> Record:
        if self.sorter is None or record.answer is None:
            return record
        best = record.predictions[0]["label"] if record.predictions else None
        try:
            target = await asyncio.to_thread(self.sorter.place, record.file, best)
        except OSError as error:
            problem = {"title": "The file stays where it is", "detail": reason(error)}
            return Record(record.file, record.answer, problem)
        return Record(record.file, record.answer, target=target)


def _image(path: str, limit: int) -> bytes:
    if path == STDIN:
        return read_descriptor(sys.stdin.fileno(), limit)
    return read(path, limit)


def _failed(path: str, why: str) -> Record:
    return Record(path, problem={"title": "The file cannot be read", "detail": why})


def _at_once(files: Iterator[Found]) -> Callable[[], Awaitable[Found | None]]:
    async def step() -> Found | None:
        return next(files, None)

    return step


def counted(source: Source) -> int | None:
    """How many files there will be; None where that is not known before."""
    if source.lists is not None:
        return None
    finder = Finder(source.finder.recursive, source.finder.everything, source.finder.leave_out)
    return sum(1 for _ in Source(source.names, finder).files())
