"""Put files into one folder for each label, never over another file. Knows nothing of images.

What is done is written down first (app.undoing), so that it can be taken back.
"""

import contextlib
import errno
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from app.folder_names import folder_name
from app.transfer import transfer
from app.undoing import UndoLog


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
            raise OSError(errno.EINVAL, "It is a symbolic link, which is copied and never moved")
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
