"""Labelled pictures as people keep them, and what their classes are called."""

import json
from pathlib import Path

import pytest

from app.evaluation import tables
from app.evaluation.class_labels import Naming
from app.evaluation.dataset_files import Labelled, read
from app.evaluation.tables import BadData


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def dataset_of(
    source: Path,
    names: Path | None = None,
    labels: str | None = None,
    limit: int | None = None,
) -> Labelled:
    return read(source, Naming(names, labels), multi_label=False, limit=limit)


def labels_by_file(dataset: Labelled, root: Path) -> dict[str, list[str]]:
    data = dataset.dataset
    return {
        str(file.relative_to(root)): [data.classes[place] for place in row.nonzero()[0]]
        for file, row in zip(data.files, data.truth, strict=True)
    }


def csv(folder: Path, text: str, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_each_folder_is_a_class_whatever_lies_in_it_and_what_is_left_out_is_said(
    tmp_path: Path,
) -> None:
    touch(
        tmp_path, "hot_dog/a.png", "hot_dog/deep/b.JPG", "cat/c.webp", "cat/.hidden.png",
        ".git/d.png", "empty/notes.txt", "beside.png",
    )  # fmt: skip
    (tmp_path / "cat/lost.png").symlink_to("nowhere")
    (tmp_path / "cat/more").symlink_to(tmp_path / "hot_dog")
    dataset = dataset_of(tmp_path)
    assert labels_by_file(dataset, tmp_path) == {
        "cat/c.webp": ["cat"],
        "cat/lost.png": ["cat"],
        "hot_dog/a.png": ["hot dog"],
        "hot_dog/deep/b.JPG": ["hot dog"],
    }
    # a class without pictures is an answer that can be wrong
    assert dataset.dataset.classes == ("cat", "empty", "hot dog")
    assert not dataset.dataset.multi_label
    notes = " ".join(dataset.notes)
    assert "1 picture next to the class folders" in notes
    assert "2 files without an image extension" in notes
    assert "skipped 1 linked folder" in notes
    assert "1 class without pictures, still answers: 'empty'" in notes


def test_a_report_among_the_pictures_is_no_class(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a.png", "cat/report.html", "dog/b.png", "first/report.html")
    touch(tmp_path, "more/second/report.html")
    dataset = dataset_of(tmp_path)
    # with pictures it is a class, whatever else is there
    assert dataset.dataset.classes == ("cat", "dog")
    (note,) = dataset.notes[:1]
    assert note == "2 folders with a report and without pictures skipped: 'first', 'more'"


def test_parts_of_a_data_set_in_place_of_classes_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/a.png", "train/dog/b.png", "Val/cat/c.png", "Val/dog/d.png")
    (told,) = dataset_of(tmp_path).notes
    assert told == (
        "the folders' names ('Val', 'train') are those of parts of a data set, not of classes; "
        f"evaluate one of them: {tmp_path}/train"
    )
    assert dataset_of(tmp_path / "Val").notes == ()
    # a train may also be what pictures show
    assert dataset_of(touch(tmp_path / "d", "train/a.png", "car/b.png")).notes == ()


def test_names_say_what_folders_show_with_synonyms_and_may_join_two(tmp_path: Path) -> None:
    data = touch(tmp_path / "d", "n02123045/a.png", "n02124075/b.png", "n02084071/c.png")
    toml = csv(
        tmp_path, 'n02123045 = ["cat", "kitten"]\nn02124075 = "cat"\nn02084071 = "dog"\n', "n.toml"
    )
    dataset = dataset_of(data, names=toml)
    assert dataset.dataset.classes == ("dog", "cat")
    assert labels_by_file(dataset, data)["n02124075/b.png"] == ["cat"]
    assert {e.label: e.texts for e in dataset.chosen.definition.entries} == {
        "cat": ("cat", "kitten"),
        "dog": ("dog",),
    }
    table = csv(
        tmp_path, "folder,label\nn02123045,cat|kitten\nn02124075,cat\nn02084071,dog\n", "n.csv"
    )
    assert dataset_of(data, names=table).chosen == dataset.chosen
    assert not dataset.notes
    assert "these labels are WordNet ids" in dataset_of(data).notes[0]
    comma = csv(tmp_path, "folder,label\nn02123045,cat, domestic\n", "comma.csv")
    with pytest.raises(BadData, match=r"line 2: has 3 columns, the header 2; quote labels"):
        dataset_of(data, names=comma)
    short = csv(tmp_path, json.dumps({"n02123045": "cat"}), "n.json")
    with pytest.raises(BadData, match=r"does not say what these are: 'n02084071', 'n02124075'"):
        dataset_of(data, names=short)


def test_names_are_read_as_spreadsheets_write_them_and_contradict_themselves_nowhere(
    tmp_path: Path,
) -> None:
    data = touch(tmp_path / "d", "n1/a.png", "n2/b.png")
    for text in (
        "Folder, Label\nn1 , cat | kitten\nn2,dog\nn1,cat|kitten\n,,\n",
        "label;folder\ncat|kitten;n1\ndog;n2\n",
    ):
        entries = dataset_of(data, csv(tmp_path, text)).chosen.definition.entries
        assert [entry.texts for entry in entries] == [("cat", "kitten"), ("dog",)]
    for text, message in (
        ("folder,label\nn1,cat\nn2,dog\nn1,lion\n", "line 4.*'n1' has another label already"),
        ("label,folder\ncat\n", "line 2: has 1 column, the header 2"),
        ("folder,label\nn1,cat|\nn2,dog\n", "line 2, column label: empty beside"),
        ("folder,label\nn1,\nn2,dog\n", "line 2, column label: label number 1 is empty"),
        ("name,label\nn1,cat\n", "line 1: one column 'folder' is needed"),
    ):
        with pytest.raises(BadData, match=message):
            dataset_of(data, csv(tmp_path, text))


def test_a_label_set_gives_prompts_templates_and_classes_without_pictures(tmp_path: Path) -> None:
    data = touch(tmp_path / "d", "Hot_Dog/a.png", "cat/b.png")
    labels = {
        "labels": {"cat": ["cat", "kitten"], "dog": [], "hot dog": []},
        "prompts": {"dog": ["my dog"]},
        "templates": ["a {}."],
    }
    file = csv(tmp_path, json.dumps(labels), "set.json")
    dataset = dataset_of(data, labels=str(file))
    assert dataset.dataset.classes == ("cat", "dog", "hot dog")
    assert labels_by_file(dataset, data) == {"Hot_Dog/a.png": ["hot dog"], "cat/b.png": ["cat"]}
    assert dataset.chosen.definition.templates == ("a {}.",)
    assert dataset.chosen.definition.entries[1].prompts == ("my dog",)
    assert (
        len(dataset_of(touch(tmp_path / "e", "cat/a.png"), labels="animals").dataset.classes) > 50
    )
    with pytest.raises(BadData, match=r"not among the labels of .*: 'Hot_Dog'"):
        dataset_of(data, labels=str(csv(tmp_path, "cat\nbird\n", "set.txt")))
    with pytest.raises(BadData, match=r"not one of animals"):
        dataset_of(data, labels="nothing-of-this-name")


def test_a_csv_has_one_label_a_picture_or_several(tmp_path: Path) -> None:
    single = csv(tmp_path, "\ufeffwho,Label,image\nx, cat ,a.png\ny,hot_dog,sub/b.png\n")
    dataset = dataset_of(single)
    assert labels_by_file(dataset, tmp_path) == {"a.png": ["cat"], "sub/b.png": ["hot dog"]}
    assert not dataset.dataset.multi_label
    several = csv(tmp_path, 'image,label\na.png,cat|dog\n"b,c.png",dog\nd.png,\n')
    dataset = dataset_of(several)
    assert dataset.dataset.multi_label
    told = "1 picture has several labels (the first in line 2), so each label is scored by itself"
    assert dataset.notes[0].startswith(told)
    assert labels_by_file(dataset, tmp_path) == {
        "a.png": ["cat", "dog"],
        "b,c.png": ["dog"],
        "d.png": [],
    }
    # a spreadsheet ends lines with empty cells
    empty = csv(tmp_path, "image,label\na.png,cat,,\nb.png,dog\n")
    assert dataset_of(empty).dataset.classes == ("cat", "dog")
    repeated = csv(tmp_path, "image,label\na.png,cat\nb.png,dog\na.png,dog\nb.png,dog\n")
    dataset = dataset_of(repeated)
    assert dataset.dataset.multi_label
    assert labels_by_file(dataset, tmp_path)["a.png"] == ["cat", "dog"]
    assert "1 line repeated an earlier line" in dataset.notes
    # one label that was noted otherwise takes the accuracy from all, which must not go unsaid
    assert any("1 picture has several labels (the first in line 4)" in n for n in dataset.notes)
    asked = read(repeated, Naming(), multi_label=True, limit=None)
    assert not any("several labels" in note for note in asked.notes)


@pytest.mark.parametrize(
    "text",
    [
        'image;label\r\nsub/a.png;cat\r\nb.png;"a dog, asleep"\r\n',
        "image\tlabel\nsub/a.png\tcat\nb.png\ta dog, asleep\n",
        'image, label\nsub/a.png, "cat"\nb.png, "a dog, asleep"\n',
        'Image,Label\nsub\\a.png,cat\n.\\b.png,"a dog, asleep"\n',
    ],
)
def test_a_csv_is_read_as_spreadsheets_people_and_windows_write_it(
    tmp_path: Path, text: str
) -> None:
    data = touch(tmp_path, "sub/a.png", "b.png")
    assert labels_by_file(dataset_of(csv(tmp_path, text)), data) == {
        "sub/a.png": ["cat"],
        "b.png": ["a dog, asleep"],
    }


def test_a_backslash_of_a_name_stays_where_there_is_such_a_file(tmp_path: Path) -> None:
    data = touch(tmp_path, "a\\b.png", "c.png")
    dataset = dataset_of(csv(tmp_path, "image,label\na\\b.png,cat\nc.png,dog\n"))
    assert labels_by_file(dataset, data) == {"a\\b.png": ["cat"], "c.png": ["dog"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,cat\nb.png,dog\n", r"line 1: one column 'image' is needed in the header"),
        ("", r"line 1: one column 'image' .* nothing"),
        ('{"images": [], "annotations": []}', r"line 1: .*; a header with image and label"),
        ("[" + "1, " * 100_000 + "1]", r"line 1: one column 'image' is needed"),
        ("x" * 200_000, r"line 1: field larger than .*; a header with image and label"),
        ("image,label,label\n", r"one column 'label'"),
        ("image,label\na.png,cat\nb.png\n", r"line 3: has 1 column, the header 2"),
        (
            "image,label\na.png,cat\nb.png,cat, domestic\n",
            r"line 3: has 3 columns, the header 2; quote labels that contain commas",
        ),
        ("image,label\na.png,cat\n ,dog\n", r"line 3, column image: '' is not a file"),
        ("image,label\na.png,cat\nb.png,\n", r"line 3, column label: is empty; with --multi-label"),
        ("image,label\na.png,cat|\nb.png,dog\n", r"line 2, column label: empty beside"),
        ('image,label\na.png,"cat\nb.png,dog\n', r"line 2: unexpected end"),
        ("image,label\na.png,cat\n", r"at least two classes"),
        ("image,label\n", r"no pictures found"),
        ("image,label\na.png,cat\nb.png,a\x07b\n", r"control character"),
    ],
)
def test_a_bad_csv_is_told_with_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadData, match=message):
        dataset_of(csv(tmp_path, text))


def test_bad_folders_and_bytes_are_told(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="has no folder in it"):
        dataset_of(touch(tmp_path / "flat", "a.png"))
    with pytest.raises(BadData, match="'hot dog' and 'hot_dog' both read as 'hot dog'"):
        dataset_of(touch(tmp_path / "twice", "hot_dog/a.png", "hot dog/b.png"))
    with pytest.raises(BadData, match="no pictures found"):
        dataset_of(touch(tmp_path / "none", "a/x.txt", "b/y.txt"))
    with pytest.raises(BadData, match=r"No such file|no such file"):
        dataset_of(tmp_path / "missing.csv")
    (tmp_path / "latin.csv").write_bytes("image,label\na.png,köter\n".encode("latin-1"))
    with pytest.raises(BadData, match="line 2: is not UTF-8"):
        dataset_of(tmp_path / "latin.csv")


def test_a_csv_over_the_limit_is_told_and_not_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.png", "b.png")
    source = csv(tmp_path, "image,label\na.png,cat\nb.png,dog\n")
    monkeypatch.setattr(tables, "LARGEST", source.stat().st_size)
    assert len(dataset_of(source).dataset.files) == 2
    monkeypatch.setattr(tables, "LARGEST", source.stat().st_size - 1)
    with pytest.raises(BadData, match="is over 31 bytes, the limit"):
        dataset_of(source)


def test_a_limit_takes_the_same_pictures_each_time_and_as_many_of_each_class(
    tmp_path: Path,
) -> None:
    touch(tmp_path, *(f"{label}/{n:03}.png" for label in ("cat", "dog") for n in range(30)))
    first = dataset_of(tmp_path, limit=5)
    assert first.dataset.counts.tolist() == [5, 5]
    assert first.dataset.files == dataset_of(tmp_path, limit=5).dataset.files
    numbers = [int(file.stem) for file in first.dataset.files]
    assert numbers[:5] != list(range(5))  # not the first of a burst
    # more of a sample hold all of the smaller one
    assert set(first.dataset.files) < set(dataset_of(tmp_path, limit=9).dataset.files)


def test_what_systems_add_to_folders_is_no_class_and_is_not_counted(tmp_path: Path) -> None:
    touch(
        tmp_path, "cat/a.png", "dog/b.png", "cat/Thumbs.db", "dog/desktop.ini", "dog/.DS_Store",
        "__MACOSX/cat/._a.png", "__MACOSX/c.png",
    )  # fmt: skip
    dataset = dataset_of(tmp_path)
    assert dataset.dataset.classes == ("cat", "dog")
    assert len(dataset.dataset.files) == 2
    assert dataset.notes == ()


def test_folders_match_labels_in_any_unicode_form(tmp_path: Path) -> None:
    composed, apart = "café", "cafe\u0301"
    assert composed != apart
    touch(tmp_path, f"{apart}/a.png", "dog/b.png")
    dataset = dataset_of(tmp_path)
    assert dataset.dataset.classes == (composed, "dog")
    chosen = dataset_of(tmp_path, labels=f"dog,{composed}")
    assert chosen.dataset.classes == ("dog", composed)
    assert chosen.dataset.truth.tolist() == [[False, True], [True, False]]
    names = tmp_path / "names.json"
    names.write_text(json.dumps({composed: "coffee house", "dog": "dog"}))
    assert dataset_of(tmp_path, names).dataset.classes == ("coffee house", "dog")
    # two folders that differ only so are one name, which is told
    touch(tmp_path, f"{composed}/c.png")
    with pytest.raises(BadData, match="rename one"):
        dataset_of(tmp_path)
