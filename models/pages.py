"""Give back what only the start needed of this process's memory (Linux). Knows no model."""

import contextlib
import ctypes
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SMAPS: Final = Path("/proc/self/smaps")
# of mmap(2), the same on every processor of Linux
DONTNEED: Final = 4
# of mallopt(3)
ARENA_MAX: Final = -8

# smaps(5): addresses, permissions, offset, device, inode, path; then lines of figures
_MAPPING: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \d+ +(/.*)")
_CHANGED: Final = re.compile(r"Anonymous: +(\d+) kB")


def limit_arenas() -> None:
    """Have all threads allocate from one heap, before there are any (glibc).

    By itself each thread gets a heap, whose free parts no other one uses.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # TypeError: Windows
        ctypes.CDLL(None).mallopt(ARENA_MAX, 1)


def release(*folders: Path) -> None:
    """Let go of pages of files below these folders, and of freed memory.

    Such a page comes back from the file, which the system's cache still has, when it is used: of a
    weight in the order that a kernel wants there is a copy, and most of a compiler is never needed
    again. Pages that were written, as a library's relocated ones, stay.
    """
    # another system, or another libc
    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        below = tuple(f"{folder.resolve()}/" for folder in folders)
        for start, stop in list(_unchanged(below)):
            libc.madvise(start, stop - start, DONTNEED)
        libc.malloc_trim(0)


def _unchanged(below: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    place: tuple[int, int] | None = None
    for line in SMAPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        if mapping := _MAPPING.fullmatch(line):
            start, stop, may, path = mapping.groups()
            fits = "w" not in may and path.startswith(below)
            place = (int(start, 16), int(stop, 16)) if fits else None
        elif place and (changed := _CHANGED.fullmatch(line)):
            if changed[1] == "0":
                yield place
            place = None
