"""The files in a ZIP or TAR archive, one at a time, each bounded. Knows nothing of images."""

import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Final, NoReturn

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

# bytes of a ZIP file's list of contents for each file that may be in it, and in any case
PER_FILE: Final = 500
LEAST_DIRECTORY: Final = 1_000_000

# members for each file that may be in it: folders, and what packers on a Mac add
PER_MEMBER: Final = 4
LEAST_MEMBERS: Final = 1_000

# characters of a name with its folders
LONGEST_NAME: Final = 4_096

# what packers on a Mac add
_ASIDE: Final = ("__MACOSX/", "._", ".DS_Store")

# whatever a damaged or hostile archive leads the library to
_FAILURES: Final = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    EOFError,
    RuntimeError,  # encrypted
    NotImplementedError,
    ValueError,
    OverflowError,
    IndexError,
    TypeError,
    AttributeError,  # where tarfile looks for the error class of a stream it could not open
    MemoryError,
)

Entry = tuple[str, bytes | Problem]


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Bytes of one file and of all together when unpacked, and how many files there may be."""

    file_bytes: int
    bytes: int
    files: int


def looks_like_archive(start: bytes) -> bool:
    """Whether a file's first 512 bytes are those of an archive that `entries` can read."""
    return (
        start[:4] in (b"PK\x03\x04", b"PK\x05\x06")
        or start[257:262] == b"ustar"
        or start[:3] in (b"\x1f\x8b\x08", b"BZh")
        or start[:6] == b"\xfd7zXZ\0"
    )


def entries(file: IO[bytes], limits: ArchiveLimits) -> Iterator[Entry]:
    """Name and content of each regular file, in the archive's order; names are for showing only.

    A file that is too large, or cannot be read, comes with its problem. Memory does not grow with
    the archive.

    Raises:
        Unparsable, TooLarge: the archive itself, perhaps after some of its files.
    """
    start = file.read(4)
    file.seek(0)
    yield from (_of_zip if start[:2] == b"PK" else _of_tar)(file, limits)


def _of_zip(file: IO[bytes], limits: ArchiveLimits) -> Iterator[Entry]:
    try:
        _check_directory(file, limits)
        archive = zipfile.ZipFile(file)
    except _FAILURES as error:
        raise _unreadable("ZIP", error) from None
    unpacked = 0
    with archive:
        for info in archive.infolist():
            # not is_dir, which an empty name breaks
            if info.filename.endswith("/") or _is_aside(info.filename):
                continue
            content = _from_zip(archive, info, limits.file_bytes)
            # entries may overlap: few bytes can be unpacked many times
            unpacked += len(content) if isinstance(content, bytes) else 0
            if unpacked > limits.bytes:
                raise _too_much(limits.bytes)
            yield info.filename, content


def _check_directory(file: IO[bytes], limits: ArchiveLimits) -> None:
    """The library reads the list of contents into memory whole, at ten times its size."""
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    most = max(LEAST_DIRECTORY, PER_FILE * limits.files)
    if end and end[zipfile._ECD_SIZE] > most:  # type: ignore[attr-defined]
        size = end[zipfile._ECD_SIZE]  # type: ignore[attr-defined]
        detail = f"the archive's list of contents has {size} bytes, the limit is {most}"
        raise TooLarge(detail, field="archive", limit=most, value=size)


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
    """A member whose header records are no larger than any honest one, and which has no holes."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.type in _HEADERS and self.size > LARGEST_HEADER:
            raise tarfile.ReadError("a header record of over a megabyte")
        return super()._proc_member(archive)  # type: ignore[misc]

    # their maps of holes are read into memory whole, however long
    def _proc_sparse(self, _archive: tarfile.TarFile) -> NoReturn:
        raise tarfile.ReadError("a file with holes")

    def _proc_gnusparse_10(self, *_: Any) -> NoReturn:
        raise tarfile.ReadError("a file with holes")


def _of_tar(file: IO[bytes], limits: ArchiveLimits) -> Iterator[Entry]:
    most_members = max(LEAST_MEMBERS, PER_MEMBER * limits.files)
    try:
        # as a stream, so that nothing of a compressed one is kept or read twice
        with tarfile.open(fileobj=file, mode="r|*", tarinfo=_Bounded) as archive:
            for number, info in enumerate(archive, start=1):
                if info.offset_data + info.size > limits.bytes:
                    raise _too_much(limits.bytes)
                if number > most_members:
                    detail = f"the archive has over {most_members} members"
                    raise TooLarge(detail, field="archive", limit=most_members)
                if len(info.name) > LONGEST_NAME:
                    raise tarfile.ReadError(f"a name of over {LONGEST_NAME} characters")
                if info.isreg() and not _is_aside(info.name):
                    yield info.name, _from_tar(archive, info, limits.file_bytes)
                archive.members.clear()  # type: ignore[attr-defined] # it would remember them all
                archive.pax_headers.clear()  # type: ignore[attr-defined] # and these
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
