"""When nothing is answered: bounds against brute force, promises against repeated draws."""

import math

import numpy as np
import pytest
from scipy.stats import beta

from app.classify import scoring
from app.classify.other_words import Competition, OtherWords, Rivals
from app.classify.scoring import (
    COUNTS,
    LEAST_ODDS,
    LEAST_ODDS_BESIDE_WORDS,
    Criteria,
    Decision,
    Learned,
    Scale,
    decide,
)
from app.labelsets.calibration.abstention import (
    AbstentionBounds,
    ScoredPictures,
    Unreachable,
    at_most,
    cautious,
    choose,
    fewest_answers,
    promise,
    risk_coverage,
)

SOFTMAX = Scale(100.0, None)
SIGMOID = Scale(100.0, -10.0)
LEARNED = Learned(50.0, None, 0.25, 0.02, None)


def world(rng: np.random.Generator, inside: int, outside: int) -> ScoredPictures:
    """The larger the lead, the more often right; what is outside lies lower."""
    lead = rng.gamma(1.5, 0.02, inside + outside)
    right = rng.random(inside + outside) < 1 - 0.5 * np.exp(-lead / 0.02)
    shows = np.arange(inside + outside) < inside
    similarity = rng.normal(np.where(shows, 0.8, 0.7), 0.04)
    return ScoredPictures(similarity, lead, right & shows, shows)


def counts(scored: ScoredPictures, bounds: AbstentionBounds) -> tuple[int, int]:
    answers = bounds.answer(scored)
    return int((answers & scored.right).sum()), int((answers & ~scored.right).sum())


@pytest.mark.parametrize("risk", [0.02, 0.1, 0.3])
def test_no_other_bounds_keep_the_risk_with_more_right_answers(risk: float) -> None:
    for seed in range(5):
        scored = world(np.random.default_rng(seed), 30, 15)
        right, wrong = counts(scored, choose(scored, risk))
        assert wrong <= risk * (right + wrong)
        for floor in (-1.0, *scored.similarity):
            for margin in (0.0, *scored.lead):
                more, bad = counts(scored, AbstentionBounds(floor, margin))
                assert more <= right or bad > risk * (more + bad) or more + bad < 5


def test_without_pictures_of_something_else_the_floor_costs_few_right_answers() -> None:
    scored = world(np.random.default_rng(0), 400, 0)
    floor = choose(scored, 1.0).floor
    share = (scored.similarity >= floor)[scored.right].mean()
    assert 0.98 <= share < 1


def test_a_risk_that_cannot_be_had_says_what_can() -> None:
    rng = np.random.default_rng(0)
    right = np.arange(40) % 2 == 0
    scored = ScoredPictures(rng.normal(size=40), np.arange(40) / 40, right, np.ones(40, bool))
    with pytest.raises(Unreachable) as caught:
        choose(scored, 0.01)
    assert 0.4 < caught.value.least <= 0.5


def test_bounds_that_nothing_else_would_reach_are_no_bounds() -> None:
    """The five surest are right by chance: chosen without them, nothing is."""
    lead = np.concatenate([np.arange(5) + 100.0, np.arange(60.0)])
    right = np.concatenate([np.ones(5, bool), np.arange(60) % 5 == 0])
    scored = ScoredPictures(np.full(65, 0.8), lead, right, np.ones(65, bool))
    assert choose(scored, 0.05).margin > 50
    with pytest.raises(Unreachable, match="nothing is answered"):
        cautious(scored, 0.05, 0)


def test_the_cautious_choice_keeps_the_risk_better_on_new_pictures() -> None:
    rng = np.random.default_rng(7)
    future = world(rng, 100_000, 33_000)
    risks: dict[str, list[float]] = {"plain": [], "cautious": []}
    for seed in range(12):
        scored = world(rng, 150, 50)
        for name, bounds in (
            ("plain", choose(scored, 0.1)),
            ("cautious", cautious(scored, 0.1, seed)[0]),
        ):
            right, wrong = counts(future, bounds)
            risks[name].append(wrong / (right + wrong))
    assert np.mean(risks["cautious"]) < np.mean(risks["plain"])
    assert np.mean(risks["cautious"]) < 0.12


