"""Template sets on trial, against scikit-learn, scipy, and every resample there is."""

import dataclasses
import io
import itertools
import json

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binomtest, gamma
from sklearn.metrics import average_precision_score, recall_score

from app.evaluation.data import ClassRows, Encoded, TemplateRows
from app.evaluation.figures import figures_of, scored
from app.evaluation.report.trials import TrialsSection
from app.evaluation.statistics import (
    bootstrap_p,
    crossed,
    detectable,
    holm,
    mcnemar_p,
    mean_average_precision,
    mean_per_class,
    top1,
)
from app.evaluation.template_search import ensemble
from app.evaluation.trials import MAP, PER_CLASS, TOP1, Trials, Verdict, judge
from prompts import load_sets

Posed = tuple[Encoded, TemplateRows]

# of the share of 10,000 resamples at or below a value
SHARE = 0.02

# of sums that differ in their order
SUMS = 1e-6


@pytest.fixture(scope="module")
def trials(posed: Posed) -> Trials:
    encoded, rows = posed
    sets = {name: ensemble(rows, load_sets()[name].templates) for name in ("pictogram", "simple")}
    sets["simple again"] = sets["simple"]
    sets["documents"] = ensemble(rows, load_sets()["documents"].templates)
    return judge(encoded, sets, "simple")


def several(encoded: Encoded) -> Encoded:
    """The same pictures, now with labels of their own kind: some with two, some with none."""
    truth = encoded.dataset.truth.copy()
    truth[::5, 3] = True
    truth[::7] = False
    data = dataclasses.replace(encoded.dataset, truth=truth, multi_label=True)
    return dataclasses.replace(encoded, dataset=data)


def test_resamples_spread_as_all_resamples_there_are() -> None:
    dice = np.random.default_rng(3)
    targets = np.array([0, 0, 1, 1, 1])
    right = np.array([[1, 0], [0, 1], [1, 1], [1, 0], [0, 0]], bool)
    truth = targets[:, None] == np.arange(2)
    scores = [np.round(dice.random((5, 2)), 1).astype(np.float32) for _ in range(2)]
    every = [list(places) for places in itertools.product(range(5), repeat=5)]

    def per_class(places: list[int], column: int) -> float:
        present = np.unique(targets[places])
        predicted = np.where(right[places, column], targets[places], 2)
        return float(recall_score(targets[places], predicted, labels=present, average="macro"))

    def precision(places: list[int], column: int) -> float:
        precisions = [
            average_precision_score(truth[places, place], scores[column][places, place])
            for place in range(2)
            if truth[places, place].any()
        ]
        return float(np.mean(precisions))

    sorted_draws = sorted({tuple(sorted(places)): 0 for places in every})
    weight = [sum(1 for _ in set(itertools.permutations(places))) for places in sorted_draws]
    for resampled, figure in (
        (top1(right, 10_000, 1), lambda places, column: float(right[places, column].mean())),
        (mean_per_class(right, targets, 10_000, 1), per_class),
        (mean_average_precision(scores, truth, 10_000, 1), precision),
    ):
        leads = [figure(list(p), 0) - figure(list(p), 1) for p in sorted_draws]
        differences = resampled.draws[:, 0] - resampled.draws[:, 1]
        assert len(differences) == 10_000
        for value in sorted(set(np.round(leads, 6))):
            exact = np.average(np.array(leads) <= value + SUMS, weights=weight)
            assert (differences <= value + SUMS).mean() == pytest.approx(exact, abs=SHARE)


def test_figures_are_those_of_the_evaluation(posed: Posed, trials: Trials) -> None:
    encoded, rows = posed
    classes = ensemble(rows, load_sets()["pictogram"].templates)
    alone = figures_of(encoded.dataset.truth, scored(encoded, classes), multi_label=False)
    assert alone.top1 is not None
    assert trials.figures[TOP1]["pictogram"].value == alone.top1.value
    assert (
        trials.figures[TOP1]["pictogram"].low,
        trials.figures[TOP1]["pictogram"].high,
    ) == alone.top1.interval
    assert trials.figures[PER_CLASS]["pictogram"].value == pytest.approx(alone.classes.mean_recall)
    labelled = several(encoded)
    sets = {
        name: dataclasses.replace(
            ensemble(rows, load_sets()[name].templates), background=rows.rows[0, 0]
        )
        for name in ("simple", "documents")
    }
    ranked = judge(labelled, sets, "simple", resamples=1_000)
    alone = figures_of(
        labelled.dataset.truth, scored(labelled, sets["documents"]), multi_label=True
    )
    assert ranked.compared_by == MAP
    assert ranked.figures[MAP]["documents"].value == pytest.approx(
        alone.classes.mean_average_precision
    )


