"""Send files to a service, several in parallel, and return the results in order.

Knows nothing of options, forms of output or what carries a request.
"""

import asyncio
import glob
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from rich.cells import cell_len

from app.cli.client import Client, Refused
from app.cli.files import Finder, FoundFile, listed, read, read_descriptor, reason
from app.cli.output import FileAnswer
from app.cli.sorting import Sorter
from app.cli.terminal import STDIN, aside, opened, printable

# labels that a summary names
SUMMED: Final = 12

# predictions of earlier pictures, and pictures, that are remembered together
REMEMBERED: Final = 100_000

# finished ones may wait for a slow one before them, so many for each that is under way
AHEAD: Final = 4


@dataclass(frozen=True, slots=True)
class Source:
    """Which files: names, and lists of names, read as they are needed."""

    names: tuple[str, ...]
    finder: Finder
    lists: str | None = None
    null: bool = False

    @property
    def single(self) -> bool:
        """Whether it is one image, by name or from stdin."""
        if self.lists is not None or len(self.names) != 1:
            return False
        name = self.names[0]
        return name == STDIN or not (os.path.isdir(name) or glob.has_magic(name))  # noqa: PTH112

    @property
    def widest(self) -> int | None:
        """Columns of the longest file name; None where that is not known before."""
        widths = (cell_len(printable(os.fspath(file.path))) for file in self._beforehand())
        return max(widths, default=None)

    @property
    def count(self) -> int | None:
        """How many files there will be; None where that is not known before."""
        return None if self.lists is not None else sum(1 for _ in self._beforehand())

    @property
    def is_empty(self) -> bool:
        """Whether it is known before that no name leads to a file."""
        return self.lists is None and not any(map(_leads_somewhere, self._beforehand()))

    def files(self) -> Iterator[FoundFile]:
        """One after the other. Raises Ended for a list that cannot be read."""
        for name in self.names:
            yield from [FoundFile(STDIN)] if name == STDIN else self.finder.found([name])
        if self.lists is not None:
            with opened(self.lists) as file:
                yield from self.finder.found(listed(file.fileno(), null=self.null))

    def _beforehand(self) -> Iterator[FoundFile]:
        """The files that `files` will give; none where a list is read, which can be read once."""
        finder = Finder(self.finder.recursive, self.finder.everything, self.finder.leave_out)
        return iter(()) if self.lists is not None else Source(self.names, finder).files()


@dataclass(slots=True)
class Tally:
    """How many files there were, how many failed, and how many have each label as their best."""

    files: int = 0
    failed: int = 0
    best: Counter[str] = field(default_factory=Counter)

    def count(self, record: FileAnswer) -> None:
        """One more file."""
        self.files += 1
        if record.problem is not None:
            self.failed += 1
        else:
            self.best[record.predictions[0]["label"] if record.predictions else ""] += 1

    def summary(self) -> str:
        """How many pictures have each label, most first: `cat 210 · dog 170 · none 20`."""
        named = [(label, n) for label, n in self.best.most_common() if label]
        parts = [f"{label} {n}" for label, n in named[:SUMMED]]
        rest = sum(n for _, n in named[SUMMED:])
        parts += [f"{len(named) - SUMMED} other labels {rest}"] * bool(rest)
        parts += [f"none {self.best['']}"] * bool(self.best[""])
        parts += [f"failed {self.failed}"] * bool(self.failed)
        return " · ".join(parts)


