"""Finding files: folders, links, patterns and lists, whatever the files are called."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli.files import Finder, FoundFile, listed, read


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def found(finder: Finder, *names: object) -> list[str]:
    return [file.path for file in finder.found(map(str, names))]


def test_a_folder_gives_its_images_by_name_and_those_inside_after_them(tmp_path: Path) -> None:
    make(
        tmp_path, "b.PNG", "a.jpg", "notes.txt", ".hidden.png", "z/c.webp", "d/e/f.jpeg", ".x/g.png"
    )
    finder = Finder()
    inside = [os.path.relpath(path, tmp_path) for path in found(finder, tmp_path)]
    assert inside == ["a.jpg", "b.PNG", "d/e/f.jpeg", "z/c.webp"]
    assert finder.skipped == 2
    assert len(found(Finder(recursive=False), tmp_path)) == 2
    assert len(found(Finder(everything=True), tmp_path)) == 7
    # what is named is taken, whatever it is called
    assert found(Finder(), tmp_path / "notes.txt") == [str(tmp_path / "notes.txt")]


def test_formats_that_are_read_only_where_they_are_enabled_are_images_too(tmp_path: Path) -> None:
    make(tmp_path, *(f"a.{kind}" for kind in ("heic", "j2k", "jp2", "jxl", "svg")))
    assert len(found(Finder(), tmp_path)) == 5


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path: Path) -> None:
    make(tmp_path, "real/a.png")
    (tmp_path / "link.png").symlink_to("real/a.png")
    (tmp_path / "real/around").symlink_to(tmp_path)
    (tmp_path / "folder.png").symlink_to("real")
    (tmp_path / ".aside").symlink_to("real")
    finder = Finder()
    names = [os.path.relpath(path, tmp_path) for path in found(finder, tmp_path)]
    assert names == ["link.png", "real/a.png"]
    # those are folders, not files without an image extension
    assert (finder.linked, finder.skipped) == (2, 0)
    # a link that is named is a folder like any other
    assert len(found(Finder(), tmp_path / "real/around/real")) == 1


def test_a_link_that_leads_nowhere_is_a_picture_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "lost.png").symlink_to("nowhere")
    (tmp_path / "circle.png").symlink_to("circle.png")
    (tmp_path / "notes.txt").symlink_to("nowhere")
    finder = Finder()
    names = found(finder, tmp_path)
    assert [Path(name).name for name in names] == ["circle.png", "lost.png"]
    assert finder.skipped == 1
    for name, why in zip(names, ("symbolic links", "No such file"), strict=True):
        with pytest.raises(OSError, match=why):
            read(name, 5)


def test_the_folder_that_is_sorted_into_is_not_entered(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "sorted/cat/b.png")
    assert found(Finder(leave_out=tmp_path / "sorted"), tmp_path) == [str(tmp_path / "a.png")]


def test_patterns_are_filled_in_where_no_file_is_called_so(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "b.png", "in/c.png", "[x].png")
    assert len(found(Finder(), tmp_path / "*.png")) == 3
    assert len(found(Finder(), tmp_path / "**/*.png")) == 4
    assert found(Finder(), tmp_path / "[x].png") == [str(tmp_path / "[x].png")]
    assert next(Finder().found([f"{tmp_path}/*.gif"])).error == "no file matches this pattern"


def test_a_folder_that_vanishes_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    make(tmp_path, "a/1.png", "b/2.png", "c/3.png")
    stream = Finder().found([str(tmp_path)])
    assert next(stream).path.endswith("1.png")
    (tmp_path / "b/2.png").unlink()
    (tmp_path / "b").rmdir()
    rest = [*stream]
    assert rest[0] == FoundFile(str(tmp_path / "b"), "no such file or directory")
    assert rest[1].path.endswith("3.png")


def from_pipe(data: bytes) -> Iterator[str]:
    source, sink = os.pipe()
    os.write(sink, data)
    os.close(sink)
    try:
        yield from listed(source, null=False)
    finally:
        os.close(source)


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"a.png\nb c.png\n", ["a.png", "b c.png"]),
        (b"a.png\n\nb.png", ["a.png", "b.png"]),
        (b"two\nlines.png\0b.png\0", ["two\nlines.png", "b.png"]),
        (b"caf\xe9.png\n", ["caf\udce9.png"]),
        (b"\xef\xbb\xbfa.png\r\nb c.png\r\n\r\nc.png", ["a.png", "b c.png", "c.png"]),
        (b"\xef\xbb\xbfa.png", ["a.png"]),
        (b"a.png\r\0b.png\0", ["a.png\r", "b.png"]),
        (b"", []),
    ],
)
def test_a_list_has_lines_or_nul_between_its_names(data: bytes, names: list[str]) -> None:
    assert [*from_pipe(data)] == names


def test_a_name_that_ends_in_a_carriage_return_is_itself_where_there_is_such_a_file(
    tmp_path: Path,
) -> None:
    make(tmp_path, "odd.png\r")
    names = f"{tmp_path}/odd.png\r\n{tmp_path}/even.png\r\n"
    assert [*from_pipe(names.encode())] == [f"{tmp_path}/odd.png\r", f"{tmp_path}/even.png"]


def test_a_list_is_read_as_it_is_written() -> None:
    source, sink = os.pipe()
    os.write(sink, b"a.png\nb.p")
    names = listed(source, null=False)
    assert next(names) == "a.png"
    os.write(sink, b"ng\n")
    os.close(sink)
    assert [*names] == ["b.png"]
    os.close(source)


def test_a_file_over_the_limit_is_not_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read(str(tmp_path / "a"), 5) == b"12345"
    with pytest.raises(ValueError, match="exceeds 4 bytes"):
        read(str(tmp_path / "a"), 4)
    with pytest.raises(ValueError, match="exceeds 1000 bytes"):
        read("/dev/zero", 1_000)


def test_what_systems_add_to_folders_is_never_taken_nor_counted(tmp_path: Path) -> None:
    make(
        tmp_path, "cat/a.png", "cat/Thumbs.db", "cat/desktop.ini", "__MACOSX/cat/._a.png",
        "__MACOSX/b.png", ".DS_Store", "cat/._a.png",
    )  # fmt: skip
    for finder in (Finder(), Finder(everything=True)):
        assert found(finder, tmp_path) == [str(tmp_path / "cat/a.png")]
        assert finder.skipped == 0
