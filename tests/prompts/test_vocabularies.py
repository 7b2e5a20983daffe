"""The reader refuses what cannot be a vocabulary, and the shipped ones are sound."""

import tomllib
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

import prompts
from app.classify.labels import LabelLimits, clean, unread
from models.encoder import Encoder
from prompts import Vocabulary, VocabularyError, expand, load_sets, load_vocabularies

PACKAGE = Path(prompts.__file__).parent
FILES = sorted((PACKAGE / "vocabularies").glob("*.txt"))
NAMES = [path.stem for path in FILES]
HEADER = "# description: Two pets.\n# source: nowhere\n"
GOOD = HEADER + "cat\ndog\n"
EVERYDAY = {
    *("animals", "food", "household", "vehicles", "scenes", "weather", "sports"),
    *(
        "instruments",
        "tools",
        "clothing",
        "feelings",
        "emoji-concepts",
        "everyday-nouns",
        "other-words",
    ),
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str | bytes, name: str = "mine.txt") -> Path:
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / name).write_bytes(data)
        return tmp_path

    return write


# reading


def test_a_vocabulary_carries_what_its_file_says(write: Callable[..., Path]) -> None:
    vocabularies = load_vocabularies(write(GOOD, "my-pets-2.txt"))
    assert dict(vocabularies) == {
        "my-pets-2": Vocabulary("my-pets-2", "Two pets.", "nowhere", ("cat", "dog"))
    }


def test_the_last_line_needs_no_line_end(write: Callable[..., Path]) -> None:
    assert load_vocabularies(write(GOOD[:-1]))["mine"].labels == ("cat", "dog")


def test_labels_keep_their_order_case_and_script(write: Callable[..., Path]) -> None:
    labels = ("French horn", "crème brûlée", "고양이", "a, b", "100 %", "{}", "C#")
    text = HEADER + "\n".join(labels)
    assert load_vocabularies(write(text))["mine"].labels == labels


def test_vocabularies_are_sorted_by_name_and_other_files_are_ignored(
    write: Callable[..., Path],
) -> None:
    for name in ("b.txt", "a-b.txt", "a.txt", "README.md", "c.txt.bak"):
        folder = write(GOOD, name)
    assert list(load_vocabularies(folder)) == ["a", "a-b", "b"]


def test_loaded_vocabularies_cannot_be_changed(write: Callable[..., Path]) -> None:
    vocabularies = load_vocabularies(write(GOOD))
    with pytest.raises(TypeError):
        vocabularies["other"] = vocabularies["mine"]  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        vocabularies["mine"].labels = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1: must begin with '# description: ', got ''"),
        ("cat\ndog\n", "line 1: must begin with '# description: ', got 'cat'"),
        ("\ufeff" + GOOD, "line 1: must begin with"),
        ("# description: Two pets.\ncat\n", "line 2: must begin with '# source: ', got 'cat'"),
        ("# description: Two pets.", "line 2: must begin with"),
        (GOOD.replace("nowhere", " "), "line 2: the text after '# source: ' must not be blank"),
        (GOOD.replace("nowhere", "x" * 201), "line 2: .* at most 200 characters, .* has 201"),
        (GOOD.replace("Two pets", "Two\tpets"), "line 1: .* contains U\\+0009"),
        (HEADER, "at least 1 label is needed"),
        (HEADER + "\n", "line 3: a label must not be blank"),
        (GOOD + "\n", "line 5: a label must not be blank"),
        (HEADER + "cat\n  \ndog\n", "line 4: a label must not be blank"),
        (HEADER + "cat\n dog\n", "line 4: .* single spaces, and none around it, got ' dog'"),
        (HEADER + "cat \ndog\n", "line 3: .* none around it"),
        (HEADER + "cat\nhot  dog\n", "line 4: .* single spaces"),
        (HEADER + "cat\nhot\u00a0dog\n", "line 4: .* single spaces"),
        (GOOD + "x" * 201, "line 5: a label has at most 200 characters, .* has 201"),
        (GOOD + "cat\n", "line 5: the label 'cat' is in line 3 too"),
        (GOOD + "CAT\n", "line 5: the label 'CAT' is in line 3 too"),
        (HEADER + "café\ncafe\u0301\n", "line 4: the label .* is in line 3 too"),
        (GOOD + "# birds\nduck\n", "line 5: only the first 2 lines begin with #"),
        (GOOD.replace("\n", "\r\n"), "line 1: .* contains U\\+000D"),
        (GOOD + "a\x7fb", "line 5: a label has no control characters .* contains U\\+007F"),
        (GOOD + "a\u2028b", "line 5: .* contains U\\+2028"),
        (GOOD + "a\x85b", "line 5: .* contains U\\+0085"),
        (b"\xff\xfe", "utf-8"),
    ],
)
def test_a_bad_file_is_named_with_its_line(
    write: Callable[..., Path], text: str | bytes, complaint: str
) -> None:
    folder = write(text, "broken.txt")
    write(GOOD, "fine.txt")
    with pytest.raises(VocabularyError, match=complaint) as caught:
        load_vocabularies(folder)
    assert str(caught.value).startswith(f"{folder / 'broken.txt'}: ")
    assert len(str(caught.value)) < len(str(folder)) + 250