class Once:
    """Answers of pictures by their digest, so that exact duplicates are classified once."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._tasks: dict[bytes, asyncio.Task[dict[str, Any]]] = {}
        self._sizes: dict[bytes, int] = {}
        self._total = 0

    async def of(
        self, digest: bytes, classify: Callable[[], Coroutine[Any, Any, dict[str, Any]]]
    ) -> dict[str, Any]:
        """The result for a picture. Raises what `classify` raises; then it is requested again."""
        task = self._tasks.get(digest)
        if task is not None:
            return await task
        task = self._tasks[digest] = asyncio.create_task(classify())
        try:
            answer = await task
        except BaseException:
            del self._tasks[digest]
            raise
        results = answer["results"].values() if "results" in answer else (answer,)
        size = 1 + sum(len(result.get("predictions", ())) for result in results)
        self._sizes[digest] = size
        self._total += size
        while self._total > self._most:
            oldest = next(iter(self._sizes))
            self._total -= self._sizes.pop(oldest)
            del self._tasks[oldest]
        return answer


@dataclass(frozen=True, slots=True)
class Run:
    """Classifies each file with `fields`, `jobs` in parallel, then moves or copies it.

    `limit` in bytes of a file.
    """

    client: Client
    fields: Mapping[str, str]
    jobs: int
    limit: int
    sorter: Sorter | None = None
    known: Callable[[str], bool] | None = None
    _once: Once = field(default_factory=Once)

    async def over(self, source: Source, show: Callable[[FileAnswer], None]) -> Tally:
        """Show a record for each file, in order, as soon as those before it are there.

        Raises:
            Ended: what every file would meet.
            OSError: of `show`.
        """
        tally = Tally()
        queue: asyncio.Queue[asyncio.Task[FileAnswer] | None] = asyncio.Queue(AHEAD * self.jobs)
        places = asyncio.Semaphore(self.jobs)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._feed(source, group, queue, places))
                while (task := await queue.get()) is not None:
                    record = await self._placed(await task)
                    tally.count(record)
                    show(record)
        except BaseExceptionGroup as raised:
            raise raised.exceptions[0] from None
        return tally

    async def _feed(
        self,
        source: Source,
        group: asyncio.TaskGroup,
        queue: asyncio.Queue[asyncio.Task[FileAnswer] | None],
        places: asyncio.Semaphore,
    ) -> None:
        files = source.files()
        # a list may arrive slowly
        step: Callable[[], Awaitable[FoundFile | None]]
        step = partial(aside, partial(next, files, None)) if source.lists else _at_once(files)
        while (file := await step()) is not None:
            if self.known is not None and await aside(partial(self.known, file.path)):
                continue
            await places.acquire()
            task = group.create_task(self._classify(file))
            task.add_done_callback(lambda _: places.release())
            await queue.put(task)
        await queue.put(None)

    async def _classify(self, file: FoundFile) -> FileAnswer:
        if file.error is not None:
            return _failed(file.path, file.error)
        try:
            image, digest = await aside(partial(_image, file.path, self.limit))
            answer = await self._once.of(digest, partial(self.client.classify, image, self.fields))
            return FileAnswer(file.path, answer)
        except OSError as error:
            return _failed(file.path, reason(error))
        except ValueError as error:
            return _failed(file.path, str(error))
        except Refused as refused:
            return FileAnswer(file.path, problem=refused.problem)

    async def _placed(self, record: FileAnswer) -> FileAnswer:
        if self.sorter is None or record.answer is None:
            return record
        best = record.predictions[0]["label"] if record.predictions else None
        try:
            target = await asyncio.to_thread(self.sorter.place, record.file, best)
        except OSError as error:
            problem = {"title": "The file was not moved", "detail": reason(error)}
            return FileAnswer(record.file, record.answer, problem)
        return FileAnswer(record.file, record.answer, target=target)


def _leads_somewhere(file: FoundFile) -> bool:
    # os.path, which never raises
    return file.error is None and (file.path == STDIN or os.path.exists(file.path))  # noqa: PTH110


def _image(path: str, limit: int) -> tuple[bytes, bytes]:
    """A file and its SHA-256."""
    image = read_descriptor(sys.stdin.fileno(), limit) if path == STDIN else read(path, limit)
    return image, hashlib.sha256(image).digest()


def _failed(path: str, why: str) -> FileAnswer:
    return FileAnswer(path, problem={"title": "The file cannot be read", "detail": why})


def _at_once(files: Iterator[FoundFile]) -> Callable[[], Awaitable[FoundFile | None]]:
    async def step() -> FoundFile | None:
        return next(files, None)

    return step