def test_mcnemars_test_is_scipys_binomial_test() -> None:
    for only_one, only_other in ((5, 0), (3, 9), (0, 0), (40, 41), (400, 300), (9_000, 9_300)):
        disagreed = only_one + only_other
        exact = binomtest(only_one, disagreed).pvalue if disagreed else 1.0
        assert mcnemar_p(only_one, only_other) == pytest.approx(exact, rel=1e-6)


def test_the_p_value_of_a_bootstrap_counts_the_sample_itself_and_is_never_0() -> None:
    """(r + 1) / (R + 1), twice for two sides (Davison and Hinkley 1997, section 4.2)."""
    assert bootstrap_p(np.ones(999)) == bootstrap_p(-np.ones(999)) == pytest.approx(2 / 1000)
    three_below = np.append(np.ones(996), [-1.0, -1.0, 0.0])
    assert bootstrap_p(three_below) == pytest.approx(2 * 4 / 1000)
    # nor is a difference what sums in another order differ by
    assert bootstrap_p(np.full(999, 1e-15)) == 1


def test_holms_correction_rejects_what_the_steps_reject() -> None:
    dice = np.random.default_rng(0)
    for _ in range(200):
        p_values = dice.random(6) ** 4
        rejected = set()
        for step, place in enumerate(np.argsort(p_values)):
            if p_values[place] > 0.05 / (6 - step):
                break
            rejected.add(int(place))
        assert {place for place, p in enumerate(holm(list(p_values))) if p <= 0.05} == rejected


def test_what_is_compared_with_itself_is_not_different(trials: Trials) -> None:
    comparison = next(
        candidate for candidate in trials.to_reference if candidate.name == "simple again"
    )
    assert (comparison.lead.value, comparison.p, comparison.only_name, comparison.only_other) == (
        0,
        1,
        0,
        0,
    )
    assert comparison.verdict is Verdict.OPEN


def test_a_real_difference_is_named_in_both_directions(posed: Posed, trials: Trials) -> None:
    one = next(one for one in trials.to_reference if one.name == "documents")
    assert one.verdict is Verdict.WORSE
    assert one.lead.high < 0
    encoded, rows = posed
    sets = {name: ensemble(rows, load_sets()[name].templates) for name in ("simple", "documents")}
    (other,) = judge(encoded, sets, "documents").to_reference
    assert (other.name, other.verdict) == ("simple", Verdict.BETTER)
    assert other.lead.value == -one.lead.value
    assert (other.only_name, other.only_other) == (one.only_other, one.only_name)
    assert other.compared == 1
    assert other.p_corrected == other.p


def test_the_best_is_compared_with_a_correction_for_all_pairs(posed: Posed, trials: Trials) -> None:
    figures = trials.figures[TOP1]
    assert figures[trials.best].value == max(estimate.value for estimate in figures.values())
    assert {comparison.name for comparison in trials.to_best} == set(trials.names) - {trials.best}
    assert {comparison.compared for comparison in trials.to_best} == {6}
    assert {comparison.compared for comparison in trials.to_reference} == {3}
    assert all(
        comparison.p_corrected >= comparison.p
        for comparison in (*trials.to_best, *trials.to_reference)
    )


def test_five_pictures_are_no_proof_and_six_are(posed: Posed) -> None:
    encoded, _ = posed
    rows_of_classes = np.eye(40, dtype=np.float32)
    data = dataclasses.replace(
        encoded,
        rows=rows_of_classes[encoded.dataset.targets],
        info=dataclasses.replace(encoded.info, width=40),
    )
    for few, verdict in ((5, Verdict.UNSURE), (6, Verdict.BETTER)):
        pictures = data.rows.copy()
        # one picture of each of some classes lies halfway to another class
        for place in range(few):
            pictures[8 * place] = (
                rows_of_classes[place] + 1.01 * rows_of_classes[39]
            ) / np.linalg.norm([1, 1.01])
        moved = rows_of_classes.copy()
        moved[39] *= 0.9
        trials = judge(
            dataclasses.replace(data, rows=pictures),
            {"a": ClassRows(rows_of_classes), "b": ClassRows(moved)},
            "a",
        )
        (lead,) = trials.to_reference
        assert (lead.only_name, lead.only_other) == (few, 0)
        assert lead.lead.low > 0
        assert lead.verdict is verdict


def test_one_set_or_no_picture_is_refused(posed: Posed) -> None:
    encoded, rows = posed
    sets = {"a": ensemble(rows, rows.templates)}
    with pytest.raises(ValueError, match="2 sets at least"):
        judge(encoded, sets, "a")
    with pytest.raises(ValueError, match="no picture"):
        judge(encoded.subset(np.array([], np.int64)), sets | {"b": sets["a"]}, "a")


