"""The loader refuses what cannot be a template, and the shipped sets are sound."""

import pickle
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import prompts
from prompts import (
    TemplateError,
    TemplateSet,
    expand,
    fill,
    load_sets,
    validate_template,
    validate_templates,
)

PACKAGE = Path(prompts.__file__).parent
FILES = sorted((PACKAGE / "sets").glob("*.toml"))
GOOD = 'description = "Good."\nlanguage = "en"\ntemplates = ["a {}."]\n'
SCRIPTS = {"ko": "[\uac00-\ud7a3]", "ja": "[\u3040-\u30ff\u4e00-\u9fff]"}
DOMAIN_SETS = {
    *("satellite", "food", "pets", "textures", "medical", "documents", "products"),
    *("scenes", "actions", "vehicles", "plants", "fashion", "art", "screenshots", "logos"),
    *("korean", "german", "spanish", "french", "japanese"),
}

# any text a caller can send, with the pieces that formatting would trip over made likely
hazards = ["{}", "{", "}", "{0.__class__}", "{label!r}", "%s", "%", "\\1", "\\", "$1"]
labels = st.one_of(st.text(), st.lists(st.sampled_from(hazards)).map("".join))
sides = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="{}"), max_size=90)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str | bytes, name: str = "mine.toml") -> Path:
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / name).write_bytes(data)
        return tmp_path

    return write


# one template


@pytest.mark.parametrize("template", ["{}", "a photo of a {}.", "{} 사진.", "100 % {} \\1 $x"])
def test_a_template_with_one_placeholder_is_returned_unchanged(template: str) -> None:
    assert validate_template(template) == template


@pytest.mark.parametrize("template", ["", "   ", "a photo", "{label}", "{0}", "{ }", "a }{ b"])
def test_a_template_without_a_placeholder_is_refused(template: str) -> None:
    with pytest.raises(TemplateError, match=r"exactly 1 placeholder .* has 0") as caught:
        validate_template(template)
    assert (caught.value.field, caught.value.limit) == ("templates", 1)


def test_a_template_with_two_placeholders_is_refused() -> None:
    with pytest.raises(TemplateError, match=re.escape("'a {} on a {}.' has 2")) as caught:
        validate_template("a {} on a {}.")
    assert caught.value.value == "'a {} on a {}.'"


@pytest.mark.parametrize("template", ["{{}}", "{} {0.__class__}", "{} }", "{ {}", "{}}"])
def test_a_brace_beside_the_placeholder_is_refused(template: str) -> None:
    with pytest.raises(TemplateError, match="no brace other than"):
        validate_template(template)


@pytest.mark.parametrize("character", "\0\t\n\r\x1b\x7f\x85\u2028\u2029\u202e\u2066\ud800\udfff")
def test_a_control_character_or_lone_surrogate_is_refused(character: str) -> None:
    with pytest.raises(TemplateError, match=f"contains U\\+{ord(character):04X}") as caught:
        validate_template(f"a {character}{{}}")
    # the message and the value go into a JSON answer
    f"{caught.value} {caught.value.value}".encode()


def test_a_template_of_200_characters_passes_and_one_more_is_refused() -> None:
    longest = "{}".ljust(prompts.MAX_TEMPLATE_LENGTH, "x")
    assert len(validate_template(longest)) == 200
    with pytest.raises(TemplateError, match=r"at most 200 characters, .* has 201") as caught:
        validate_template(longest + "x")
    assert (caught.value.limit, caught.value.value) == (200, 201)


@pytest.mark.parametrize(
    "template", ["x" * 10**6, "{}" * 10**6, "\0" * 199, "{" * 200, ["x" * 10**5]]
)
def test_an_error_abbreviates_the_value(template: str) -> None:
    with pytest.raises(TemplateError) as caught:
        validate_template(template)
    assert "…" in str(caught.value)
    assert len(str(caught.value)) < 400
    assert len(str(caught.value.value)) < 300


@pytest.mark.parametrize("template", [None, 7, b"{}", ["{}"]])
def test_a_template_that_is_not_a_text_is_refused(template: str) -> None:
    with pytest.raises(TemplateError, match="must be a text"):
        validate_template(template)


# a list of templates


def test_a_list_of_templates_keeps_its_order() -> None:
    assert validate_templates(["b {}", "{}", "a {}"]) == ("b {}", "{}", "a {}")


