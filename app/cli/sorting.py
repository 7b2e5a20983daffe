"""Files put into folders by their labels; a record of it, written before, and the way back.

Knows nothing of labels. JSON lines: a header, then an entry for each file or folder.
"""

import contextlib
import errno
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final

from app.classify.labels import folder_name
from app.cli.files import reason

_parts: Final = itertools.count()


def transfer(source: Path, target: Path, *, copy: bool = False) -> None:
    """Move or copy a file to a name that is free; all of it is there, or nothing.

    Raises: FileExistsError where the name is taken; OSError.
    """
    # whoever makes the name has it: a rename alone would replace another's file
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        if copy:
            _copy(source, target)
        else:
            _move(source, target)
    except BaseException:
        # never what may be the only one left
        if os.path.lexists(source):
            target.unlink(missing_ok=True)
        raise


def _move(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(source, target)
        source.unlink()


def _copy(source: Path, target: Path) -> None:
    """Through a file of another name, which becomes the target when all of it is on the disk."""
    part = target.with_name(f".openvocab-{os.getpid()}-{next(_parts)}.part")
    try:
        shutil.copyfile(source, part)
        with part.open("r+b") as file:  # Windows syncs only what is open for writing
            shutil.copystat(source, part)
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """What a folder lists is on the disk, where the system can do that."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


HEADER: Final = {"openvocab": "undo", "format": 1}


class BadUndoFile(ValueError):
    """A file that is not an undo log; one line for the user."""


class UndoLog:
    """Writes the record; the file is made with its first entry, and never over another one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIOWrapper | None = None

    @property
    def begun(self) -> bool:
        """Whether there is anything to take back."""
        return self._file is not None

    def note(self, source: Path, target: Path, *, copy: bool) -> None:
        """That a file is about to be moved or copied. Raises OSError."""
        state = source.stat()
        entry = {"from": str(source), "to": str(target), "size": state.st_size}
        self._write({"do": "copy" if copy else "move", **entry, "mtime_ns": state.st_mtime_ns})

    def note_folder(self, folder: Path) -> None:
        """That a folder is about to be made. Raises OSError."""
        self._write({"do": "folder", "to": str(folder)})

    def close(self) -> None:
        """Nothing more is written."""
        if self._file is not None:
            self._file.close()

    def _write(self, entry: dict[str, Any]) -> None:
        fresh = self._file is None
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("x", encoding="ascii")
            self._file.write(json.dumps(HEADER) + "\n")
        # ASCII: a name that is not UTF-8 is written as halves of surrogate pairs, and read back
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        if fresh:
            sync_folder(self.path.parent)


def default_log(folder: Path) -> UndoLog:
    """A record in the folder that files are sorted into, named by the time."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return UndoLog(folder / f"openvocab-undo-{stamp}-{os.getpid()}.jsonl")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing taken back, from `path` to `target`, or why it was not."""

    path: str
    target: str
    error: str | None = None


def undo(path: Path, *, dry: bool = False) -> Iterator[Step]:
    """Take back what a record says, last first; what was taken back already is passed over.

    Raises:
        BadUndoFile: the file is no record.
        OSError: it cannot be read.
    """
    for entry in reversed(_entries(path)):
        try:
            step = _taken_back(entry, dry)
        except OSError as error:
            step = Step(entry["to"], entry.get("from", ""), reason(error))
        if step is not None:
            yield step


def _entries(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = file.read().split("\n")
    whole = lines[:-1]  # what an interruption left of a last line never happened
    try:
        header, *entries = [json.loads(line) for line in whole]
        if header != HEADER or not all(_is_entry(entry) for entry in entries):
            raise ValueError
    except (ValueError, RecursionError):
        raise BadUndoFile(f"{path} is not an openvocab undo log") from None
    return entries


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("to"), str):
        return False
    numbers = (entry.get("size"), entry.get("mtime_ns"))
    file = isinstance(entry.get("from"), str) and all(isinstance(n, int) for n in numbers)
    return entry.get("do") == "folder" or (entry.get("do") in ("move", "copy") and file)


def _taken_back(entry: dict[str, Any], dry: bool) -> Step | None:
    """What was done about an entry; None where there is nothing to do. Raises OSError."""
    target = Path(entry["to"])
    if entry["do"] == "folder":
        if not dry and target.is_dir() and not any(target.iterdir()):
            target.rmdir()
        return None
    source = Path(entry["from"])
    at_source, at_target = os.path.lexists(source), os.path.lexists(target)
    if not at_target:
        return None if at_source else Step(str(target), str(source), "it is in neither place")
    if entry["do"] == "move" and not at_source:
        if not dry:
            source.parent.mkdir(parents=True, exist_ok=True)
            transfer(target, source)
        return Step(str(target), str(source))
    return _removed(entry, source, target, dry)


def _removed(entry: dict[str, Any], source: Path, target: Path, dry: bool) -> Step:
    """Of two equal files the one that was made goes; one of no bytes only kept the name."""
    if not os.path.lexists(source):
        return Step(str(target), str(source), "it is the only copy left: the original is gone")
    if target.stat().st_size and not (_is_as_noted(target, entry) and _is_as_noted(source, entry)):
        other = "another file is in its old place" if entry["do"] == "move" else "it was changed"
        return Step(str(target), str(source), other)
    if not dry:
        target.unlink()
    return Step(str(target), str(source))


def _is_as_noted(path: Path, entry: dict[str, Any]) -> bool:
    state = path.stat()
    return (state.st_size, state.st_mtime_ns) == (entry["size"], entry["mtime_ns"])


class Sorter:
    """Moves or copies files below `folder`; `dry` only says where each would go."""

    def __init__(self, folder: Path, undo: UndoLog, *, copy: bool, dry: bool = False) -> None:
        self._folder = folder
        self._undo = undo
        self._copy = copy
        self._dry = dry
        self._planned: set[str] = set()
        self._numbers: dict[str, int] = {}

    def place(self, path: str, label: str | None) -> str:
        """Where the file is afterwards. Raises OSError."""
        if not self._copy and Path(path).is_symlink():
            why = "It is a symbolic link, which stays where it is; --copy-to copies its target"
            raise OSError(errno.EINVAL, why)
        source = Path(path).absolute()
        folder = self._folder / folder_name(label)
        with contextlib.suppress(OSError):
            if source.parent.samefile(folder):
                return path  # it is where it belongs
        if not self._dry:
            self._make(folder)
        for target in self._free(folder / source.name):
            if self._dry:
                self._planned.add(str(target))
                return str(target)
            self._undo.note(source, target.absolute(), copy=self._copy)
            with contextlib.suppress(FileExistsError):  # somebody was faster
                transfer(source, target, copy=self._copy)
                return str(target)
        raise AssertionError("the numbers ended. This is a bug.")

    def _make(self, folder: Path) -> None:
        if not folder.exists():
            self._undo.note_folder(folder.absolute())
            folder.mkdir(parents=True, exist_ok=True)

    def _free(self, target: Path) -> Iterator[Path]:
        """Names that nothing has: the file's own, then with (2), (3) and so on."""
        key = str(target)
        for number in itertools.count(self._numbers.get(key, 1)):
            numbered = target.with_name(f"{target.stem} ({number}){target.suffix}")
            chosen = target if number == 1 else numbered
            if os.path.lexists(chosen) or str(chosen) in self._planned:
                self._numbers[key] = number + 1
                continue
            yield chosen
