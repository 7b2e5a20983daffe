"""ZIP and TAR archives that are damaged, or made to fill the memory of who reads them."""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import random
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator

import pytest

from app.errors import Problem, TooLarge, Unparsable
from app.images.archives import ArchiveLimits, entries
from app.images.decompression import Stopped

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
        record = {f"key {number}": "x" * 60_000}
        blocks += tarfile.TarInfo.create_pax_global_header(record)
        folder = tarfile.TarInfo(f"{number}")
        folder.type = tarfile.DIRTYPE
        blocks += folder.tobuf(tarfile.GNU_FORMAT)
    return gzip.compress(blocks + bytes(1024), 1)


def bomb(compress: Callable[[bytes], bytes], megabytes: int = 100) -> bytes:
    """A TAR archive of one file of zeros."""
    info = tarfile.TarInfo("a/z.png")
    info.size = megabytes << 20
    return compress(info.tobuf() + bytes(info.size + 1024))


def bombs_of_bzip2() -> bytes:
    """Each stream unpacks to 45 MB from 46 bytes, and there are many."""
    return bz2.compress(tarfile.TarInfo("a").tobuf()) + bz2.compress(bytes(45_000_000)) * 20


def wide() -> bytes:
    """A file of xz whose decoder is to hold 4 GiB."""
    packed = bytearray(bomb(lambda raw: lzma.compress(raw, check=lzma.CHECK_NONE, preset=0), 1))
    assert packed[14] == 0x21  # LZMA2, and behind its length the code of its dictionary's size
    packed[16] = 40
    size = (packed[12] + 1) * 4
    packed[8 + size : 12 + size] = struct.pack("<I", zlib.crc32(packed[12 : 8 + size]))
    return bytes(packed)


def folders() -> bytes:
    folder = tarfile.TarInfo("a")
    folder.type = tarfile.DIRTYPE
    return folder.tobuf(tarfile.GNU_FORMAT) * 1_500 + bytes(1024)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: bomb(gzip.compress), "unpacks to over 1000000 bytes"),
        (lambda: bomb(bz2.compress), "over 50 times its size"),
        (lambda: bomb(lambda raw: lzma.compress(raw, preset=0)), "over 50 times its size"),
        (bombs_of_bzip2, "over 50 times its size"),
        (lambda: gzip.compress(gzip.compress(bomb(gzip.compress))), "ReadError"),
        (wide, "over 75497472 bytes of memory"),
        (long_directory, "directory has 1880000 bytes, the limit is 1000000"),
        (holes, "ReadError"),
        (pax_holes, "ReadError"),
        (folders, "over 1000 members"),
        (lambda: tarred({"x" * 5_000: b"x"}, "w:gz"), "ReadError"),
    ],
    ids=lambda made: getattr(made, "__name__", ""),
)
def test_an_archive_does_not_fill_the_memory(made: Callable[[], bytes], message: str) -> None:
    file = io.BytesIO(made())
    tracemalloc.start()
    try:
        with pytest.raises((Unparsable, TooLarge), match=message):
            for _ in entries(file, LIMITS):
                pass
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


def test_files_that_overlap_unpack_to_no_more_than_the_limit() -> None:
    unpacked, messages = 0, []
    try:
        for _, content in entries(io.BytesIO(overlapping()), LIMITS):
            unpacked += len(content) if isinstance(content, bytes) else 0
            messages += [] if isinstance(content, bytes) else [content.detail]
    except TooLarge as problem:
        messages.append(problem.detail)
    assert unpacked <= LIMITS.bytes
    # some releases of Python refuse each such file themselves
    assert messages
    assert all(
        "over 50 times its size" in message or "BadZipFile" in message for message in messages
    )


def test_headers_that_hold_for_all_that_follows_are_not_gathered() -> None:
    file = io.BytesIO(remembered())
    tracemalloc.start()
    try:
        with pytest.raises(Unparsable, match="ReadError"):
            list(entries(file, ArchiveLimits(100_000, 10**9, 10_000)))
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_of_a_zip_file_unpacks_to_no_more_than_it_says(method: int) -> None:
    packed = bytearray(zipped({"a.png": bytes(50_000_000)}, method))
    at = packed.index(b"PK\1\2") + 24
    assert packed[at : at + 4] == struct.pack("<I", 50_000_000)
    packed[at : at + 4] = struct.pack("<I", 50_000)
    tracemalloc.start()
    try:
        # bzip2 packs it to so little that even the first piece is over what it may unpack to
        with contextlib.suppress(TooLarge):
            for _, content in entries(io.BytesIO(packed), LIMITS):
                assert isinstance(content, Unparsable)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


