"""Scores from vectors: held against numpy's float64 and against known identities."""

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from app.classify import scoring
from app.classify.other_words import Competition, OtherWords, Rivals

COSINES = arrays(np.float32, st.integers(1, 40), elements=st.floats(-1, 1, width=32))
NEAR = 1e-5


@given(COSINES, st.floats(0.01, 200))
def test_softmax_equals_float64_and_sums_to_one(cosines: np.ndarray, scale: float) -> None:
    scores = scoring.softmax(cosines, scale)
    exact = np.exp(np.float64(scale) * (cosines.astype(np.float64) - cosines.max()))
    np.testing.assert_allclose(scores, exact / exact.sum(), atol=1e-4)
    assert scores.dtype == np.float32
    assert scores.sum() == pytest.approx(1, abs=NEAR)


@given(COSINES, st.floats(0.01, 200), st.floats(-20, 20))
def test_sigmoid_equals_float64_and_never_overflows(
    cosines: np.ndarray, scale: float, bias: float
) -> None:
    exact = 1 / (1 + np.exp(-(np.float64(scale) * cosines.astype(np.float64) + bias)))
    np.testing.assert_allclose(scoring.sigmoid(cosines, scale, bias), exact, atol=1e-4)


def test_a_small_sigmoid_keeps_its_digits() -> None:
    # what a SigLIP gives most labels of most pictures
    cosines = np.linspace(-0.4, 0.1, 201, dtype=np.float32)
    exact = 1 / (1 + np.exp(-(100 * cosines.astype(np.float64) - 16)))
    np.testing.assert_allclose(scoring.sigmoid(cosines, 100.0, -16.0), exact, rtol=1e-4)


@pytest.mark.parametrize("bias", [-16.0, 60.0, -300.0])
def test_labels_are_in_the_order_of_their_similarities_however_small_or_large_their_scores_are(
    bias: float,
) -> None:
    cosines = np.float32([0.001, 0.003, -0.002, 0.004, 0.002])
    decision = scoring.decide(
        cosines, None, scoring.Scale(100.0, bias), None, scoring.Criteria(3, alone=True)
    )
    assert decision.order == (3, 1, 4)


def test_scores_that_round_to_one_are_ordered_by_where_each_label_begins_to_count() -> None:
    cosines, shifts = np.float32([0.9, 0.8, 0.7]), np.float32([0.5, 0.3, 0.1])
    learned = scoring.Learned(100.0, None, 0.0, 0.0, shifts)
    decision = scoring.decide(
        cosines, 0.1, scoring.Scale(100.0, None), learned, scoring.Criteria(3, alone=True)
    )
    assert decision.scores.tolist() == [1, 1, 1]
    assert decision.order == (2, 1, 0)


def test_a_set_of_labels_holds_none_whose_small_share_is_too_small() -> None:
    # shares of about 1, 1e-7, 2e-9 and 2e-22
    cosines, bounds = np.float32([0.5, 0.34, 0.3, 0.0]), (1 - 1e-8,) * 99
    assert scoring.covering(cosines, 100.0, bounds, 0.99) == [0, 1]


def test_a_label_as_near_as_the_background_scores_one_half() -> None:
    scores = scoring.against_background(np.float32([0.3, 0.2, 0.4]), 0.3, 100.0)
    assert scores[0] == pytest.approx(0.5, abs=NEAR)
    assert scores[1] < 0.01
    assert scores[2] > 0.99


def test_against_background_is_the_softmax_of_two() -> None:
    pair = scoring.softmax(np.float32([0.31, 0.3]), 100.0)
    scores = scoring.against_background(np.float32([0.31]), 0.3, 100.0)
    assert scores[0] == pytest.approx(pair[0], abs=NEAR)


def test_similarities_are_dot_products() -> None:
    classes = np.float32([[1, 0], [0, 1], [0.6, 0.8]])
    np.testing.assert_allclose(scoring.similarities(np.float32([0.6, 0.8]), classes), [0.6, 0.8, 1])


def test_ranking_is_best_first_and_keeps_the_order_of_equals() -> None:
    scores = np.float32([0.1, 0.3, 0.3, 0.2, 0.1])
    assert scoring.rank(scores, 4) == (1, 2, 3, 0)
    many = np.float32(np.arange(1_000) % 3)
    assert scoring.rank(many, 1_000) == tuple(sorted(range(1_000), key=lambda place: -many[place]))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1), st.integers(1, 12))
def test_the_best_few_of_many_are_the_first_of_all_in_order(
    levels: list[tuple[int, int]], top_k: int
) -> None:
    scores, finer = np.array(levels, np.float32).T / 4
    order = sorted(range(len(levels)), key=lambda place: [-level for level in levels[place]])
    assert scoring.rank(scores, top_k, finer) == tuple(order[:top_k])


def test_a_label_is_answered_whose_score_just_reaches_the_threshold() -> None:
    cosines, model = np.float32([0.3, 0.1, 0.3]), scoring.Scale(1_000.0, None)

    def decided(threshold: float) -> scoring.Decision:
        return scoring.decide(cosines, None, model, None, scoring.Criteria(3, threshold))

    assert decided(0.5).order == (0, 2)
    assert decided(0.5001).order == ()
    assert decided(0.0).order == (0, 2, 1)


@pytest.mark.parametrize("bias", [None, -10.0])
def test_scores_of_choice_are_the_two_formulas(bias: float | None) -> None:
    cosines = np.float32([0.31, 0.3, 0.1])
    model, background = scoring.Scale(100.0, bias), 0.25

    def scores(chosen: scoring.Scoring | None) -> np.ndarray:
        criteria = scoring.Criteria(3, scores=chosen)
        return scoring.decide(cosines, background, model, None, criteria).scores

    shares = scoring.softmax(cosines, 100.0)
    alone = (
        scoring.against_background(cosines, background, 100.0)
        if bias is None
        else scoring.sigmoid(cosines, 100.0, bias)
    )
    np.testing.assert_array_equal(scores("softmax"), shares)
    np.testing.assert_array_equal(scores("sigmoid"), alone)
    np.testing.assert_array_equal(scores(None), shares if bias is None else alone)


