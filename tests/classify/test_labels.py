"""Labels as callers send them."""

import pytest

from app.classify import labels
from app.classify.labels import LabelLimits
from app.errors import Invalid, TooLarge

LIMITS = LabelLimits(count=3, length=5)


def test_white_space_around_labels_goes_and_inside_stays() -> None:
    assert labels.clean([" cat ", "a  b\t"], LIMITS) == ("cat", "a  b")


def test_a_label_twice_is_refused_after_trimming() -> None:
    with pytest.raises(Invalid) as caught:
        labels.clean(["cat", "dog", " cat"], LIMITS)
    assert caught.value.value == "cat"
    assert "1 and 3" in caught.value.detail


@pytest.mark.parametrize("label", ["", "  ", "a\0b", "a\nb", "a\x7f", "\ud800"])
def test_a_label_that_is_no_text_is_refused(label: str) -> None:
    with pytest.raises(Invalid) as caught:
        labels.clean(["ok", label], LIMITS)
    assert caught.value.field == "labels"
    str(caught.value.value).encode()  # what is quoted can always be sent


@pytest.mark.parametrize(
    ("sent", "limit", "value"), [(["a", "b", "c", "d"], 3, 4), (["abcdef"], 5, 6)]
)
def test_too_many_or_too_long_names_limit_and_value(
    sent: list[str], limit: int, value: int
) -> None:
    with pytest.raises(TooLarge) as caught:
        labels.clean(sent, LIMITS)
    assert (caught.value.limit, caught.value.value) == (limit, value)


def test_no_labels_are_refused() -> None:
    with pytest.raises(Invalid):
        labels.clean([], LIMITS)


def test_right_to_left_and_emoji_are_labels() -> None:
    sent = ["قطة", "🐱", "köpek"]
    assert labels.clean(sent, LIMITS) == tuple(sent)


def test_scripts_that_an_english_tower_does_not_read_are_told() -> None:
    sent = ["cat", "café", "고양이", "кот", "cat 猫", "42", "🐱"]
    assert labels.unread(sent, ("en",)) == ["고양이", "кот", "cat 猫"]


def test_nothing_is_told_of_a_tower_of_many_or_unknown_languages() -> None:
    assert labels.unread(["고양이"], ("mul",)) == []
    assert labels.unread(["고양이"], ()) == []
