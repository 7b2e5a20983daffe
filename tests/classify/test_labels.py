"""Labels as callers send them."""

import pytest

from app.classify import labels
from app.classify.labels import LabelLimits
from app.errors import Invalid, TooLarge

LIMITS = LabelLimits(count=3, length=5)


def test_labels_are_kept_in_one_normal_form() -> None:
    assert labels.clean([" cat ", "a  b\t", "c\u00a0 d"], LIMITS) == ("cat", "a b", "c d")
    assert labels.clean(["cafe\u0301", "\ufeffd\u200bog"], LIMITS) == ("café", "dog")
    # some characters change the meaning of their neighbours and stay
    assert labels.clean(["\u0915\u094d\u200d", "ａ"], LIMITS) == ("\u0915\u094d\u200d", "ａ")


def test_masses_of_accents_are_not_put_in_order_and_all_others_are() -> None:
    disordered = "\u0315\u0300"  # NFC has them the other way round
    assert labels.normal("a" + disordered) == "\u00e0\u0315"
    # 400,000 of them would take minutes, in which nothing else could run
    for text in ("a" + disordered * 32, "\u4e2d" + disordered * 200_000):
        assert labels.normal(text) == text
        assert labels.folder_name(text) != text
    assert labels.normal("e\u0301" * 500_000) == "\u00e9" * 500_000


def test_labels_written_two_ways_count_once_and_the_same_ones_are_left_to_be_refused() -> None:
    texts = ["hot dog", "hot  dog", "hot\u00a0dog", "café", "cafe\u0301", "cat"]
    distinct, warnings = labels.merged(texts)
    assert distinct == ["hot dog", "café", "cat"]
    assert len(warnings) == 3
    assert "'hot  dog' is the label 'hot dog' written another way" in warnings[0]
    assert labels.merged(["cat", "cat ", "dog"])[0] == ["cat", "cat ", "dog"]
    assert labels.merged(["café", "café"])[0] == ["café", "café"]


@pytest.mark.parametrize(
    "label",
    [
        "no cat", "No cat", "not a cat", "without a hat", "a man without a hat", "isn’t a dog",
        "a dog that isn't asleep", "none of these", "anything but a cat",
    ],
)  # fmt: skip
def test_a_negation_is_noticed(label: str) -> None:
    assert labels.negated([label, "a cat"]) == [label]


@pytest.mark.parametrize("label", ["forget-me-not", "nothing", "a knot", "note", "piano no.5"])
def test_words_that_only_look_like_a_negation_are_none(label: str) -> None:
    assert labels.negated([label]) == []


def test_a_label_twice_is_refused_after_trimming() -> None:
    with pytest.raises(Invalid) as caught:
        labels.clean(["cat", "dog", " cat"], LIMITS)
    assert caught.value.value == "cat"
    assert "1 and 3" in caught.value.detail


@pytest.mark.parametrize(
    "label",
    ["", "  ", "a\0b", "a\nb", "a\x7f", "\ud800", "a\x85b", "a\u2028b", "a\u2029b", "a\u202eb",
     "a\u202ab", "a\u2066b", "a\u2069b"],
)  # fmt: skip
def test_a_label_that_is_no_text_is_refused(label: str) -> None:
    with pytest.raises(Invalid) as caught:
        labels.clean(["ok", label], LIMITS)
    assert caught.value.field == "labels"
    str(caught.value.value).encode()  # what is quoted can always be sent


def test_marks_that_writing_needs_stay() -> None:
    # a joiner of emoji, and marks that say which way Hebrew and Latin letters beside them run
    texts = ["\U0001f469\u200d\U0001f692", "\u05d0\u200f!", "a\u200e\u05d0"]
    assert labels.clean(texts, labels.LabelLimits(count=9, length=100)) == tuple(texts)


@pytest.mark.parametrize(
    ("texts", "limit", "value"), [(["a", "b", "c", "d"], 3, 4), (["abcdef"], 5, 6)]
)
def test_too_many_or_too_long_names_limit_and_value(
    texts: list[str], limit: int, value: int
) -> None:
    with pytest.raises(TooLarge) as caught:
        labels.clean(texts, LIMITS)
    assert (caught.value.limit, caught.value.value) == (limit, value)


def test_no_labels_are_refused() -> None:
    with pytest.raises(Invalid):
        labels.clean([], LIMITS)


def test_right_to_left_and_emoji_are_labels() -> None:
    texts = ["قطة", "🐱", "köpek"]
    assert labels.clean(texts, LIMITS) == tuple(texts)


def test_scripts_that_an_english_tower_does_not_read_are_told() -> None:
    texts = ["cat", "café", "고양이", "кот", "cat 猫", "42", "🐱"]
    assert labels.unread(texts, ("en",)) == ["고양이", "кот", "cat 猫"]


def test_nothing_is_told_of_a_tower_of_many_or_unknown_languages() -> None:
    assert labels.unread(["고양이"], ("mul",)) == []
    assert labels.unread(["고양이"], ()) == []