def test_a_promise_is_kept_as_often_as_it_says() -> None:
    rng = np.random.default_rng(8)
    future = world(rng, 200_000, 0)
    answers = broken = 0
    for seed in range(200):
        try:
            bounds, _ = promise(world(rng, 400, 0), 0.1, 0.8, seed)
        except Unreachable:
            continue
        right, wrong = counts(future, bounds)
        answers += 1
        broken += wrong > 0.1 * (right + wrong)
    assert answers > 100
    # at 20 % there are 60 broken ones and more with a chance of one in a thousand
    assert 0 < broken < 60


def test_too_few_pictures_make_no_promise_and_the_error_says_how_many_do() -> None:
    scored = world(np.random.default_rng(9), 50, 0)
    with pytest.raises(Unreachable, match="at least 68 are needed"):
        promise(scored, 0.05, 0.9, 0)
    # so many are enough if all are right, and one fewer is not
    perfect = ScoredPictures(np.full(68, 0.9), np.full(68, 0.5), *np.ones((2, 68), np.bool_))
    assert promise(perfect, 0.05, 0.9, 0)[0].answer(perfect).all()
    with pytest.raises(Unreachable, match="67 pictures do not show"):
        promise(perfect.part(np.arange(67)), 0.05, 0.9, 0)
    assert fewest_answers(0.05, 0.9) == 45
    assert at_most(0, 45, 0.9) <= 0.05 < at_most(0, 44, 0.9)


