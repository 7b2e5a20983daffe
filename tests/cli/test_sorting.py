"""Files sorted into folders, never over each other, and back again whatever happened between."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.classify.labels import folder_name
from app.cli.sorting import BadUndoFile, Sorter, Step, UndoLog, transfer, undo

ODD = [
    "a/b", "a\\b", "..", ".", "", " cat ", "cat.", "CON", "nul.png", "_none", "-rf", "a\nb",
    "x" * 200,
    "é" * 90, "a:b", "a?b", "\u202ea\x1b[31m", "~", "e\u0301",
]  # fmt: skip


def test_a_label_becomes_a_folder_name_that_is_safe_anywhere() -> None:
    assert folder_name("cat") == "cat"
    assert folder_name("дом 家 ça") == "дом 家 ça"
    assert folder_name(None) == "_none"
    for label in ODD[:-2]:
        name = folder_name(label)
        assert len(name.encode()) <= 110, label
        assert name == Path(name).name
        assert not name.startswith((".", "-", " "))
        assert name.strip(" .") == name
        assert name.isprintable()
        assert not set('/\\:?*<>|"') & set(name)
    assert len({folder_name(label) for label in [*ODD, "a_b", None]}) == len(ODD) + 2


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in ("1/a.png", "2/a.png", "3/a.png", "b.tar.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "in"


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".jsonl"
    }


def sort(pictures: Path, out: Path, *, copy: bool = False, dry: bool = False) -> list[str]:
    log = UndoLog(out / "undo.jsonl")
    sorter = Sorter(out, log, copy=copy, dry=dry)
    places = [sorter.place(str(path), "cat") for path in sorted(pictures.rglob("*.png"))]
    log.close()
    return [os.path.relpath(path, out) for path in places]


SORTED = ["cat/a.png", "cat/a (2).png", "cat/a (3).png", "cat/b.tar.png"]


def test_files_of_one_name_get_numbers_and_all_come_back(pictures: Path, tmp_path: Path) -> None:
    before, out = tree(pictures), tmp_path / "out"
    assert sort(pictures, out) == SORTED
    assert tree(out) == dict(sorted(zip(SORTED, before.values(), strict=True)))
    assert tree(pictures) == {}
    assert [step.error for step in undo(out / "undo.jsonl")] == [None] * 4
    assert tree(pictures) == before
    assert [path.name for path in out.iterdir()] == ["undo.jsonl"]  # the folders are gone too
    assert [*undo(out / "undo.jsonl")] == []


def test_nothing_is_written_over(pictures: Path, tmp_path: Path) -> None:
    target = tmp_path / "out/cat/a.png"
    target.parent.mkdir(parents=True)
    target.write_text("another's")
    assert sort(pictures, tmp_path / "out")[:3] == [f"cat/a ({n}).png" for n in (2, 3, 4)]
    assert target.read_text() == "another's"
    (pictures / "1/a.png").write_text("new")
    errors = [step.error for step in undo(tmp_path / "out/undo.jsonl") if step.error]
    assert errors == ["another file is in its old place"]
    assert (pictures / "1/a.png").read_text() == "new"
    with pytest.raises(FileExistsError):
        transfer(pictures / "1/a.png", target)


def test_a_dry_run_tells_the_same_names_and_changes_nothing(pictures: Path, tmp_path: Path) -> None:
    before = tree(pictures)
    assert sort(pictures, tmp_path / "out", dry=True) == SORTED
    assert tree(pictures) == before
    assert not (tmp_path / "out").exists()


def test_copies_are_removed_again_unless_they_are_all_that_is_left(
    pictures: Path, tmp_path: Path
) -> None:
    before, out = tree(pictures), tmp_path / "out"
    assert sort(pictures, out, copy=True) == SORTED
    assert tree(pictures) == before
    (pictures / "1/a.png").unlink()
    (out / "cat/b.tar.png").write_text("edited")
    errors = {Path(s.path).name: s.error for s in undo(out / "undo.jsonl") if s.error}
    assert errors["a.png"] == "it is the only copy left: the original is gone"
    assert errors["b.tar.png"] == "it was changed"
    assert tree(out) == {"cat/a.png": "1/a.png", "cat/b.tar.png": "edited"}


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system."""
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    folder = Path(tempfile.mkdtemp(dir=shm))
    yield folder
    shutil.rmtree(folder)