def test_an_empty_list_of_templates_is_refused() -> None:
    with pytest.raises(TemplateError, match="at least 1 template") as caught:
        validate_templates([])
    assert (caught.value.limit, caught.value.value) == (1, 0)


def test_a_duplicate_template_is_refused_and_named() -> None:
    with pytest.raises(TemplateError, match=re.escape("'a {}' is given twice")):
        validate_templates(["a {}", "{}", "a {}"])


def test_one_bad_template_refuses_the_list() -> None:
    with pytest.raises(TemplateError, match="'no place' has 0"):
        validate_templates(["a {}", "no place"])


def test_the_count_may_reach_the_limit_and_not_pass_it() -> None:
    templates = [f"{i} {{}}" for i in range(201)]
    assert len(validate_templates(templates[:200])) == 200
    assert len(validate_templates(templates[:3], limit=3)) == 3
    with pytest.raises(TemplateError, match="at most 200 templates are allowed, got 201") as caught:
        validate_templates(templates)
    assert (caught.value.limit, caught.value.value) == (200, 201)
    with pytest.raises(TemplateError, match="at most 3 "):
        validate_templates(templates[:4], limit=3)


@pytest.mark.parametrize("templates", ["{}", None, 3, {"{}"}, {"{}": 1}])
def test_what_is_not_a_list_of_templates_is_refused(templates: list[str]) -> None:
    with pytest.raises(TemplateError, match="must be a list"):
        validate_templates(templates)


def test_an_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(TemplateError("too long", limit=3, value=4)))
    assert (str(error), error.field, error.limit, error.value) == ("too long", "templates", 3, 4)


# filling


@given(left=sides, right=sides, label=labels)
def test_a_label_is_inserted_verbatim(left: str, right: str, label: str) -> None:
    assert fill(validate_template(f"{left}{{}}{right}"), label) == left + label + right


@pytest.mark.parametrize("label", ["{}", "{0.__class__}", "100 % %s", r"\1 \g<0> \n", "$1", ""])
def test_formatting_syntax_in_a_label_means_nothing(label: str) -> None:
    assert fill("a {} here", label) == "a " + label + " here"


def test_a_template_nobody_checked_is_not_formatted_either() -> None:
    assert fill("{0.__class__} {label} } {}", "cat") == "{0.__class__} {label} } cat"


@given(label=labels)
def test_expand_fills_every_template_in_order(label: str) -> None:
    assert expand(["a {}", "{} b", "{}"], label) == (f"a {label}", f"{label} b", label)


# reading sets


def test_a_set_carries_what_its_file_says(write: Callable[..., Path]) -> None:
    text = 'description = "두 가지."\nlanguage = "pt-BR"\ntemplates = ["{} b", "{} a"]\n'
    sets = load_sets(write(text, "my-set-2.toml"))
    expected = TemplateSet("my-set-2", "두 가지.", "pt-BR", ("{} b", "{} a"))
    assert dict(sets) == {"my-set-2": expected}


def test_sets_are_sorted_by_name_and_other_files_are_ignored(write: Callable[..., Path]) -> None:
    for name in ("b.toml", "a-b.toml", "a.toml", "README.md", "c.toml.bak"):
        folder = write(GOOD, name)
    assert list(load_sets(folder)) == ["a", "a-b", "b"]


