"""Numbers by name in memory that processes share. Knows nothing of what they count.

Each page has one writer and any number of readers, and no lock: a writer that hangs or dies keeps
nobody waiting, and what it wrote stays. A page whose process is gone is handed to the next one,
which counts on where it ended, so that no sum ever goes down. The memory has no name in any file
system, so nothing is left behind when the last process is gone, however it ended.
"""

import contextlib
import json
import mmap
import os
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

# bytes of a page; what is not written to takes no memory
SIZE: Final = 1 << 19
WORD: Final = 8

# the words of a page before its first record
USED: Final = 0
OWNER: Final = 1  # a process id, 0 where nobody writes
SIGN: Final = 2  # time.monotonic() at the last sign of its owner
FIRST: Final = 3

# unread words at the end: for numbers that do not fit on a full page
SCRATCH: Final = 64


@dataclass(frozen=True, slots=True)
class MetricRecord:
    """Some numbers under a name: their `place` among the words of the page, and how many."""

    name: tuple[str, ...]
    place: int
    count: int


class Page:
    """The numbers that one process writes; a word is written or read whole."""

    def __init__(self, memory: memoryview) -> None:
        self._bytes = memory
        self.words = memory.cast("d")
        self._places: dict[tuple[str, ...], int] = {}
        self._adding = threading.Lock()
        self._read: list[MetricRecord] = []
        self._read_to = FIRST

    @property
    def owned(self) -> bool:
        """Whether a process writes here."""
        return self.words[OWNER] != 0

    @property
    def silent(self) -> float:
        """Seconds since the last sign of its owner."""
        return max(0.0, time.monotonic() - self.words[SIGN])

    def open(self) -> None:
        """Write here from now on, continuing the numbers of the previous writer."""
        self.words[USED] = max(self.words[USED], FIRST)
        self._places = {record.name: record.place for record in self.records()}

    def sign(self) -> None:
        """Report that this process owns the page and is alive."""
        self.words[SIGN] = time.monotonic()
        self.words[OWNER] = os.getpid()

    def disown(self) -> None:
        """This page has no writer any more."""
        self.words[OWNER] = 0

    def place(self, name: tuple[str, ...], count: int) -> int:
        """Where `count` numbers of this name are; new ones are 0."""
        place = self._places.get(name)
        if place is None:
            with self._adding:
                place = self._places.get(name)
                if place is None:
                    place = self._places[name] = self._add(name, count)
        return place

    def records(self) -> list[MetricRecord]:
        """All that is there."""
        used = int(self.words[USED])
        while self._read_to < used:
            at = self._read_to
            length, count = int(self.words[at]), int(self.words[at + 1])
            begin = (at + 2) * WORD
            name = tuple(json.loads(bytes(self._bytes[begin : begin + length])))
            place = at + 2 + -(-length // WORD)
            self._read.append(MetricRecord(name, place, count))
            self._read_to = place + count
        return self._read

    def _add(self, name: tuple[str, ...], count: int) -> int:
        key = json.dumps(name).encode()
        at = int(self.words[USED])
        place = at + 2 + -(-len(key) // WORD)
        if place + count > len(self.words) - SCRATCH:
            return len(self.words) - SCRATCH
        self.words[at], self.words[at + 1] = len(key), count
        self._bytes[(at + 2) * WORD : (at + 2) * WORD + len(key)] = key
        # last: a reader, or whoever comes after a kill, finds all of it or nothing
        self.words[USED] = place + count
        return place


class Board:
    """The pages of all processes of one server. Can be sent to a process as it is started."""

    def __init__(self, count: int, file: int | None = None) -> None:
        self._file = _nameless(count * SIZE) if file is None else file
        self._closing = weakref.finalize(self, os.close, self._file)
        memory = memoryview(mmap.mmap(self._file, count * SIZE))
        self.pages = [Page(memory[n * SIZE : (n + 1) * SIZE]) for n in range(count)]
        self._taken: set[int] = set()

    def take(self) -> int | None:
        """The number of a free page, or None; for the process that assigns them."""
        free = (number for number in range(len(self.pages)) if number not in self._taken)
        number = next(free, None)
        if number is not None:
            self._taken.add(number)
        return number

    def give_back(self, number: int) -> None:
        """Its process is gone."""
        self.pages[number].disown()
        self._taken.discard(number)

    def __reduce__(self) -> Any:
        from multiprocessing.reduction import DupFd  # not on Windows

        return _received, (len(self.pages), DupFd(self._file))


def _received(count: int, file: Any) -> Board:
    return Board(count, file.detach())


def _nameless(size: int) -> int:
    """A file of zeros that no folder lists."""
    with contextlib.ExitStack() as stack:
        if hasattr(os, "memfd_create"):
            file = os.memfd_create("openvocab-metrics")
            stack.callback(os.close, file)
        else:
            file = stack.enter_context(tempfile.TemporaryFile()).fileno()
        os.ftruncate(file, size)
        return os.dup(file)


def pages_of(board: Board) -> Iterator[Page]:
    """Those with numbers in them."""
    return (page for page in board.pages if page.words[USED] > FIRST)