def test_a_file_that_is_too_large_is_passed_over_where_the_archive_may_unpack_so_far() -> None:
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        files = {"large.png": os.urandom(150_000), "small.png": DATA}
        (_, large), (_, small) = entries(io.BytesIO(tarred(files, mode)), LIMITS)
        assert isinstance(large, TooLarge)
        assert (large.limit, large.value) == (100_000, 150_000)
        assert small == DATA


@pytest.mark.parametrize("compress", [bz2.compress, gzip.compress, lzma.compress])
def test_compressed_streams_may_follow_each_other(compress: Callable[[bytes], bytes]) -> None:
    files = {"a.png": DATA, "b.png": os.urandom(100_000), "c.png": b""}
    whole = tarred(files, "w")
    packed = b"".join(compress(whole[at : at + 50_000]) for at in range(0, len(whole), 50_000))
    assert dict(entries(io.BytesIO(packed + bytes(512)), LIMITS)) == files


def test_every_method_of_a_zip_file_that_can_be_read_gives_what_was_put_in() -> None:
    files = {"a.png": DATA, "b.png": os.urandom(90_000), "c.png": b"", "d.png": bytes(90_000)}
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        assert dict(entries(io.BytesIO(zipped(files, method)), LIMITS)) == files


@pytest.mark.parametrize(
    ("place", "number", "told"),
    [(6, 1, "the file is encrypted"), (8, 93, "compression method 93, which is not supported")],
)
def test_a_member_that_cannot_be_unpacked_fails_alone_with_the_reason(
    place: int, number: int, told: str
) -> None:
    packed = bytearray(zipped({"a.png": b"a", "b.png": b"b"}))
    directory = packed.index(b"PK\x01\x02")
    for start in (place, directory + place + 2):  # the member's own header, and in the directory
        packed[start : start + 2] = struct.pack("<H", number)
    (_, problem), (name, content) = list(entries(io.BytesIO(packed), LIMITS))
    assert isinstance(problem, Unparsable)
    assert told in problem.detail
    assert (name, content) == ("b.png", b"b")


def test_reading_stops_when_nobody_wants_the_files_any_more() -> None:
    limits = ArchiveLimits(file_bytes=10**9, bytes=10**9, files=100)
    reads = 0

    def stopped() -> bool:
        nonlocal reads
        reads += 1
        return reads > 3

    with pytest.raises(Stopped):
        list(entries(io.BytesIO(bomb(gzip.compress)), limits, stopped))
    assert reads == 4  # after a megabyte of a hundred


def test_damage_within_a_tar_file_is_not_taken_for_its_end() -> None:
    whole = bytearray(tarred({"a.png": DATA, "b.png": DATA}, "w", tarfile.GNU_FORMAT))
    whole[512 + -(-len(DATA) // 512) * 512] ^= 1  # the first letter of the second name
    files = entries(io.BytesIO(whole), LIMITS)
    assert next(files) == ("a.png", DATA)
    with pytest.raises(Unparsable):
        next(files)


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
            files = list(entries(io.BytesIO(broken), LIMITS))
        except Problem:
            problems += 1
        else:
            problems += any(isinstance(content, Problem) for _, content in files)
    assert problems > 700


def test_names_are_posix_paths_and_what_systems_add_is_passed_over() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in (
            "cat\\1.png", "cat/Thumbs.db", "cat/desktop.ini", "dog/.picasa.ini", ".hidden/2.png",
            "__MACOSX/cat/._1.png", "dog/2.png", "dog/ehthumbs.db",
        ):  # fmt: skip
            archive.writestr(name, b"x")
    out.seek(0)
    names = [name for name, _ in entries(out, ArchiveLimits(100, 10_000, 100))]
    assert names == ["cat/1.png", "dog/2.png"]
