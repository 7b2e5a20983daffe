"""ZIP and TAR archives that are damaged, or made to fill the memory of who reads them."""

import gzip
import io
import os
import random
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator

import pytest

from app.errors import Problem, TooLarge, Unparsable
from app.images.archives import ArchiveLimits, entries

LIMITS = ArchiveLimits(file_bytes=100_000, bytes=1_000_000, files=100)

# bytes: a few times the largest piece that is read at once, and far less than what is sent
MOST_MEMORY = 12_000_000
DATA = os.urandom(300) + b"abc" * 300


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(files: dict[str, bytes], mode: str, form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=form) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def long_directory() -> bytes:
    """40,000 files of no bytes in 2 MB, for each of which the library makes an object."""
    entry = struct.pack(
        "<4s4B4HL2L5H2L", b"PK\1\2", 20, 0, 20, 0, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0
    )
    listing = (entry + b"a") * 40_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 40_000, 40_000, len(listing), 30, 0)
    return b"PK\3\4" + bytes(26) + listing + end


def overlapping() -> bytes:
    """20 files that are all the same 100,000 bytes."""
    packed = zipped({"a": bytes(100_000)})
    at = packed.index(b"PK\1\2")
    end = packed.index(b"PK\5\6")
    listing = packed[at:end] * 20
    return packed[:at] + listing + struct.pack(
        "<4s4H2LH", b"PK\5\6", 0, 0, 20, 20, len(listing), at, 0
    )  # fmt: skip


def holes() -> bytes:
    """A file whose map of holes goes on for 10 MB."""
    info = tarfile.TarInfo("a.png")
    info.type = tarfile.GNUTYPE_SPARSE
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[386 + 4 * 24] = 1
    head[148:156] = b"%06o\0 " % (256 + sum(head[:148]) + sum(head[156:]))
    block = (b"00000000001\0" * 42).ljust(504, b"0")[:504] + b"\1".ljust(8, b"\0")
    return gzip.compress(bytes(head) + block * 20_000 + bytes(1024))


def pax_holes() -> bytes:
    """The same, as a newer form of archive writes it."""
    info = tarfile.TarInfo("a.png")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    info.size = 10_000_000
    head = info.tobuf(tarfile.PAX_FORMAT)
    return gzip.compress(head + b"9999999\n" + b"1\n" * 5_000_000 + bytes(1024))


def remembered() -> bytes:
    """Folders between headers that hold for all that follows, each with a name of its own."""
    blocks = b""
    for number in range(300):
        record = {f"key {number}": "x" * 100_000}
        blocks += tarfile.TarInfo.create_pax_global_header(record)
        folder = tarfile.TarInfo(f"{number}")
        folder.type = tarfile.DIRTYPE
        blocks += folder.tobuf(tarfile.GNU_FORMAT)
    return gzip.compress(blocks + bytes(1024), 1)


def folders() -> bytes:
    folder = tarfile.TarInfo("a")
    folder.type = tarfile.DIRTYPE
    return folder.tobuf(tarfile.GNU_FORMAT) * 1_500 + bytes(1024)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (long_directory, "list of contents has 1880000 bytes, the limit is 1000000"),
        (holes, "ReadError"),
        (pax_holes, "ReadError"),
        (folders, "over 1000 members"),
        (lambda: tarred({"x" * 5_000: b"x"}, "w:gz"), "ReadError"),
    ],
    ids=lambda made: getattr(made, "__name__", ""),
)
def test_an_archive_does_not_fill_the_memory(made: Callable[[], bytes], said: str) -> None:
    file = io.BytesIO(made())
    tracemalloc.start()
    try:
        with pytest.raises((Unparsable, TooLarge), match=said):
            for _ in entries(file, LIMITS):
                pass
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


def test_files_that_overlap_unpack_to_no_more_than_the_limit() -> None:
    unpacked, said = 0, []
    try:
        for _, content in entries(io.BytesIO(overlapping()), LIMITS):
            unpacked += len(content) if isinstance(content, bytes) else 0
            said += [] if isinstance(content, bytes) else [content.detail]
    except TooLarge as problem:
        said.append(problem.detail)
    assert unpacked <= LIMITS.bytes
    # some releases of Python refuse each such file themselves
    assert said
    assert all("unpacks to over 1000000 bytes" in one or "BadZipFile" in one for one in said)


def test_headers_that_hold_for_all_that_follows_are_not_gathered() -> None:
    file = io.BytesIO(remembered())
    tracemalloc.start()
    try:
        assert list(entries(file, ArchiveLimits(100_000, 10**9, 10_000))) == []
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


def seeds() -> Iterator[bytes]:
    files = {"a.png": DATA, "d/" + "x" * 150: DATA}
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        yield zipped(files, method)
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
            yield tarred(files, mode, form)


def test_an_archive_that_is_damaged_anywhere_is_a_problem_and_no_fault() -> None:
    chance = random.Random(1)
    whole = list(seeds())
    problems = 0
    for _ in range(2_000):
        broken = bytearray(chance.choice(whole))
        for _ in range(chance.choice((1, 2, 10))):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        if chance.random() < 0.3:
            del broken[chance.randrange(len(broken)) :]
        try:
            found = list(entries(io.BytesIO(broken), LIMITS))
        except Problem:
            problems += 1
        else:
            problems += any(isinstance(content, Problem) for _, content in found)
    assert problems > 700