def test_a_resample_without_any_labelled_picture_counts_for_nothing(posed: Posed) -> None:
    encoded, rows = posed
    truth = np.zeros_like(encoded.dataset.truth)
    truth[0, 0] = truth[8, 1] = True
    data = dataclasses.replace(encoded.dataset, truth=truth, multi_label=True)
    sets = {
        name: dataclasses.replace(
            ensemble(rows, load_sets()[name].templates), background=rows.rows[0, 0]
        )
        for name in ("simple", "documents")
    }
    sets["simple again"] = sets["simple"]
    trials = judge(dataclasses.replace(encoded, dataset=data), sets, "simple", resamples=1_000)
    # of two labelled pictures among 320, a resample has none in one of seven cases
    assert 750 < trials.resamples[MAP] < 950
    other = next(one for one in trials.to_reference if one.name == "documents")
    assert other.lead.low <= other.lead.value <= other.lead.high
    assert 0 < other.detectable < 1
    same = next(one for one in trials.to_reference if one.name == "simple again")
    assert (same.lead.low, same.lead.high, same.p, same.verdict) == (0, 0, 1, Verdict.OPEN)
    assert "nan" not in " ".join(TrialsSection(trials).words())
    data = dataclasses.replace(data, truth=np.zeros_like(truth))
    with pytest.raises(ValueError, match="none of the pictures has a label"):
        judge(dataclasses.replace(encoded, dataset=data), sets, "simple")


def test_pictures_and_draws_are_resampled_together() -> None:
    dice = np.random.default_rng(5)
    values = dice.integers(-1, 2, (4, 30)).astype(np.float64)
    rows, columns = dice.integers(0, 4, (20_000, 4)), dice.integers(0, 30, (20_000, 30))
    brute = values[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2))
    draws = crossed(values, 20_000, 0)
    assert draws.mean() == pytest.approx(values.mean(), abs=0.01)
    assert draws.std() == pytest.approx(brute.std(), rel=0.04)


@pytest.mark.parametrize("compared", [1, 3, 15])
@pytest.mark.parametrize("lost", [0.0, 0.02, 0.05])
def test_the_detectable_difference_is_found_in_four_of_five_trials(
    lost: float, compared: int
) -> None:
    dice, pictures = np.random.default_rng(1), 400

    def spread(lead: float) -> float:
        return float(np.sqrt((lead + 2 * lost - lead**2) / pictures))

    def seen(lead: float) -> bool:
        leads = dice.choice([1, -1, 0], pictures, p=[lead + lost, lost, 1 - lead - 2 * lost])
        right = np.stack([leads > 0, leads < 0], axis=1)
        drawn = top1(right, 2_000, int(dice.integers(1 << 30)))
        draws = drawn.draws[:, 0] - drawn.draws[:, 1]
        exact = mcnemar_p(int(right[:, 0].sum()), int(right[:, 1].sum()))
        p = max(bootstrap_p(draws), exact) * compared
        return drawn.interval(0, 1)[0] > 0 and p <= 0.05

    leads = np.linspace(0, 0.2, 2_001)
    lead = next(at for at in leads if at >= detectable(spread(at), pictures, compared, exact=True))
    found = np.mean([seen(lead) for _ in range(400)])
    # chances of few pictures come in steps, so where none is lost it is rather more
    assert 0.7 <= found <= (0.95 if lost == 0 else 0.87)


def test_what_is_detectable_knows_the_exact_test_and_the_correction() -> None:
    # six pictures have to differ, and 6 or more do in four of five trials where 7.9 are expected
    assert detectable(0, 100, 1, exact=True) == pytest.approx(gamma.ppf(0.8, 6) / 100)
    # with three comparisons it is 0.05 / 3 that 2 / 2**7 is below
    assert detectable(0, 100, 3, exact=True) == pytest.approx(gamma.ppf(0.8, 7) / 100)
    assert detectable(0, 4, 1, exact=True) == 1
    # ranked pictures have no exact test
    assert detectable(0.001, 100, 1, exact=False) == pytest.approx(0.0028016, rel=1e-4)
    assert detectable(0.001, 100, 3, exact=False) > detectable(0.001, 100, 1, exact=False)


def test_a_report_says_which_differences_are_real_and_escapes_names(
    posed: Posed, trials: Trials
) -> None:
    encoded, rows = posed
    sets = {name: ensemble(rows, load_sets()[name].templates) for name in ("simple", "documents")}
    section = TrialsSection(
        judge(
            encoded,
            {"<i>own</i> [b]": sets["simple"], "documents": sets["documents"]},
            "<i>own</i> [b]",
        )
    )
    words = " ".join(section.words())
    assert "Worse than <i>own</i> [b], and significantly so: documents (−" in words
    assert "seed 0" in words
    page = section.html()
    assert "<i>" not in page.replace("<i class", "")
    assert "&lt;i&gt;own" in page
    assert 'class="badge bad">worse' in page
    assert json.loads(json.dumps(section.json()))["to_reference"][0]["verdict"] == "worse"
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(section.table())
    assert "<i>own</i> [b]" in console.export_text()
