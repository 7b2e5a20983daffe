"""The files in a ZIP or TAR archive, one at a time, each bounded. Knows nothing of images.

Everything is unpacked in small pieces, and no more of it than `ArchiveLimits` and the size of the
archive itself allow.
"""

import bz2
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, Final, NoReturn

from app.errors import Problem, TooLarge, Unparsable
from app.images.decompression import (
    XZ_MEMORY,
    Budget,
    Decoder,
    Unpacked,
    decoder_of,
    deflate,
    lzma_alone,
)
from app.images.names import coding_of, is_aside

# header records of a TAR file that say something of the next file are read into memory whole;
# all together may have so many bytes, and ten for each byte of the archive
LARGEST_HEADER: Final = 65_536
LEAST_HEADERS: Final = 1_000_000
HEADER_TIMES: Final = 10
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

# bytes of a ZIP file's header before a member, and two of its flags
ZIP_HEAD: Final = 30
ZIP_ENCRYPTED: Final = 0x41
ZIP_ENDS: Final = 0x02  # LZMA data with a mark at its end

# whatever a damaged or hostile archive leads the library to
_FAILURES: Final = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    OverflowError,
    LookupError,
    TypeError,
    AttributeError,
    MemoryError,
)

# the flag of a ZIP entry whose name is UTF-8 (APPNOTE 4.4.4)
UTF_8: Final = 0x800

Entry = tuple[str, bytes | Problem]


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Bytes of one file and of all together when unpacked, and how many files there may be."""

    file_bytes: int
    bytes: int
    files: int


def looks_like_archive(start: bytes) -> bool:
    """Whether a file's first 512 bytes are those of an archive that `entries` can read."""
    return start[:4] in (b"PK\x03\x04", b"PK\x05\x06") or start[257:262] == b"ustar" or (
        decoder_of(start) is not None
    )  # fmt: skip


def _never() -> bool:
    return False


def entries(
    file: IO[bytes], limits: ArchiveLimits, stopped: Callable[[], bool] = _never
) -> Iterator[Entry]:
    """Name and content of each regular file, in the archive's order; names are for showing only.

    A file that is too large, or cannot be read, comes with its problem. Memory does not grow with
    the archive. `stopped` is asked between pieces, from the thread that reads.

    Raises:
        Unparsable, TooLarge: the archive itself, perhaps after some of its files.
        Stopped: as `stopped` says.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = file.read(6)
    file.seek(0)
    budget = Budget(size, limits.file_bytes, limits.bytes, stopped)
    if start[:2] == b"PK":
        yield from _of_zip(file, limits, budget)
    else:
        yield from _of_tar(file, start, limits, budget)


ZIP_METHODS: Final[Mapping[int, Callable[[], Decoder] | None]] = {
    zipfile.ZIP_STORED: None,
    zipfile.ZIP_DEFLATED: deflate,
    zipfile.ZIP_BZIP2: bz2.BZ2Decompressor,
    zipfile.ZIP_LZMA: lzma_alone,
}


def _of_zip(file: IO[bytes], limits: ArchiveLimits, budget: Budget) -> Iterator[Entry]:
    try:
        _check_directory(file, limits)
        archive = zipfile.ZipFile(file)
    except _FAILURES as error:
        raise _unreadable("ZIP", error) from None
    coding = coding_of([n for info in archive.infolist() if (n := _raw_name(info)) is not None])
    for info in archive.infolist():
        # not is_dir, which an empty name breaks
        if info.filename.endswith(("/", "\\")) or _is_aside(info.filename):
            continue
        yield _zip_name(info, coding), _from_zip(file, info, limits.file_bytes, budget)


def _from_zip(file: IO[bytes], info: zipfile.ZipInfo, most: int, budget: Budget) -> bytes | Problem:
    """The content of a member, or why there is none."""
    if info.file_size > most:
        return _too_large(info.file_size, most)
    if info.flag_bits & ZIP_ENCRYPTED:
        detail = "the file is encrypted; pack it without a password"
        return Unparsable(detail, field="archive")
    if info.compress_type not in ZIP_METHODS:
        detail = f"the file uses compression method {info.compress_type}, which is not supported"
        return Unparsable(f"{detail}; pack it with deflate", field="archive")
    try:
        # entries may overlap: few bytes can be unpacked many times, which the budget bounds
        return _unzipped(file, info, budget)
    except _FAILURES as error:
        return _unreadable("ZIP", error)


def _check_directory(file: IO[bytes], limits: ArchiveLimits) -> None:
    """The library reads the list of contents into memory whole, at ten times its size."""
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    most = max(LEAST_DIRECTORY, PER_FILE * limits.files)
    if end and end[zipfile._ECD_SIZE] > most:  # type: ignore[attr-defined]
        size = end[zipfile._ECD_SIZE]  # type: ignore[attr-defined]
        detail = f"the archive's directory has {size} bytes, the limit is {most}"
        raise TooLarge(detail, field="archive", limit=most, value=size)


def _unzipped(file: IO[bytes], info: zipfile.ZipInfo, budget: Budget) -> bytes:
    """The content of a member; the library's own reader unpacks bzip2 and LZMA without bounds."""
    file.seek(info.header_offset)
    head = file.read(ZIP_HEAD)
    if head[:4] != b"PK\x03\x04" or len(head) < ZIP_HEAD:
        raise zipfile.BadZipFile("no file where the directory says")
    name, extra = struct.unpack("<HH", head[26:])
    file.seek(name + extra, io.SEEK_CUR)
    length, start = info.compress_size, b""
    if info.compress_type == zipfile.ZIP_LZMA:
        # a version, how long the properties are, and these: as a file of LZMA has them, and a size
        _, properties = struct.unpack("<HH", file.read(4))
        start = file.read(properties) + struct.pack(
            "<q", -1 if info.flag_bits & ZIP_ENDS else info.file_size
        )
        length -= 4 + properties
    decoder = ZIP_METHODS[info.compress_type]
    unpacked = Unpacked(file, length, decoder, budget, start=start)
    content = unpacked.read(info.file_size + 1)
    if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
        raise zipfile.BadZipFile("not the size or checksum in the directory")
    return content