def test_tags_that_fit_alike_are_no_reason_to_abstain() -> None:
    alike, model = np.float32([0.3, 0.3, 0.1]), scoring.Scale(100.0, None)
    strict = scoring.decide(alike, 0.2, model, None, scoring.Criteria(3, abstain=True))
    assert strict.reason is not None
    assert strict.reason.code == "margin_too_small"
    tags = scoring.decide(alike, 0.2, model, None, scoring.Criteria(3, abstain=True, lead=False))
    assert tags.reason is None
    below = scoring.decide(alike, 0.4, model, None, scoring.Criteria(3, abstain=True, lead=False))
    assert below.reason is not None
    assert below.reason.code == "similarity_below_floor"


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8), st.integers(0, 2**31))
def test_the_best_alternative_of_each_label_counts(sizes: list[int], seed: int) -> None:
    labels = [[f"{place}-{n}" for n in range(size)] if size > 1 else () for place, size in
              enumerate(sizes)]  # fmt: skip
    alternatives = scoring.Alternatives.of(labels)
    cosines = np.random.default_rng(seed).uniform(-1, 1, len(alternatives.texts)).astype(np.float32)
    best, at = alternatives.best(cosines), 0
    for place, texts in enumerate(labels):
        part = cosines[at : at + max(1, len(texts))]
        assert {alternatives.label(at + row) for row in range(len(part))} == {place}
        at += len(part)
        assert best[place] == part.max()
        assert alternatives.text(cosines, place) == (texts[int(part.argmax())] if texts else None)


def test_groups_sum_shares_and_take_the_best_of_scores_alone() -> None:
    scores = np.float32([0.5, 0.2, 0.3])
    paths = [("animal", "pet"), ("animal",), ()]
    shares = scoring.Groups.of(paths).ranked(scores, shares=True)
    assert [group.path for group in shares] == [("animal",), ("animal", "pet")]
    assert [group.score for group in shares] == pytest.approx([0.7, 0.5])
    alone = scoring.Groups.of(paths).ranked(scores, shares=False)
    assert [group.score for group in alone] == pytest.approx([0.5, 0.5])
    # what softmax leaves may add up to a little more than 1
    more = np.float32([0.6, 0.4]) + np.float32(1e-6)
    (everything,) = scoring.Groups.of([("all",)] * 2).ranked(more, shares=True)
    assert everything.score == 1


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.text("ab", max_size=3)), min_size=1))
def test_a_group_sums_its_labels_one_after_the_other(labels: list[tuple[float, str]]) -> None:
    paths = [("all", *letters) for _, letters in labels]
    scores = np.array([score for score, _ in labels], np.float32)
    groups = scoring.Groups.of(paths)
    for shares, combined in ((True, sum_in_order), (False, max)):
        ranked = groups.ranked(scores, shares=shares)
        assert {group.path: group.score for group in ranked} == {
            path[:depth]: min(1.0, combined(
                [score for (score, _), own in zip(labels, paths, strict=True)
                 if own[:depth] == path[:depth]]
            ))
            for path in paths for depth in range(1, len(path) + 1)
        }  # fmt: skip
        assert [group.score for group in ranked] == sorted(
            (group.score for group in ranked), reverse=True
        )


def sum_in_order(scores: list[float]) -> float:
    """Unlike `sum`, which newer versions of Python correct for what rounding loses."""
    return reduce(add, scores)


def test_each_percent_of_coverage_has_a_bound_of_its_own_which_a_label_may_just_reach() -> None:
    cosines = np.float32([0.1, 0.3, 0.2])
    shares = scoring.softmax(cosines, 10.0)
    for percent in range(1, 100):
        bounds = [0.0] * 99
        bounds[percent - 1] = float(1 - shares[2])
        assert scoring.covering(cosines, 10.0, bounds, percent / 100) == [1, 2]
        others = {percent - 1, percent + 1} & set(range(1, 100))
        assert all(scoring.covering(cosines, 10.0, bounds, each / 100) == [1] for each in others)


def test_a_lead_over_other_labels_speaks_for_a_label_only_where_they_exclude_one_another() -> None:
    cosines, model = np.float32([0.3, 0.1]), scoring.Scale(100.0, None)
    words = np.append(np.linspace(0.1, 0.12, 299), 0.4).astype(np.float32)
    others = OtherWords(tuple(map(str, range(300))), np.zeros((300, 1), np.float32))
    competition = Competition(rivals=Rivals(others, np.arange(300, dtype=np.int32)), cosines=words)
    reasons = []
    for alone in (False, True):
        criteria = scoring.Criteria(2, abstain=True, alone=alone)
        reasons.append(scoring.decide(cosines, 0.0, model, None, criteria, competition).reason)
    assert reasons[0] is None
    assert reasons[1] is not None
    assert reasons[1].word == "299"


def test_a_label_wins_over_a_word_that_is_the_same_but_for_rounding() -> None:
    cosines, model = np.float32([0.3, 0.1]), scoring.Scale(100.0, None)
    criteria = scoring.Criteria(2, abstain=True)
    for further, abstains in ((-1e-3, False), (1e-6, False), (1e-3, True)):
        competition = Competition(("Cat", "food"), np.float32([0.3 + further, 0.2]))
        decision = scoring.decide(cosines, 0.2, model, None, criteria, competition)
        assert (decision.reason is not None) == abstains
