"""Few-shot curves: the probe against scipy, what is drawn, what is tested, what is said."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from rich.console import Console
from scipy.optimize import minimize
from scipy.special import log_softmax
from scipy.stats import t

from app.classify.scoring import Alternatives
from app.evaluation import linear_probe
from app.evaluation import shots as evaluation_shots
from app.evaluation.data import ClassRows, Encoded, TemplateRows, halves
from app.evaluation.figures import Share, top
from app.evaluation.report.shots import ShotsSection
from app.evaluation.shots import Curve, Point, Shots, ShotsError, shots
from app.evaluation.template_search import ensemble, unit
from app.labelsets.prototypes import blend
from models.info import Floats

Posed = tuple[Encoded, TemplateRows]


@pytest.fixture(scope="module")
def data(posed: Posed) -> tuple[Encoded, ClassRows]:
    """12 of the concepts, for the time that a probe takes; with fewer pictures of some."""
    encoded, rows = posed
    indices = np.concatenate([np.arange(8 * place, 8 * place + 8) for place in range(12)])
    indices = np.setdiff1d(indices, [0, 1, 2, 3, 4, *range(8, 15)])
    subset = encoded.subset(indices)
    classes = dataclasses.replace(
        subset.dataset, classes=subset.dataset.classes[:12], truth=subset.dataset.truth[:, :12]
    )
    text = ClassRows(ensemble(rows, ("{}",)).rows[:12])
    return dataclasses.replace(subset, dataset=classes), text


@pytest.fixture(scope="module")
def few_shot(data: tuple[Encoded, ClassRows]) -> Shots:
    return shots(*data, (0, 1, 2, 4, 8), seeds=3)


def test_the_probe_is_the_regression_that_scipy_finds() -> None:
    dice = np.random.default_rng(0)
    targets = np.repeat([0, 2, 5], 6)
    rows = dice.standard_normal((18, 4)).astype(np.float32) + targets[:, None] * 0.3
    pictures = dice.standard_normal((300, 4)).astype(np.float32)
    mean, spread = rows.mean(axis=0), (rows - rows.mean(axis=0)).std()
    scaled = (rows - mean) / spread
    columns = np.searchsorted([0, 2, 5], targets)

    def loss(flat: np.ndarray) -> float:
        weights, offsets = flat[:12].reshape(3, 4), flat[12:]
        logits = log_softmax(scaled @ weights.T + offsets, axis=1)
        return 0.5 * 10**-0.5 * (weights**2).sum() - logits[np.arange(18), columns].sum()

    best = minimize(loss, np.zeros(15), tol=1e-10).x
    logits = (pictures - mean) / spread @ best[:12].reshape(3, 4).T + best[12:]
    expected = np.array([0, 2, 5])[logits.argmax(axis=1)]
    assert (linear_probe.predictions(rows, targets, -0.5, pictures) == expected).mean() > 0.99
    two = targets > 0
    assert set(linear_probe.predictions(rows[two], targets[two], 0.0, pictures)) == {2, 5}


def test_the_strength_is_chosen_by_shots_that_are_held_out() -> None:
    targets = np.repeat(np.arange(4), 8)
    # every fourth shot of each class
    held_out = np.arange(32) % 4

    def right(rows: Floats, power: float) -> int:
        count = 0
        for fold in range(4):
            out = held_out == fold
            predictions = linear_probe.predictions(rows[~out], targets[~out], power, rows[out])
            count += int((predictions == targets[out]).sum())
        return count

    for seed in range(4):
        # four dimensions tell, the others distract
        rows = 0.9 * np.random.default_rng(seed).standard_normal((32, 30)).astype(np.float32)
        rows[np.arange(32), targets] += 1.2
        chosen = linear_probe.strength(rows, targets)
        shares = {power: right(rows, power) for power in (*linear_probe.COARSE, chosen)}
        assert shares[chosen] == max(shares.values()) > min(shares.values())
    assert linear_probe.strength(rows[::8], targets[::8]) == linear_probe.WITHOUT_CHOICE


def test_zero_shot_and_curves_are_of_the_same_test_pictures(
    data: tuple[Encoded, ClassRows], few_shot: Shots
) -> None:
    encoded, classes = data
    classes_kept = np.flatnonzero(encoded.dataset.counts >= 2)
    subset = encoded.subset(np.flatnonzero(encoded.dataset.truth[:, classes_kept].any(axis=1)))
    truth = subset.dataset.truth[:, classes_kept]
    tested, pool = halves(truth, 0)
    targets = truth.argmax(axis=1)
    expected = top(subset.rows[tested] @ classes.rows[classes_kept].T, targets[tested], 1)
    assert few_shot.zero_shot == expected
    assert (few_shot.tested, few_shot.pool) == (len(tested), len(pool))
    # with all there is, every draw is the whole other half
    rows = blend(
        classes.rows[classes_kept], subset.rows[pool], targets[pool], encoded.info.scale
    ).rows
    full = top(subset.rows[tested] @ rows.T, targets[tested], 1).value
    assert few_shot.curves[1].points[-1].draws == pytest.approx([full] * 3)


def test_shots_of_labels_with_alternatives_move_all_of_them(
    data: tuple[Encoded, ClassRows], few_shot: Shots
) -> None:
    encoded, classes = data
    alike = Alternatives.of([["a", "b"]] * len(classes.rows))
    twice = ClassRows(np.repeat(classes.rows, 2, axis=0), alternatives=alike)
    same = shots(encoded, twice, (1, 4), seeds=3).curves[1].points
    assert [point.draws for point in same] == [
        few_shot.curves[1].points[place].draws for place in (0, 2)
    ]
    # the best of different ones decides
    other = twice.rows.copy()
    noise = np.random.default_rng(3).normal(0, 0.02, classes.rows.shape)
    other[1::2] = unit(np.roll(classes.rows, 3, axis=0) + noise)
    kept = np.flatnonzero(encoded.dataset.counts >= 2)
    subset = encoded.subset(np.flatnonzero(encoded.dataset.truth[:, kept].any(axis=1)))
    truth = subset.dataset.truth[:, kept]
    tested = halves(truth, 0)[0]
    each = (subset.rows[tested] @ other.T).reshape(len(tested), -1, 2).max(axis=2)[:, kept]
    result = shots(encoded, ClassRows(other, alternatives=alike), (1,), seeds=1)
    assert result.zero_shot == top(each, truth[tested].argmax(axis=1), 1)


def test_many_shots_of_a_class_choose_a_weight_as_few_do(
    data: tuple[Encoded, ClassRows], few_shot: Shots, monkeypatch: pytest.MonkeyPatch
) -> None:
    # two pictures of each class choose, where there are four
    monkeypatch.setattr(evaluation_shots, "CHOOSING", 4)
    probe, blend = evaluation_shots.shots(*data, (4,), seeds=3).curves
    assert probe == dataclasses.replace(few_shot.curves[0], points=few_shot.curves[0].points[2:3])
    assert blend.points[0].chosen > 0
    assert blend.points[0].value > few_shot.zero_shot.value


def test_classes_with_too_few_pictures_are_named(
    data: tuple[Encoded, ClassRows], few_shot: Shots
) -> None:
    names = data[0].dataset.classes
    assert few_shot.left_out == (names[1],)
    assert names[0] in few_shot.short[4]
    assert names[0] not in few_shot.short[1]
    assert few_shot.too_many == (8,)
    assert few_shot.largest == 4
    words = " ".join(ShotsSection(few_shot).json()["words"])
    assert f"left out everywhere, as answers too: {names[1]}." in words
    assert f"Fewer than 4 to draw from, so with all they have: {names[0]}" in words
    assert "Not drawn: 8 a class; the largest has 4 pictures in its half." in words


def test_what_is_learned_does_not_depend_on_the_test_pictures(
    data: tuple[Encoded, ClassRows], few_shot: Shots
) -> None:
    encoded, classes = data
    enough = encoded.dataset.counts >= 2
    places = np.flatnonzero(encoded.dataset.truth[:, enough].any(axis=1))
    tested = places[halves(encoded.dataset.truth[places][:, enough], 0)[0]]
    changed = encoded.rows.copy()
    changed[tested] = changed[tested[::-1]]
    other = shots(dataclasses.replace(encoded, rows=changed), classes, (2,), seeds=3)
    for curve, two in zip(few_shot.curves, other.curves, strict=True):
        assert two.points[0].chosen == curve.points[1].chosen
        assert two.points[0].draws != curve.points[1].draws


def test_one_seed_gives_one_answer_and_another_gives_another(
    data: tuple[Encoded, ClassRows], few_shot: Shots
) -> None:
    again = shots(*data, (1, 2), seeds=3)
    assert [curve.points for curve in again.curves] == [
        curve.points[:2] for curve in few_shot.curves
    ]
    assert shots(*data, (1,), seeds=3, seed=1).curves[0].points[0] != few_shot.curves[0].points[0]


def test_more_pictures_help_and_the_interval_is_students(few_shot: Shots) -> None:
    for curve in few_shot.curves:
        assert curve.points[-1].value > curve.points[0].value - 0.02
    point = few_shot.curves[0].points[0]
    draws = np.array(point.draws)
    low, high = t.interval(0.95, 2, draws.mean(), draws.std(ddof=1) / np.sqrt(3))
    assert (point.low, point.high) == pytest.approx((max(0, low), min(1, high)))
    assert point.lead == pytest.approx(point.value - few_shot.zero_shot.value)
    assert point.lead_low < point.lead < point.lead_high


def curve(*leads: float, sure: float = 0.03) -> Curve:
    return Curve(
        "probe",
        tuple(
            Point(2**place, 0.5 + lead, 0.4, 0.6, (0.5, 0.5), lead, lead - sure, lead + sure, 0.0)
            for place, lead in enumerate(leads)
        ),
    )


def test_the_crossing_is_log_linear_and_has_to_last() -> None:
    points = curve(-0.2, -0.1, 0.1, 0.2)
    assert (points.overtakes, points.certain) == (4, 4)
    assert points.crossing == pytest.approx(2**1.5)
    points = curve(-0.2, 0.01, -0.01, 0.02, 0.04)
    assert (points.overtakes, points.certain) == (8, 16)
    assert points.crossing == pytest.approx(2 ** (2 + 1 / 3))
    assert (curve(0.1, 0.2).overtakes, curve(0.1, 0.2).crossing) == (1, None)
    never = curve(-0.2, 0.1, -0.1)
    assert (never.overtakes, never.certain, never.crossing) == (None, None, None)


def test_a_report_says_with_how_many_pictures_a_method_overtakes(few_shot: Shots) -> None:
    report = dataclasses.replace(
        few_shot,
        classes=("<i>cat</i>", "dog"),
        left_out=("<i>ox</i>",),
        zero_shot=Share(50, 100),
        curves=(curve(-0.2, -0.1, 0.1), dataclasses.replace(curve(0, 0.01, 0.02), method="blend")),
        short={1: (), 2: (), 4: ("<i>cat</i>",)},
    )
    section = ShotsSection(report)
    words = section.words()
    assert (
        "Linear probe: ahead of zero-shot from 4 pictures a class (level at about 2.8), and "
        in words[1]
    )
    assert (
        "Text and pictures: ahead of zero-shot from 2 pictures a class, but never significantly"
        in words[2]
    )
    page = section.html()
    assert "<i>" not in page
    assert "&lt;i&gt;ox" in page
    assert "up to 4" in page
    points = json.loads(json.dumps(section.json()))["curves"]["probe"]
    assert (points["overtakes"], points["level_at"]) == (4, 2.828427)
    console = Console(width=80)
    with console.capture() as output:
        console.print(section.table())
    assert "<i>ox</i>" in output.get()


def test_what_cannot_be_drawn_is_one_line(
    data: tuple[Encoded, ClassRows], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, classes = data
    several = dataclasses.replace(encoded.dataset, multi_label=True)
    first = encoded.subset(np.flatnonzero(encoded.dataset.truth[:, 2]))
    for bad, ks, line in (
        (encoded, (0,), "needs a number from 1 to 4: 0 is zero-shot alone"),
        (encoded, (50, 60), "from 1 to 4: no class has 50 to draw from"),
        (dataclasses.replace(encoded, dataset=several), (1,), "not --multi-label"),
        (first, (1,), "2 classes with 2 pictures at least.*got 1"),
    ):
        with pytest.raises(ShotsError, match=line):
            shots(bad, classes, ks)
    linear_probe.available()
    for module in [name for name in sys.modules if name.startswith("sklearn")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(linear_probe.NoScikitLearn, match=r"pip install 'openvocab\[eval\]'"):
        linear_probe.available()
