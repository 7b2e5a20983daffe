"""Words that labels are held against: which of them compete, and how far ahead they may be."""

import tracemalloc

import numpy as np
import pytest

from app.classify import other_words, scoring
from app.classify.other_words import (
    FEWEST,
    KEPT,
    OWN,
    Competition,
    KnownRivals,
    OtherWords,
    Rivals,
    ahead,
    allowed,
)


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture
def others() -> OtherWords:
    rows = unit(np.random.default_rng(0).normal(size=(2000, 16)))
    return OtherWords(tuple(f"word {n}" for n in range(2000)), rows)


def test_what_is_nearest_to_a_label_does_not_compete_with_it(others: OtherWords) -> None:
    labels = unit(np.random.default_rng(1).normal(size=(3, 16)))
    places = others.rivals(labels)
    assert places is not None
    for column in (others.rows @ labels.T).T:
        nearest = np.argsort(-column)[: OWN // 3]
        assert not set(places) & set(nearest)
    assert len(others.words) - OWN <= len(places) < len(others.words) - OWN // 3


def test_more_labels_than_words_can_be_told_of_have_no_rivals(others: OtherWords) -> None:
    def labels(count: int) -> np.ndarray:
        return unit(np.random.default_rng(1).normal(size=(count, 16)))

    assert others.rivals(labels(OWN // FEWEST)) is not None
    assert others.rivals(labels(OWN // FEWEST + 1)) is None
    few = OtherWords(others.words[:20], others.rows[:20])
    assert few.rivals(labels(1)) is None


@pytest.mark.parametrize("labels", [1, 3, 10, 50])
def test_labels_that_mean_nothing_are_as_often_answered_as_refused(labels: int) -> None:
    """The bound is one of chance, and is the same for few labels and for many."""
    chance = np.random.default_rng(labels)
    accepted = []
    for _ in range(1_000):
        words, cosines = chance.normal(size=3000), np.sort(chance.normal(size=labels))
        accepted.append(ahead(words, cosines[-1], 0.0) <= allowed(3000, labels))
    assert 0.4 < np.mean(accepted) < 0.6


def test_a_label_that_leads_the_others_may_be_further_behind_a_word() -> None:
    words = np.linspace(-1, 1, 100, dtype=np.float32)
    assert ahead(words, 0.5, 0.0) > ahead(words, 0.5, 0.2) > ahead(words, 0.6, 0.2)
    assert ahead(words, 1.5, 0.0) < 0 < allowed(3000, 50) < allowed(3000, 3)
    assert allowed(50, 3000) == 0


def test_known_rivals_are_not_looked_for_again(others: OtherWords) -> None:
    labels = unit(np.random.default_rng(1).normal(size=(3, 16)))
    cache = KnownRivals()
    first = cache.of("pets", labels, others)
    other = cache.of("other", labels, others)
    again = cache.of("pets", labels, others)
    assert first is not None
    assert other is not None
    assert again is not None
    assert again.places is first.places
    assert other.places is not first.places


def test_of_the_lists_that_are_known_the_one_that_is_longest_unused_is_forgotten(
    others: OtherWords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(other_words, "KEPT", 2)
    labels = unit(np.random.default_rng(1).normal(size=(3, 16)))
    cache = KnownRivals()

    def places(name: str) -> object:
        rivals = cache.of(name, labels, others)
        assert rivals is not None
        return rivals.places

    pets, birds = places("pets"), places("birds")
    assert places("pets") is pets
    places("food")
    assert places("pets") is pets
    assert places("birds") is not birds


def test_known_rivals_keep_neither_the_rows_of_their_words_nor_the_labels(
    others: OtherWords,
) -> None:
    cache = KnownRivals()
    dice = np.random.default_rng(1)
    tracemalloc.start()
    try:
        for number in range(KEPT):
            cache.of(f"{number} " + 10_000 * "x", unit(dice.normal(size=(3, 16))), others)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # a number of 4 bytes for each word, and little besides
    assert kept < KEPT * (4 * len(others.words) + 2_000)


def test_known_rivals_are_held_against_the_rows_that_the_words_have_now(
    others: OtherWords,
) -> None:
    labels = unit(np.random.default_rng(1).normal(size=(3, 16)))
    cache = KnownRivals()
    cache.of("pets", labels, others)
    built_again = OtherWords(others.words, others.rows.copy())
    rivals = cache.of("pets", labels, built_again)
    assert rivals is not None
    assert rivals.others is built_again


def test_rivals_count_without_a_calibration_and_own_words_always() -> None:
    cosines, model = np.array([0.3, 0.1], np.float32), scoring.Scale(100.0, None)
    criteria = scoring.Criteria(2, abstain=True)
    learned = scoring.Learned(100.0, None, floor=0.0, margin=0.0, shifts=None)
    words = tuple(map(str, range(100)))

    def reason(learned: scoring.Learned | None, competition: Competition) -> scoring.Reason | None:
        return scoring.decide(cosines, 0.0, model, learned, criteria, competition).reason

    def rivals(best: float) -> Competition:
        of_words = np.linspace(0, best, 100, dtype=np.float32)
        others = OtherWords(words, np.zeros((100, 1), np.float32))
        return Competition(rivals=Rivals(others, np.arange(100, dtype=np.int32)), cosines=of_words)

    refused = reason(None, rivals(1.0))
    assert refused is not None
    assert (refused.code, refused.word) == ("nearer_to_another_word", "99")
    assert reason(learned, rivals(1.0)) is None
    assert reason(None, rivals(0.35)) is None
    for calibration in (None, learned):
        refused = reason(calibration, Competition(("blank",), np.array([0.31], np.float32)))
        assert refused is not None
        assert refused.word == "blank"
