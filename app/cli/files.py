"""Find the files that a command names: files, folders, patterns, lists. Knows nothing of images.

Names are as the system has them (os.fsdecode), whatever bytes they are made of.
"""

import codecs
import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.images.names import is_junk

# extensions of the formats that are read, be it only where they are enabled
IMAGE_SUFFIXES: Final = frozenset(
    (
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff",
        ".avif", ".heic", ".heif", ".svg", ".jxl", ".jp2", ".j2k",
    )
)  # fmt: skip

# bytes of a list that are read at once
BLOCK: Final = 65_536


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file, or a name that leads to none and why."""

    path: str
    error: str | None = None


@dataclass(slots=True)
class Finder:
    """How folders are searched; `skipped` counts files that were passed over, `linked` folders.

    Without `everything` only files with an image's suffix are taken from a folder, and nothing
    whose name begins with a dot. `leave_out` is a folder that is never entered. What systems add to
    folders (`Thumbs.db`, `__MACOSX`) is never taken, nor counted.
    """

    recursive: bool = True
    everything: bool = False
    leave_out: Path | None = None
    skipped: int = 0
    linked: int = 0

    def found(self, names: Iterable[str]) -> Iterator[FoundFile]:
        """The files of the names, one after the other, as they are needed."""
        for name in names:
            # pathlib would drop the slash that makes a link to a folder a folder
            if os.path.isdir(name):  # noqa: PTH112
                yield from self._inside(name)
            elif glob.has_magic(name) and not os.path.lexists(name):
                yield from self._matching(name)
            else:
                yield FoundFile(name)

    def passed_over(self, advice: str = "") -> Iterator[str]:
        """What was passed over, in sentences; `advice` is how to have the files taken."""
        if self.skipped:
            files = "file" if self.skipped == 1 else "files"
            yield f"skipped {self.skipped:,} {files} without an image extension{advice}"
        if self.linked:
            folders = "folder" if self.linked == 1 else "folders"
            yield f"skipped {self.linked:,} linked {folders}"

    def _matching(self, pattern: str) -> Iterator[FoundFile]:
        matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
        if not matches:
            yield FoundFile(pattern, "no file matches this pattern")
        for match in matches:
            if not os.path.isdir(match):  # noqa: PTH112
                yield FoundFile(match)
            elif "**" not in pattern:  # where ** stands, the files inside have matched already
                yield from self._inside(match)

    def _inside(self, root: str) -> Iterator[FoundFile]:
        """A folder's files by name, then those of the folders in it. Links to folders stay out.

        A link that leads nowhere is there like a file that cannot be read.
        """
        waiting = [root]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(folder) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                yield FoundFile(folder, reason(error))
                continue
            inner = []
            for entry in entries:
                if is_junk(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    inner.append(entry)
                elif entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112
                    self.linked += self.recursive and self._entered(entry)
                elif self._is_taken(entry):
                    yield FoundFile(entry.path)
            if self.recursive:
                waiting += [e.path for e in reversed(inner) if self._entered(e)]

    def _is_taken(self, entry: os.DirEntry[str]) -> bool:
        suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122
        named = not entry.name.startswith(".") and suffix in IMAGE_SUFFIXES
        wanted = self.everything or named
        try:
            taken = wanted and entry.is_file()
        except OSError:  # a link in a circle
            taken = False
        if wanted and not taken and entry.is_symlink():
            # one that leads nowhere is a picture that is missing: who reads it says why
            taken = not os.path.exists(entry.path)  # noqa: PTH110 (never raises)
        self.skipped += not taken
        return taken

    def _entered(self, entry: os.DirEntry[str]) -> bool:
        if entry.name.startswith(".") and not self.everything:
            return False
        return self.leave_out is None or Path(entry.path).resolve() != self.leave_out


def listed(source: int, *, null: bool) -> Iterator[str]:
    """The names that a file descriptor gives, one a line; or with NUL between them.

    A first block that holds NUL is taken for the latter. Lines may be as Windows writes them.
    """
    rest, first, mark = b"", True, codecs.BOM_UTF8
    # not a Python stream: whoever ends while another thread reads from one crashes
    while block := os.read(source, BLOCK):
        null, first = null or (first and b"\0" in block), False
        *names, rest = (rest + block).split(b"\0" if null else b"\n")
        if names and mark:
            names[0], mark = names[0].removeprefix(mark), b""
        yield from _decoded(names, null)
    yield from _decoded([rest.removeprefix(mark)], null)


def _decoded(names: Iterable[bytes], null: bool) -> Iterator[str]:
    for name in names:
        # a file's name may end so, but hardly ever does
        windows = not null and name.endswith(b"\r") and not os.path.lexists(name)
        kept = name[:-1] if windows else name
        if kept:
            yield os.fsdecode(kept)


def read(path: str, limit: int) -> bytes:
    """A file's bytes.

    Raises: OSError; ValueError for a file of more than `limit` bytes.
    """
    with Path(path).open("rb") as file:
        return read_descriptor(file.fileno(), limit)


def read_descriptor(source: int, limit: int) -> bytes:
    """The same for what is open already."""
    pieces, left = [], limit + 1
    while left and (piece := os.read(source, min(left, 1_048_576))):
        pieces.append(piece)
        left -= len(piece)
    if not left:
        raise ValueError(f"it exceeds {limit} bytes, the limit for an image file")
    return b"".join(pieces)


def reason(error: OSError) -> str:
    """What went wrong, without the file name, which is printed anyway."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
