"""Move or copy one file to a name that is free. Knows nothing of why."""

import contextlib
import errno
import itertools
import os
import shutil
from pathlib import Path
from typing import Final

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
        shutil.copy2(source, part)
        with part.open("rb") as file:
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