class _Member(tarfile.TarInfo):
    """A member whose header records are no larger than any honest one, and which has no holes."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Member":
        """The next one. Raises ReadError where the library would take damage for the end."""
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from None

    def _proc_member(self, archive: "_Tar") -> Any:
        if self.size < 0:
            raise tarfile.ReadError("a file of negative size")
        if self.type in _HEADERS:
            archive.spend_on_header(self.size)
        return super()._proc_member(archive)  # type: ignore[misc]

    # their maps of holes are read into memory whole, however long
    def _proc_sparse(self, _archive: tarfile.TarFile) -> NoReturn:
        raise tarfile.ReadError("a sparse file")

    def _proc_gnusparse_10(self, *_: Any) -> NoReturn:
        raise tarfile.ReadError("a sparse file")


class _Tar(tarfile.TarFile):
    """A TAR archive that is read forwards, within a budget."""

    tarinfo = _Member

    def __init__(self, unpacked: Unpacked, budget: Budget) -> None:
        # before the first member, which the library reads at once
        self._left = LEAST_HEADERS + HEADER_TIMES * budget.size
        super().__init__(fileobj=unpacked)

    def spend_on_header(self, count: int) -> None:
        """So many bytes are those of a header record. Raises tarfile.ReadError."""
        self._left -= count
        if count > LARGEST_HEADER or self._left < 0:
            raise tarfile.ReadError("oversized header records")


def _of_tar(
    file: IO[bytes], start: bytes, limits: ArchiveLimits, budget: Budget
) -> Iterator[Entry]:
    most_members = max(LEAST_MEMBERS, PER_MEMBER * limits.files)
    unpacked = Unpacked(file, budget.size, decoder_of(start), budget, streams=True)
    try:
        with _Tar(unpacked, budget) as archive:
            for number, info in enumerate(archive, start=1):
                # before anything of it is passed over
                budget.check(info.offset_data + info.size)
                if number > most_members:
                    detail = f"the archive has over {most_members} members"
                    raise TooLarge(detail, field="archive", limit=most_members)
                if len(info.name) > LONGEST_NAME:
                    raise tarfile.ReadError(f"a name of over {LONGEST_NAME} characters")
                if info.isreg() and not _is_aside(info.name):
                    yield _tar_name(info.name), _from_tar(unpacked, info, limits.file_bytes)
                archive.members.clear()  # type: ignore[attr-defined] # it would remember them all
                archive.pax_headers.clear()  # type: ignore[attr-defined] # and these
    except _FAILURES as error:
        raise _unreadable("TAR", error) from None


def _from_tar(unpacked: Unpacked, info: tarfile.TarInfo, most: int) -> bytes | Problem:
    if info.size > most:
        return _too_large(info.size, most)
    unpacked.seek(info.offset_data)
    content = unpacked.read(info.size)
    if len(content) < info.size:
        raise tarfile.ReadError("the archive ends in the middle of a file")
    return content


def _is_aside(name: str) -> bool:
    return any(map(is_aside, _posix(name).split("/")))


def _posix(name: str) -> str:
    """A name with its folders as everybody but some packers on Windows writes it."""
    return name.replace("\\", "/")


def _raw_name(info: zipfile.ZipInfo) -> bytes | None:
    """The bytes of a name whose coding the archive does not tell."""
    if info.flag_bits & UTF_8:
        return None
    try:
        return info.filename.encode("cp437")
    except UnicodeError:
        return None  # the library knew better, by an extra field


def _zip_name(info: zipfile.ZipInfo, coding: str) -> str:
    """The name of a file; one without its mark is in the coding that all such names are in."""
    raw = _raw_name(info)
    return _posix(info.filename if raw is None else raw.decode(coding, "replace"))


def _tar_name(name: str) -> str:
    """The name of a file, whose bytes are UTF-8 mostly."""
    raw = name.encode("utf-8", "surrogateescape")
    return _posix(raw.decode(coding_of([raw]), "replace"))


def _unreadable(kind: str, error: BaseException) -> Problem:
    if isinstance(error, lzma.LZMAError) and "emory" in str(error):
        detail = f"the {kind} archive needs over {XZ_MEMORY} bytes of memory to unpack"
        return TooLarge(detail, field="archive", limit=XZ_MEMORY)
    return Unparsable(f"the {kind} archive cannot be read ({type(error).__name__})")


def _too_large(size: int, most: int) -> TooLarge:
    detail = f"the image has {size} bytes or more, the limit is {most}"
    return TooLarge(detail, field="image", limit=most, value=size)
