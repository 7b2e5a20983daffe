"""The search for templates: against a brute search, and that it cannot see what it reports on."""

import dataclasses
import json

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import average_precision_score

from app.classify.concept import ensemble_mean
from app.classify.scoring import Alternatives
from app.evaluation import template_search
from app.evaluation.data import Encoded, TemplateRows, halves
from app.evaluation.figures import scored
from app.evaluation.report.template_search import SearchSection
from app.evaluation.template_search import ensemble, pool, search, unit
from app.evaluation.trials import TOP1, Verdict
from models.info import Floats
from prompts import expand, load_sets, validate_templates

Posed = tuple[Encoded, TemplateRows]

SIMPLE = load_sets()["simple"].templates


def with_labels(encoded: Encoded) -> Encoded:
    """Some pictures with two labels, some with none."""
    truth = encoded.dataset.truth.copy()
    truth[::5, 3] = True
    truth[::7] = False
    data = dataclasses.replace(encoded.dataset, truth=truth, multi_label=True)
    return dataclasses.replace(encoded, dataset=data)


def test_halves_cut_every_class_in_half(posed: Posed) -> None:
    truth = with_labels(posed[0]).dataset.truth
    first, second = halves(truth, seed=4)
    assert sorted([*first, *second]) == list(range(len(truth)))
    plain = posed[0].dataset.truth
    counts = [plain[half].sum(axis=0) for half in halves(plain, seed=4)]
    assert (counts[0] == counts[1]).all()
    assert list(halves(plain, 5)[0]) != list(halves(plain, 4)[0])
    odd = np.repeat(np.eye(9, dtype=bool), [1, 2, 3, 1, 5, 2, 2, 7, 4], axis=0)
    sums = [odd[half].sum(axis=0) for half in halves(odd, 0)]
    assert np.abs(sums[0] - sums[1]).max() == 1


def test_an_ensemble_is_the_one_that_answers_requests(posed: Posed, pictogram: object) -> None:
    encoded, rows = posed
    label = encoded.dataset.classes[7]
    prompts = expand(SIMPLE, label)
    vectors = pictogram.submit_texts(list(prompts)).result()
    assert np.abs(ensemble(rows, SIMPLE).rows[7] - ensemble_mean(vectors)).max() < 1e-5


def with_alternatives(rows: TemplateRows) -> TemplateRows:
    """A second row for each class, between it and its neighbour, and prompts beside templates."""
    templates, classes, width = rows.rows.shape
    between = unit(rows.rows + 0.5 * np.roll(rows.rows, 1, axis=1))
    both = np.stack([rows.rows, between], axis=2).reshape(templates, -1, width)
    beside = np.random.default_rng(5).normal(0, 0.05, both.shape[1:]).astype(np.float32)
    alternatives = Alternatives.of([("a", "b")] * classes)
    return TemplateRows(rows.templates, both, beside, alternatives)


@pytest.mark.parametrize("several", [False, True])
def test_the_search_finds_what_a_brute_search_finds(posed: Posed, *, several: bool) -> None:
    encoded, rows = posed
    rows = with_alternatives(rows) if several else rows
    result = search(encoded, rows, SIMPLE, default_name="simple", limit=3)
    half = encoded.subset(halves(encoded.dataset.truth, 0)[0])
    picked: list[str] = []
    for step in result.steps:
        best = max(
            (t for t in rows.templates if t not in picked),
            key=lambda template: worth(half, rows, [*picked, template]),
        )
        picked.append(best)
        assert step.template == best
        assert step.figure == worth(half, rows, picked)[0]
    assert result.templates == tuple(picked[: len(result.templates)])
    assert result.search.figures[TOP1]["chosen"].value == worth(half, rows, result.templates)[0]


def worth(encoded: Encoded, rows: TemplateRows, templates: list[str]) -> tuple[float, float]:
    scores = scored(encoded, ensemble(rows, templates))
    targets = encoded.dataset.targets
    probabilities = scores.probabilities[np.arange(len(targets)), targets].astype(np.float64)
    share = float((scores.cosines.argmax(axis=1) == targets).mean())
    return share, round(float(np.log(probabilities).mean()), 5)


def test_labels_of_their_own_are_searched_by_average_precision(posed: Posed) -> None:
    encoded, rows = with_labels(posed[0]), posed[1]
    background = TemplateRows(rows.templates, rows.rows[:, :1] + rows.rows[:, 1:2])
    result = search(
        encoded,
        rows,
        SIMPLE,
        default_name="simple",
        background=background,
        candidates=rows.templates[:6],
        limit=2,
        resamples=1_000,
    )
    half = encoded.subset(halves(encoded.dataset.truth, 0)[0])
    truth = half.dataset.truth
    pictured = truth.any(axis=0)

    def precision(templates: list[str]) -> float:
        scores = scored(half, ensemble(rows, templates, background)).probabilities
        return float(
            average_precision_score(truth[:, pictured], scores[:, pictured], average="macro")
        )

    best = max(rows.templates[:6], key=lambda template: precision([template]))
    assert result.steps[0].template == best
    assert result.steps[0].figure == pytest.approx(precision([best]))
    assert result.steps[1].figure == pytest.approx(
        precision([step.template for step in result.steps[:2]])
    )


