"""Words that labels are held against: which of them compete, and how many may fit better."""

import numpy as np
import pytest

from app.classify import scoring
from app.classify.other_words import (
    LEAST_ALLOWED,
    OWN,
    Competition,
    KnownRivals,
    OtherWords,
    Rivals,
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
    rivals = others.rivals(labels)
    assert rivals is not None
    near = (others.rows @ labels.T).max(axis=1)
    kept = set(rivals.words)
    nearest = {others.words[place] for place in np.argsort(-near)[:OWN]}
    assert not kept & nearest
    assert len(others.words) - 3 * OWN <= len(kept) <= len(others.words) - OWN


def test_so_many_labels_that_few_words_are_left_have_no_rivals(others: OtherWords) -> None:
    many = unit(np.random.default_rng(1).normal(size=(200, 16)))
    assert allowed(2000, 200) < LEAST_ALLOWED
    assert others.rivals(many) is None


@pytest.mark.parametrize("labels", [1, 3, 10, 50])
def test_labels_that_mean_nothing_are_refused_more_often_than_not(
    others: OtherWords, labels: int
) -> None:
    """The bound is one of chance: at most half of all pictures without a label are answered."""
    chance = np.random.default_rng(labels)
    answered = []
    for _ in range(40):
        pictures = unit(chance.normal(size=(25, 16)))
        names = unit(chance.normal(size=(labels, 16)))
        best = (pictures @ names.T).max(axis=1)
        nearer = (pictures @ others.rows.T > best[:, None]).sum(axis=1)
        answered.append((nearer <= allowed(2000, labels)).mean())
    assert 0.3 < np.mean(answered) < 0.55


def test_known_rivals_are_not_looked_for_again(others: OtherWords) -> None:
    labels = unit(np.random.default_rng(1).normal(size=(3, 16)))
    known = KnownRivals()
    first = known.of("pets", labels, others)
    assert known.of("pets", labels, others) is first
    assert known.of("other", labels, others) is not first


def test_rivals_count_without_a_calibration_and_own_words_always() -> None:
    cosines, model = np.array([0.3, 0.1], np.float32), scoring.Scale(100.0, None)
    wanted = scoring.Criteria(2, abstain=True)
    learned = scoring.Learned(100.0, None, floor=0.0, margin=0.0, shifts=None)
    words = tuple(map(str, range(100)))

    def reason(known: scoring.Learned | None, competition: Competition) -> scoring.Reason | None:
        return scoring.decide(cosines, 0.0, model, known, wanted, competition).reason

    def rivals(best: float) -> Competition:
        of_words = np.linspace(0, best, 100, dtype=np.float32)
        return Competition(rivals=Rivals(words, np.zeros((100, 1), np.float32)), cosines=of_words)

    refused = reason(None, rivals(1.0))
    assert refused is not None
    assert (refused.code, refused.word) == ("nearer_to_another_word", "99")
    assert reason(learned, rivals(1.0)) is None
    assert reason(None, rivals(0.35)) is None
    for known in (None, learned):
        refused = reason(known, Competition(("blank",), np.array([0.31], np.float32)))
        assert refused is not None
        assert refused.word == "blank"