@pytest.mark.parametrize(("wrong", "answered"), [(0, 10), (1, 10), (3, 60), (40, 1000), (9, 10)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_bound_of_a_risk_is_clopper_and_pearsons(
    wrong: int, answered: int, confidence: float
) -> None:
    exact = beta.ppf(confidence, wrong + 1, answered - wrong)
    assert at_most(wrong, answered, confidence) == pytest.approx(exact, abs=1e-9)


def test_nothing_answered_or_all_wrong_bounds_nothing() -> None:
    assert at_most(0, 0, 0.95) == at_most(5, 5, 0.95) == 1.0


def test_the_curve_of_risk_takes_equals_together() -> None:
    curve = risk_coverage(np.array([0.9, 0.8, 0.8, 0.1]), np.array([True, False, True, False]))
    assert curve.coverage.tolist() == [0.25, 0.75, 1.0]
    assert curve.risk.tolist() == pytest.approx([0, 1 / 3, 1 / 2])
    assert curve.area == pytest.approx((0 + 1 / 3 + 1 / 3 + 1 / 2) / 4)


def test_the_area_below_the_curve_is_the_mean_of_selective_risks() -> None:
    rng = np.random.default_rng(1)
    confidence, right = rng.random(200), rng.random(200) < 0.7
    order = np.argsort(-confidence)
    risks = [1 - right[order[: count + 1]].mean() for count in range(200)]
    assert risk_coverage(confidence, right).area == pytest.approx(np.mean(risks))


def decision_of(
    cosines: list[float], learned: Learned | None = None, background: float | None = None,
    model: Scale = SOFTMAX, **criteria: object,
) -> Decision:  # fmt: skip
    chosen = Criteria(**{"top_k": 5, "abstain": True, **criteria})  # type: ignore[arg-type]
    return decide(np.float32(cosines), background, model, learned, chosen)


def test_a_similarity_below_the_floor_is_the_reason() -> None:
    decision = decision_of([0.20, 0.10], LEARNED)
    assert decision.reason is not None
    assert decision.reason.code == "similarity_below_floor"
    assert (decision.reason.value, decision.reason.limit) == (pytest.approx(0.2), 0.25)
    assert (decision.order, decision.withheld) == ((), (0, 1))


def test_a_lead_below_the_margin_is_the_reason() -> None:
    decision = decision_of([0.30, 0.29], LEARNED)
    assert decision.reason is not None
    assert decision.reason.code == "margin_too_small"
    assert decision.reason.value == pytest.approx(0.01, abs=1e-6)


def test_what_reaches_both_is_answered_and_scored_at_the_calibrated_scale() -> None:
    decision = decision_of([0.30, 0.27], LEARNED)
    assert (decision.order, decision.reason) == ((0, 1), None)
    np.testing.assert_allclose(decision.scores, scoring.softmax(np.float32([0.30, 0.27]), 50.0))


def test_without_abstain_a_calibration_only_scores() -> None:
    decision = decision_of([0.20, 0.19], LEARNED, abstain=False)
    assert decision.order == (0, 1)
    assert decision.scores[0] == pytest.approx(1 / (1 + math.exp(-0.5)), abs=1e-5)


def test_without_a_calibration_the_background_is_the_floor_and_odds_are_the_margin() -> None:
    enough = math.log(LEAST_ODDS) / 100
    assert decision_of([0.30, 0.30 - 1.01 * enough], None, 0.29).order == (0, 1)
    narrow = decision_of([0.30, 0.30 - 0.99 * enough], None, 0.29).reason
    assert narrow is not None
    assert narrow.code == "margin_too_small"
    far = decision_of([0.30, 0.1], None, 0.31).reason
    assert far is not None
    assert (far.code, far.limit) == ("similarity_below_floor", 0.31)


def test_beside_other_words_a_smaller_lead_is_enough() -> None:
    enough = math.log(LEAST_ODDS_BESIDE_WORDS) / 100
    words = OtherWords(("sky",), np.zeros((1, 1), np.float32))
    far = Competition(rivals=Rivals(words, np.zeros(1, np.int32)), cosines=np.float32([0.0]))
    for lead, answered in ((1.01 * enough, True), (0.99 * enough, False)):
        cosines, criteria = np.float32([0.30, 0.30 - lead]), Criteria(2, abstain=True)
        decision = decide(cosines, 0.29, SOFTMAX, None, criteria, far)
        assert bool(decision.order) == answered


def test_a_threshold_counts_beside_abstaining_and_says_so() -> None:
    decision = decision_of([0.30, 0.29, 0.1], None, 0.2, threshold=0.99, abstain=False)
    assert decision.reason is not None
    assert (decision.reason.code, decision.reason.limit) == ("score_below_threshold", 0.99)
    assert decision.withheld == (0, 1, 2)
    assert decision_of([0.30, 0.1], LEARNED, threshold=0.5).order == (0,)


@pytest.mark.parametrize(("model", "background"), [(SOFTMAX, 0.2), (SIGMOID, None)])
def test_labels_scored_alone_count_from_their_own_threshold(
    model: Scale, background: float | None
) -> None:
    above = np.float32([0.05, 0.01])
    learned = Learned(50.0, -3.0, -1.0, 0.0, above)
    cosines = [0.24, 0.22] if background else [0.04, 0.02]
    decision = decision_of(cosines, learned, background, model, alone=True, abstain=False)
    assert decision.order == (1,)  # the first is nearer, and not near enough for what it is
    assert decision.scores[1] == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-4)
    every = decision_of(
        cosines, learned, background, model, alone=True, abstain=False, threshold=0.0
    )
    assert every.order == (1, 0)
    refusal = decision_of(
        [0.1, 0.1], learned, background or 0.2, SOFTMAX, alone=True, abstain=False
    )
    assert refusal.reason is not None
    assert refusal.reason.limit == COUNTS


def test_labels_scored_alone_need_no_lead() -> None:
    assert decision_of([0.30, 0.30], None, 0.2, alone=True).order == (0, 1)


def test_one_label_alone_has_no_margin() -> None:
    decision = decision_of([0.30], None, 0.2, alone=True)
    assert decision.order == (0,)
    assert decision_of([0.20], None, 0.3, alone=True).reason is not None
    # nor a second one to lead over
    assert decision_of([0.30], LEARNED).order == (0,)


@pytest.mark.parametrize("shifts", [None, np.float32([0.5, 0.5])])
def test_sigmoid_models_are_scored_with_the_fitted_bias(shifts: np.ndarray | None) -> None:
    """Thresholds of labels that are scored alone move no score of labels that are not."""
    learned = Learned(50.0, -14.0, -1.0, 0.0, shifts)
    decision = decision_of([0.30, 0.1], learned, model=SIGMOID)
    assert decision.scores[0] == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-4)


def test_shares_of_a_sigmoid_model_are_at_its_own_scale() -> None:
    """What was fitted are its sigmoids."""
    learned = Learned(50.0, -14.0, -1.0, 0.0, None)
    decision = decision_of([0.30, 0.29], learned, model=SIGMOID, scores="softmax")
    np.testing.assert_allclose(decision.scores, scoring.softmax(np.float32([0.30, 0.29]), 100.0))
