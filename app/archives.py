"""The files in a ZIP or TAR archive, one at a time, each bounded. Knows nothing of images."""

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any, Final

from app.errors import Problem, TooLarge, Unparsable

# header records of a TAR file that say something of the next file are read into memory whole
LARGEST_HEADER: Final = 1_000_000
_HEADERS: Final = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)

# what packers on a Mac add
_ASIDE: Final = ("__MACOSX/", "._", ".DS_Store")

# whatever a damaged or hostile archive leads the library to
_FAILURES: Final = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    OSError,
    EOFError,
    RuntimeError,  # encrypted
    NotImplementedError,
    ValueError,
    OverflowError,
    IndexError,
    MemoryError,
)

Entry = tuple[str, bytes | Problem]


def looks_like_archive(start: bytes) -> bool:
    """Whether a file's first 512 bytes are those of an archive that `entries` can read."""
    return (
        start[:4] in (b"PK\x03\x04", b"PK\x05\x06")
        or start[257:262] == b"ustar"
        or start[:3] in (b"\x1f\x8b\x08", b"BZh")
        or start[:6] == b"\xfd7zXZ\0"
    )


def entries(file: IO[bytes], most_bytes: int, most_expanded: int) -> Iterator[Entry]:
    """Name and content of each regular file, in the archive's order; names are for showing only.

    A file of over `most_bytes`, or one that cannot be read, comes with its problem. What follows
    the first `most_expanded` bytes of a compressed TAR is not read.

    Raises:
        Unparsable, TooLarge: the archive itself, perhaps after some of its files.
    """
    start = file.read(4)
    file.seek(0)
    if start[:2] == b"PK":
        yield from _of_zip(file, most_bytes)
    else:
        yield from _of_tar(file, most_bytes, most_expanded)


def _of_zip(file: IO[bytes], most: int) -> Iterator[Entry]:
    try:
        archive = zipfile.ZipFile(file)
    except _FAILURES as error:
        raise _unreadable("ZIP", error) from None
    with archive:
        for info in archive.infolist():
            if not info.is_dir() and not _is_aside(info.filename):
                yield info.filename, _from_zip(archive, info, most)


def _from_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes | Problem:
    if info.file_size > most:
        return _too_large(info.file_size, most)
    try:
        with archive.open(info) as opened:
            content = opened.read(most + 1)
    except _FAILURES as error:
        return _unreadable("ZIP", error)
    return content if len(content) <= most else _too_large(len(content), most)


class _Bounded(tarfile.TarInfo):
    """A member whose header records are no larger than any honest one."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.type in _HEADERS and self.size > LARGEST_HEADER:
            raise tarfile.ReadError("a header record of over a megabyte")
        return super()._proc_member(archive)  # type: ignore[misc]


def _of_tar(file: IO[bytes], most: int, most_expanded: int) -> Iterator[Entry]:
    try:
        # as a stream, so that nothing of a compressed one is kept or read twice
        with tarfile.open(fileobj=file, mode="r|*", tarinfo=_Bounded) as archive:
            for info in archive:
                if info.offset_data + info.size > most_expanded:
                    raise _too_much(most_expanded)
                if info.isreg() and not _is_aside(info.name):
                    yield info.name, _from_tar(archive, info, most)
                archive.members.clear()  # type: ignore[attr-defined] # it would remember them all
    except _FAILURES as error:
        raise _unreadable("TAR", error) from None


def _from_tar(archive: tarfile.TarFile, info: tarfile.TarInfo, most: int) -> bytes | Problem:
    if info.size > most:
        return _too_large(info.size, most)
    opened = archive.extractfile(info)
    return b"" if opened is None else opened.read()


def _is_aside(name: str) -> bool:
    return name.startswith(_ASIDE[0]) or name.rpartition("/")[2].startswith(_ASIDE[1:])


def _unreadable(kind: str, error: BaseException) -> Unparsable:
    return Unparsable(f"the {kind} archive cannot be read ({type(error).__name__})")


def _too_large(size: int, most: int) -> TooLarge:
    detail = f"the image has {size} bytes or more, the limit is {most}"
    return TooLarge(detail, field="image", limit=most, value=size)


def _too_much(most: int) -> TooLarge:
    detail = f"the archive unpacks to over {most} bytes, the limit of max_upload_bytes"
    return TooLarge(detail, field="archive", limit=most)