def test_loaded_sets_cannot_be_changed(write: Callable[..., Path]) -> None:
    sets = load_sets(write(GOOD))
    with pytest.raises(TypeError):
        sets["other"] = sets["mine"]  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        sets["mine"].templates = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "complaint", "field"),
    [
        (GOOD + "licence = 1\n", "unknown key: licence", "licence"),
        (GOOD.replace("language", "lang"), "unknown key: lang", "lang"),
        (GOOD.replace('language = "en"\n', ""), "missing key: language", "language"),
        ("", "missing key: description, language, templates", "description"),
        (GOOD.replace("Good.", " "), "must not be blank", "description"),
        (GOOD.replace("Good.", "Two\\nlines"), "one line", "description"),
        (GOOD.replace("Good.", "x" * 201), "at most 200 characters", "description"),
        (GOOD.replace('"Good."', "3"), "a description must be a text", "description"),
        (GOOD.replace('"en"', '"English"'), "BCP 47", "language"),
        (GOOD.replace('"en"', '"en\\n"'), "BCP 47", "language"),
        (GOOD.replace('"en"', "[]"), "BCP 47", "language"),
        (GOOD.replace('["a {}."]', "[]"), "at least 1 template", "templates"),
        (GOOD.replace('["a {}."]', '"a {}."'), "must be a list", "templates"),
        (GOOD.replace('["a {}."]', '["{}", "{}"]'), "given twice", "templates"),
        (GOOD.replace('["a {}."]', '["{}", 5]'), "must be a text", "templates"),
        (GOOD.replace("a {}.", "a dog"), "exactly 1 placeholder", "templates"),
        (GOOD + GOOD, "Cannot overwrite", "templates"),
        ("description = ", "Invalid value", "templates"),
        (b"\xff\xfe", "utf-8", "templates"),
    ],
)
def test_a_bad_file_is_named_in_the_error(
    write: Callable[..., Path], text: str | bytes, complaint: str, field: str
) -> None:
    folder = write(text, "broken.toml")
    write(GOOD, "fine.toml")
    with pytest.raises(TemplateError, match=complaint) as caught:
        load_sets(folder)
    assert str(caught.value).startswith(str(folder / "broken.toml"))
    assert caught.value.field == field


def test_a_limit_reached_in_a_file_stays_on_the_error(write: Callable[..., Path]) -> None:
    with pytest.raises(TemplateError) as caught:
        load_sets(write(GOOD.replace("a {}.", "{}".ljust(230))))
    assert (caught.value.limit, caught.value.value) == (200, 230)


@pytest.mark.parametrize("name", ["Upper.toml", "a_b.toml", "a b.toml", "ü.toml", "a.b.toml"])
def test_a_file_name_that_is_no_set_name_is_refused(write: Callable[..., Path], name: str) -> None:
    with pytest.raises(TemplateError, match=r"lower-case letters, digits and hyphens") as caught:
        load_sets(write(GOOD, name))
    assert name in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(TemplateError, match=r"folder\.toml"):
        load_sets(tmp_path)


@pytest.mark.parametrize("name", [".", "missing"])
def test_a_folder_without_sets_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(TemplateError, match="no template sets"):
        load_sets(tmp_path / name)


# the shipped sets


def test_the_shipped_sets_load_and_none_is_missing() -> None:
    names = set(load_sets())
    assert names >= DOMAIN_SETS | {"none", "simple", "photo"}
    assert names == {path.stem for path in FILES}


def test_imagenet_is_not_a_data_file() -> None:
    assert "imagenet" not in load_sets()


def test_the_set_none_is_the_label_alone() -> None:
    assert load_sets()["none"].templates == ("{}",)


def test_every_shipped_set_describes_itself_differently() -> None:
    descriptions = [template_set.description for template_set in load_sets().values()]
    assert len(set(descriptions)) == len(descriptions)


def test_the_medical_set_says_that_it_is_not_for_diagnosis() -> None:
    assert "not for diagnosis" in load_sets()["medical"].description


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_a_shipped_set_holds_different_tidy_templates(name: str) -> None:
    templates = load_sets()[name].templates
    # CLIP's tokenizer lower-cases and joins spaces, so such twins are one prompt said twice
    essence = {" ".join(t.lower().split()) for t in templates}
    assert len(essence) == len(templates)
    assert [t for t in templates if t != " ".join(t.split())] == []


@pytest.mark.parametrize("name", sorted(DOMAIN_SETS))
def test_a_domain_set_has_8_to_24_templates(name: str) -> None:
    assert 8 <= len(load_sets()[name].templates) <= 24


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_a_shipped_set_is_written_in_the_script_of_its_language(name: str) -> None:
    template_set = load_sets()[name]
    for template in set(template_set.templates) - {"{}"}:
        if template_set.language in SCRIPTS:
            assert re.search(SCRIPTS[template_set.language], template)
        if template_set.language == "en":
            assert template.isascii()


def test_the_table_in_the_readme_lists_every_set_as_it_is() -> None:
    readme = (PACKAGE / "README.md").read_text(encoding="utf-8")
    rows = [line for line in readme.splitlines() if re.match(r"\| `[a-z0-9-]+` \|", line)]
    assert rows == [
        f"| `{entry.name}` | {entry.language} | {len(entry.templates)} | {entry.description} |"
        for entry in load_sets().values()
    ]