def test_files_are_moved_between_file_systems(pictures: Path, elsewhere: Path) -> None:
    before = tree(pictures)
    os.utime(pictures / "1/a.png", ns=(10**18, 10**18))
    assert sort(pictures, elsewhere) == SORTED
    assert (elsewhere / "cat/a.png").stat().st_mtime_ns == 10**18
    assert not list(elsewhere.rglob("*.part"))
    assert not next(undo(elsewhere / "undo.jsonl", dry=True)).error
    assert tree(pictures) == {}
    assert all(step.error is None for step in undo(elsewhere / "undo.jsonl"))
    assert tree(pictures) == before


@pytest.mark.parametrize("moment", ["before", "name kept", "copied"])
def test_a_power_cut_at_any_moment_loses_nothing(
    pictures: Path, tmp_path: Path, moment: str
) -> None:
    before, out = tree(pictures), tmp_path / "out"
    source, target = pictures / "b.tar.png", out / "cat/b.tar.png"
    log = UndoLog(out / "undo.jsonl")
    log.note(source, target, copy=False)
    log.close()
    target.parent.mkdir()
    if moment == "name kept":
        target.touch()
    elif moment == "copied":  # to another file system, and the original not removed yet
        shutil.copy2(source, target)
    with (out / "undo.jsonl").open("a") as file:
        file.write('{"do": "move", "fr')
    assert all(step.error is None for step in undo(out / "undo.jsonl"))
    assert tree(pictures) == before
    assert tree(out) == {}


def test_names_that_are_no_text_are_sorted_and_come_back(tmp_path: Path) -> None:
    source = tmp_path / os.fsdecode(b"in\xff/two\nlines \xe9.png")
    source.parent.mkdir()
    source.write_text("x")
    assert sort(source.parent, tmp_path / "out") == [f"cat/{source.name}"]
    assert not source.exists()
    assert [*undo(tmp_path / "out/undo.jsonl")] == [
        Step(str(tmp_path / "out/cat" / source.name), str(source))
    ]
    assert source.read_text() == "x"


def test_links_are_not_moved_and_files_in_their_place_stay(pictures: Path, tmp_path: Path) -> None:
    link = pictures / "link.png"
    link.symlink_to("b.tar.png")
    sorter = Sorter(tmp_path / "out", UndoLog(tmp_path / "undo"), copy=False)
    with pytest.raises(OSError, match="symbolic link, which stays where it is"):
        sorter.place(str(link), "cat")
    assert link.is_symlink()
    there = tmp_path / "out/cat/c.png"
    there.parent.mkdir(parents=True)
    there.write_text("c")
    assert sorter.place(str(there), "cat") == str(there)
    assert not (tmp_path / "undo").exists()


@pytest.mark.parametrize(
    "content",
    ["", "\n", "hello\n", "{}\n", '["x"]\n', '{"openvocab": "undo", "format": 2}\n',
     '{"openvocab": "undo", "format": 1}\n{"do": "move", "to": "/x"}\n',
     '{"openvocab": "undo", "format": 1}\n{"do": "erase", "to": "/x"}\n',
     '{"openvocab": "undo", "format": 1}\n' + "[" * 100_000 + "\n"],
)  # fmt: skip
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "undo").write_text(content)
    with pytest.raises(BadUndoFile):
        [*undo(tmp_path / "undo")]


def test_every_entry_is_on_the_disk_before_the_file_moves(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    log = UndoLog(out / "undo.jsonl")
    sorter = Sorter(out, log, copy=False)
    sorter.place(str(pictures / "b.tar.png"), "cat")
    # not closed: as another process would find it after a crash
    last = json.loads((out / "undo.jsonl").read_text().splitlines()[-1])
    assert last["from"] == str(pictures / "b.tar.png")
    log.close()
    with pytest.raises(FileExistsError):
        UndoLog(out / "undo.jsonl").note_folder(out)