def test_the_search_never_sees_the_pictures_that_it_reports_on(posed: Posed) -> None:
    encoded, rows = posed
    result = search(encoded, rows, SIMPLE, default_name="simple", seed=2)
    reported = halves(encoded.dataset.truth, 2)[1]
    changed = encoded.rows.copy()
    changed[reported] = changed[reported[::-1]]
    other = search(
        dataclasses.replace(encoded, rows=changed), rows, SIMPLE, default_name="simple", seed=2
    )
    assert other.steps == result.steps
    assert other.search == result.search
    assert other.report != result.report


def test_blocks_and_a_shortlist_change_nothing_but_the_work(
    posed: Posed, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, rows = posed
    result = search(encoded, rows, SIMPLE, default_name="simple", limit=4)
    monkeypatch.setattr(template_search, "BLOCK", 20_000)
    assert search(encoded, rows, SIMPLE, default_name="simple", limit=4) == result
    tried: list[int] = []
    real = template_search.Top1.with_each

    def counting(self: template_search.Top1, path: list[int], places: list[int]) -> list[object]:
        tried.append(len(places))
        return real(self, path, places)

    monkeypatch.setattr(template_search.Top1, "with_each", counting)
    monkeypatch.setattr(template_search, "WORK", 1)
    monkeypatch.setattr(template_search, "SHORTLIST", 5)
    search(encoded, rows, SIMPLE, default_name="simple", limit=4)
    assert tried == [len(rows.templates), 5, 4, 3][: len(tried)]


def noisy(posed: Posed, count: int) -> TemplateRows:
    """The default, and templates that say the same with an accident of their own."""
    dice = np.random.default_rng(0)
    base = ensemble(posed[1], SIMPLE).rows

    def accident() -> Floats:
        return np.asarray(base + 0.02 * dice.standard_normal(base.shape), np.float32)

    templates = tuple(f"{place} {{}}" for place in range(count))
    rows = np.stack([*(accident() for _ in templates), base])
    return TemplateRows((*templates, "default {}"), rows)


def test_a_lead_that_was_learned_by_heart_does_not_carry_over(posed: Posed) -> None:
    result = search(
        posed[0], noisy(posed, 60), ["default {}"], default_name="default",
        candidates=[f"{place} {{}}" for place in range(60)], limit=8,
    )  # fmt: skip
    (searched,), (reported,) = result.search.to_reference, result.report.to_reference
    assert searched.lead.value > 0.02
    assert reported.verdict is not Verdict.BETTER
    section = SearchSection(result)
    assert section.words()[0].startswith(("Keep default", "Too few pictures to tell"))
    assert "did not carry over to new pictures" in section.words()[2]


def test_templates_that_are_better_are_found_and_proved(posed: Posed) -> None:
    encoded, rows = posed
    dice = np.random.default_rng(0)
    bad = ensemble(rows, SIMPLE).rows + 0.08 * dice.standard_normal(rows.rows[0].shape)
    template_rows = TemplateRows(
        (*rows.templates, "bad {}"), np.concatenate([rows.rows, bad[None].astype(np.float32)])
    )
    result = search(encoded, template_rows, ["bad {}"], default_name="bad")
    assert result.report.to_reference[0].verdict is Verdict.BETTER
    section = SearchSection(result)
    assert section.words()[0].startswith("Use them: ")
    assert validate_templates(section.file_text().splitlines()) == result.templates
    assert json.loads(section.labelset_json()) == {"templates": list(result.templates)}
    assert json.loads(json.dumps(section.json()))["report"]["pictures"] == 160
    assert 'class="note good"' in section.html()
    console = Console(width=80, record=True, quiet=True)
    with console.capture() as output:
        console.print(section.table())
    assert isinstance(output.get(), str)


def test_the_pool_is_each_english_template_once() -> None:
    sets = load_sets()
    templates = pool(sets)
    assert len(templates) == len(set(templates))
    assert set(SIMPLE) <= set(templates)
    assert not set(templates) & set(sets["japanese"].templates[1:])
    assert set(sets["german"].templates) == set(pool(sets, ["de"]))


def test_too_few_pictures_and_unknown_templates_are_refused(posed: Posed) -> None:
    encoded, rows = posed
    with pytest.raises(ValueError, match=r"4 pictures at least.*got 3"):
        search(encoded.subset(np.arange(3)), rows, SIMPLE, default_name="simple")
    truth = np.zeros_like(encoded.dataset.truth)
    truth[0, 0] = True
    data = dataclasses.replace(encoded.dataset, truth=truth, multi_label=True)
    with pytest.raises(ValueError, match="one picture with a label in each half"):
        search(dataclasses.replace(encoded, dataset=data), rows, SIMPLE, default_name="simple")
    with pytest.raises(ValueError, match=r"without a vector: .'a {} on Mars'"):
        ensemble(rows, ["a {} on Mars"])