def test_a_label_of_200_characters_passes(write: Callable[..., Path]) -> None:
    assert load_vocabularies(write(HEADER + "x" * 200))["mine"].labels == ("x" * 200,)


@pytest.mark.parametrize("name", ["Upper.txt", "a_b.txt", "a b.txt", "ü.txt", "a.b.txt"])
def test_a_file_name_that_is_no_vocabulary_name_is_refused(
    write: Callable[..., Path], name: str
) -> None:
    with pytest.raises(VocabularyError, match="lower-case letters, digits and hyphens") as caught:
        load_vocabularies(write(GOOD, name))
    assert name in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(VocabularyError, match=r"folder\.txt"):
        load_vocabularies(tmp_path)


@pytest.mark.parametrize("name", [".", "missing"])
def test_a_folder_without_vocabularies_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(VocabularyError, match="no vocabularies"):
        load_vocabularies(tmp_path / name)


# the shipped vocabularies


def test_the_shipped_vocabularies_load_and_none_is_missing() -> None:
    names = set(load_vocabularies())
    assert names == EVERYDAY | {"cifar-10", "cifar-100"}
    assert names == set(NAMES)


def test_the_installed_package_carries_the_vocabularies() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    carried = project["tool"]["setuptools"]["package-data"]["prompts"]
    packaged = {path for pattern in carried for path in PACKAGE.glob(pattern)}
    assert set(FILES) <= packaged


def test_the_cifar_vocabularies_are_the_classes_in_the_order_of_their_numbers() -> None:
    ten = load_vocabularies()["cifar-10"].labels
    hundred = load_vocabularies()["cifar-100"].labels
    assert (len(ten), len(hundred)) == (10, 100)
    # both data sets number their classes alphabetically
    assert list(ten) == sorted(ten)
    assert list(hundred) == sorted(hundred)
    assert (hundred[1], hundred[54], hundred[96]) == ("aquarium fish", "orchid", "willow tree")


def test_every_shipped_vocabulary_describes_itself_differently() -> None:
    descriptions = [vocabulary.description for vocabulary in load_vocabularies().values()]
    assert len(set(descriptions)) == len(descriptions)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_vocabulary_passes_the_checks_of_a_request(name: str) -> None:
    labels = load_vocabularies()[name].labels
    assert clean(labels, LabelLimits(count=10_000)) == labels
    assert unread(labels, ["en"]) == []
    assert [label for label in labels if not label.isascii() or "_" in label] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_label_fits_into_every_english_template_of_the_bundled_model(
    name: str, pictogram: Encoder
) -> None:
    templates = [
        template
        for template_set in load_sets().values()
        if template_set.language == "en"
        for template in template_set.templates
    ]
    longest = sorted(templates, key=len)[-10:]
    for label in load_vocabularies()[name].labels:
        # raises where a prompt does not fit; nothing is cut
        assert pictogram.tokens(expand(longest, label)).shape[0] == len(longest)


def test_the_table_in_the_readme_lists_every_vocabulary_as_it_is() -> None:
    readme = (PACKAGE / "README.md").read_text(encoding="utf-8")
    rows = [line for line in readme.splitlines() if line.startswith("| [`")]
    assert rows == [
        f"| [`{vocabulary.name}`](vocabularies/{vocabulary.name}.txt) | {len(vocabulary.labels)} "
        f"| {vocabulary.description} | {vocabulary.source} |"
        for vocabulary in load_vocabularies().values()
    ]
