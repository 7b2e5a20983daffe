"""Names in archives: read in the coding that they are in, though no archive tells it."""

import io
import tarfile
import zipfile

import pytest

from app.images.archives import ArchiveLimits, entries
from app.images.names import coding_of, is_aside, is_junk

LIMITS = ArchiveLimits(1_000, 100_000, 100)

NAMES = {
    "cp437": ["Kätzchen/süß.jpg", "café/a.jpg", "ÄÖÜ/b.jpg"],
    "cp1252": ["Kätzchen/süß.jpg", "café/1.jpg", "niño/œuf.png"],
    "cp932": ["猫の写真/ネコ.jpg", "いぬ/1.png"],
    "gb18030": ["猫/照片一.jpg", "狗/照片二.jpg"],
    "cp949": ["고양이/사진.jpg", "강아지/1.jpg"],
    "cp1251": ["кошка/фото.jpg", "собака/Ёж.jpg"],
    "cp866": ["кошка/фото.jpg", "Собака/1.jpg"],
    "utf-8": ["Kätzchen/süß.jpg", "猫/1.jpg"],
}


def zip_of(names: list[bytes]) -> io.BytesIO:
    """An archive whose names are in a coding that it does not tell."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(f"{number}".rjust(len(name), "x"), b"")
    data = out.getvalue()
    for number, name in enumerate(names):
        data = data.replace(f"{number}".rjust(len(name), "x").encode(), name)
    return io.BytesIO(data)


@pytest.mark.parametrize("coding", NAMES)
def test_the_coding_of_names_is_seen_from_their_letters(coding: str) -> None:
    raw = [name.encode(coding) for name in NAMES[coding]]
    assert [name.decode(coding_of(raw)) for name in raw] == NAMES[coding]


def test_plain_names_and_nonsense_have_a_coding_that_reads_them() -> None:
    assert coding_of([]) == coding_of([b"cat/1.png"]) == "utf-8"
    for raw in (b"\xff", b"\x80" * 9, bytes(range(128, 256)), b"\x81\x00"):
        raw.decode(coding_of([raw]), "replace")


@pytest.mark.parametrize("coding", ["cp437", "cp1252", "cp932"])
def test_a_zip_file_of_an_old_packer_shows_names_as_they_were_written(coding: str) -> None:
    names = {
        "cp437": ["café/1", "süß/2"],
        "cp1252": ["café/1", "süß/2"],
        "cp932": ["ねこ/1", "イヌ/2"],
    }[coding]
    raw = [name.encode(coding) for name in names]
    file = zip_of(raw)
    assert [name.strip() for name, _ in entries(file, LIMITS)] == names


def test_a_name_that_says_it_is_utf_8_is() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("ΓΘ/1", b"x")
    assert [name for name, _ in entries(out, LIMITS)] == ["ΓΘ/1"]


def test_names_in_a_tar_file_are_always_text() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT, encoding="cp1252") as pack:
        pack.addfile(tarfile.TarInfo("café/1"), io.BytesIO(b""))
    (name,) = [name for name, _ in entries(out, LIMITS)]
    assert name == "café/1"


@pytest.mark.parametrize(
    "name", ["Thumbs.db", "desktop.ini", "__MACOSX", "._cat.png", ".DS_Store", "ehthumbs.db"]
)
def test_what_systems_add_is_junk(name: str) -> None:
    assert is_junk(name)
    assert is_aside(name)


def test_hidden_files_are_no_junk_but_aside() -> None:
    assert is_aside(".picasa.ini")
    assert not is_junk(".picasa.ini")
    assert not is_aside("..")
    assert not is_aside("cat.png")
