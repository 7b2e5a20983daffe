"""Temperatures and thresholds against independent fits, and a calibration as JSON."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax
from sklearn.metrics import f1_score, log_loss

from app.classify.concept import Concept
from app.evaluation.data import ClassRows, Dataset, Encoded, ModelInfo
from app.evaluation.report.calibration import calibrate
from app.evaluation.report.html import esc
from app.labelsets.calibration import temperature, thresholds
from app.labelsets.calibration.abstention import splits
from app.labelsets.calibration.fit import Aim, Labelled, Model, NotEnough, fit
from app.labelsets.calibration.value import Calibration, fitted_for

MODEL = Model("m", "print", 100.0, None)
NEAR = 1e-4


def world(pictures: int, labels: int, scale: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cosines whose softmax at `scale` is the truth: labels are drawn from it."""
    rng = np.random.default_rng(seed)
    cosines = rng.normal(0.2, 0.03, (pictures, labels)).astype(np.float32)
    logits = scale * cosines.astype(np.float64)
    return cosines, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


def data(cosines: np.ndarray, targets: np.ndarray, **more: Any) -> Labelled:
    truth = targets[:, None] == np.arange(cosines.shape[1])
    names = [f"label {place}" for place in range(cosines.shape[1])]
    return Labelled(names, cosines, truth, **more)


def test_the_scale_is_the_one_that_scipy_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    cosines, truth = world(300, 7, 40.0)
    monkeypatch.setattr(temperature, "PRIOR", 0.0)

    def loss(scale: float) -> float:
        return float(log_loss(truth, np.exp(log_softmax(scale * cosines.astype(float), axis=1))))

    best = minimize_scalar(loss, bounds=(1, 500), method="bounded", options={"xatol": 1e-6})
    assert temperature.fit_scale(cosines, truth, 100.0) == pytest.approx(best.x, rel=NEAR)
    measured = -temperature.log_likelihoods(cosines, truth, 40.0).mean()
    assert measured == pytest.approx(loss(40.0), rel=NEAR)


@pytest.mark.parametrize("true_scale", [15.0, 40.0, 100.0])
def test_a_scale_that_made_the_labels_is_found_again(true_scale: float) -> None:
    cosines, truth = world(4_000, 10, true_scale)
    assert temperature.fit_scale(cosines, truth, 100.0) == pytest.approx(true_scale, rel=0.08)


def test_few_pictures_that_are_all_right_do_not_make_scores_certain() -> None:
    cosines = np.float32([[0.30, 0.28], [0.27, 0.31]] * 6)
    truth = np.array([0, 1] * 6)
    scale = temperature.fit_scale(cosines, truth, 50.0)
    assert 50 < scale < 150
    # twelve right ones and ten of the prior: about as sure as that, never more
    assert temperature.best_scores(cosines, scale).mean() < 1 - 0.2 * 10 / (12 + 10)
    more = temperature.fit_scale(np.tile(cosines, (10, 1)), np.tile(truth, 10), 50.0)
    assert scale < more < 50 * temperature.WIDEST


def test_pictures_that_the_model_gets_wrong_end_at_a_bound_and_not_below_zero() -> None:
    cosines = np.float32([[0.4, 0.2]] * 500)
    scale = temperature.fit_scale(cosines, np.ones(500, np.int64), 100.0)
    assert scale == pytest.approx(100 / temperature.WIDEST, rel=0.01)


def test_scale_and_bias_of_sigmoids_are_those_that_scipy_finds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(1)
    cosines = rng.normal(0.1, 0.05, (200, 6)).astype(np.float32)
    truth = rng.random((200, 6)) < 1 / (1 + np.exp(-(60 * cosines - 8)))
    monkeypatch.setattr(temperature, "PRIOR", 0.0)

    def loss(at: np.ndarray) -> float:
        logits = at[0] * cosines.astype(float) + at[1]
        return float((np.logaddexp(0, logits) - truth * logits).sum())

    best = minimize(loss, [100.0, -10.0], method="Nelder-Mead", options={"maxiter": 5_000})
    fitted = temperature.fit_sigmoid(cosines, truth, 100.0, -10.0)
    assert loss(np.array(fitted)) == pytest.approx(best.fun, rel=1e-6)
    assert fitted == pytest.approx(best.x, rel=1e-2)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_sigmoids_of_labels_that_the_model_gets_wrong_are_fitted_as_well_as_can_be(
    monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(temperature, "PRIOR", 0.0)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        truth = rng.random((30, 5)) < share
        cosines = (rng.normal(0, 0.05, truth.shape) - 0.4 * truth).astype(np.float32)

        def loss(at: np.ndarray, cosines: np.ndarray = cosines, truth: np.ndarray = truth) -> float:
            logits = at[0] * cosines.astype(float) + at[1]
            return float((np.logaddexp(0, logits) - truth * logits).sum())

        ends = [(100 / temperature.WIDEST, 100 * temperature.WIDEST), (None, None)]
        best = minimize(loss, [100.0, -10.0], method="L-BFGS-B", bounds=ends)
        fitted = temperature.fit_sigmoid(cosines, truth, 100.0, -10.0)
        assert loss(np.array(fitted)) <= best.fun * (1 + NEAR)


def test_blocks_of_the_matrix_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cosines, truth = world(101, 9, 30.0)
    whole = temperature.fit_scale(cosines, truth, 70.0)
    monkeypatch.setattr(temperature, "CELLS", 40)
    assert temperature.fit_scale(cosines, truth, 70.0) == pytest.approx(whole, rel=1e-9)


def test_a_labels_threshold_has_the_largest_f1_of_all_cuts() -> None:
    rng = np.random.default_rng(2)
    for _ in range(5):
        values = rng.normal(0, 1, 60).round(1).astype(np.float32)
        positive = rng.random(60) < 1 / (1 + np.exp(-2 * values))
        score = f1_score(positive, values >= thresholds.best_threshold(values, positive))
        cuts = [f1_score(positive, values >= cut) for cut in np.unique(values)]
        assert score == pytest.approx(max(cuts))


def test_the_common_threshold_has_the_largest_f1_of_all_pairs() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(0, 1, (40, 130)).round(2).astype(np.float32)
    truth = rng.random((40, 130)) < 0.2 / (1 + np.exp(-3 * values))
    common, per_label = thresholds.thresholds(values, truth)
    score = f1_score(truth, values >= common, average="micro", zero_division=0)
    cuts = [f1_score(truth, values >= cut, average="micro", zero_division=0)
            for cut in np.unique(values[truth])[::4]]  # fmt: skip
    assert score >= max(cuts)
    micro, macro = thresholds.f1(truth, thresholds.answers_of(values, common, per_label))
    predicted = values >= np.where(np.isnan(per_label), common, per_label)
    assert micro == pytest.approx(f1_score(truth, predicted, average="micro"))
    pictured = truth.any(axis=0)
    assert macro == pytest.approx(
        f1_score(truth[:, pictured], predicted[:, pictured], average="macro")
    )


def test_a_label_with_few_pictures_keeps_near_the_common_threshold() -> None:
    values = np.float32([[0.9, 0.1]] * 30 + [[0.2, 0.5]] * 2 + [[0.1, 0.2]] * 30)
    truth = np.zeros((62, 2), bool)
    truth[:30, 0] = truth[30:32, 1] = True
    common, per_label = thresholds.thresholds(values, truth)
    best = [thresholds.best_threshold(values[:, i], truth[:, i]) for i in (0, 1)]
    assert per_label[1] == pytest.approx(
        (2 * best[1] + thresholds.PRIOR * common) / (2 + thresholds.PRIOR)
    )
    assert abs(per_label[0] - best[0]) < abs(per_label[1] - best[1])


def test_overconfident_scores_are_mended_on_pictures_that_were_not_used() -> None:
    cosines, truth = world(600, 8, 30.0)
    calibration = fit(data(cosines, truth), MODEL, "x", Aim(risk=0.3)).calibration
    assert calibration is not None
    assert calibration.temperature == pytest.approx(100 / 30, rel=0.15)
    assert calibration.before.ece > 0.2
    assert calibration.after.ece < 0.08
    assert calibration.after.nll < calibration.before.nll
    assert calibration.before.accuracy == calibration.after.accuracy
    assert calibration.threshold is None  # nobody gave a background


def test_the_likelihood_that_is_told_is_of_pictures_that_others_fitted() -> None:
    cosines, truth = world(40, 5, 20.0)
    calibration = fit(data(cosines, truth), MODEL, "x", Aim(risk=1.0)).calibration
    assert calibration is not None
    held_out = []
    for train, test in splits(40, 0):
        scale = temperature.fit_scale(cosines[train], truth[train], MODEL.scale)
        held_out += list(temperature.log_likelihoods(cosines[test], truth[test], scale))
    assert calibration.after.nll == pytest.approx(-np.mean(held_out))
    assert (
        calibration.after.nll
        > -temperature.log_likelihoods(cosines, truth, calibration.scale).mean()
    )


def test_what_is_told_is_measured_on_others_than_it_was_fitted_to() -> None:
    """Pictures without any truth in them: fitted figures would look good, held-out ones do not."""
    rng = np.random.default_rng(5)
    cosines = rng.normal(0.2, 0.03, (60, 40)).astype(np.float32)
    truth = rng.integers(0, 40, 60)
    calibration = fit(
        data(cosines, truth, background=np.full(60, 0.2, np.float32)), MODEL, "x", Aim(1.0)
    )
    assert calibration.calibration is not None
    assert calibration.calibration.f1 is not None
    common, per_label = thresholds.thresholds(cosines - 0.2, truth[:, None] == np.arange(40))
    fitted, _ = thresholds.f1(
        truth[:, None] == np.arange(40), thresholds.answers_of(cosines - 0.2, common, per_label)
    )
    assert calibration.calibration.f1.micro_after < fitted


def test_sigmoid_models_get_scale_bias_and_thresholds_without_a_background() -> None:
    rng = np.random.default_rng(6)
    targets = rng.integers(0, 5, 200)
    truth = targets[:, None] == np.arange(5)
    cosines = (rng.normal(0.0, 0.02, (200, 5)) + 0.1 * truth).astype(np.float32)
    model = Model("siglip", "print", 110.0, -14.0)
    calibration = fit(data(cosines, targets), model, "x", Aim()).calibration
    assert calibration is not None
    assert calibration.bias is not None
    scores = 1 / (1 + np.exp(-(calibration.scale * cosines + calibration.bias)))
    assert scores[truth].mean() > 0.9
    assert scores[~truth].mean() < 0.1
    assert calibration.after.nll < calibration.before.nll
    assert calibration.threshold == pytest.approx(0.05, abs=0.03)
    assert set(calibration.thresholds) == {f"label {place}" for place in range(5)}


@pytest.mark.parametrize(
    ("truth", "limit", "value"), [([0, 1] * 4, 10, 8), ([2] * 12, 2, 1), ([], 10, 0)]
)
def test_too_few_pictures_or_labels_are_named(truth: list[int], limit: int, value: int) -> None:
    cosines = np.zeros((len(truth), 3), np.float32)
    with pytest.raises(NotEnough) as caught:
        fit(data(cosines, np.array(truth, np.int64)), MODEL, "x", Aim())
    assert (caught.value.limit, caught.value.value) == (limit, value)


def calibration() -> Calibration:
    cosines, truth = world(60, 4, 60.0)
    fitted = fit(data(cosines, truth, background=cosines.mean(1)), MODEL, "x", Aim(risk=0.4))
    assert fitted.calibration is not None
    return fitted.calibration


def test_a_calibration_survives_its_json() -> None:
    response = calibration()
    assert Calibration.from_json(json.loads(json.dumps(response.json()))) == response
    bare = replace(response, bias=None, threshold=None, thresholds={}, f1=None, confidence=0.9)
    assert Calibration.from_json(json.loads(json.dumps(bare.json()))) == bare


@pytest.mark.parametrize(
    ("field", "value"),
    [("scale", 0), ("scale", None), ("scale", "7"), ("floor", 1.5), ("margin", -0.1), ("format", 2),
     ("pictures", 1.5), ("thresholds", []), ("thresholds", {"cat": float("nan")}), ("model", 3),
     ("before", None), ("held_out", {"coverage": 1}), ("f1", {}), ("risk", True)],
)  # fmt: skip
def test_a_calibration_with_a_wrong_field_names_it(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{field}"):
        Calibration.from_json({**calibration().json(), field: value})


def test_what_it_was_fitted_for_is_all_that_vectors_are_made_of() -> None:
    def concept_key(
        label: str = "cat", text: str = "cat", template: str = "{}", *examples: str
    ) -> str:
        return fitted_for([label, "dog"], [Concept((text,), (template,))] * 2, examples)

    assert concept_key() == concept_key()
    variants = [concept_key("kat"), concept_key("cat", "kitten"), concept_key("cat", "cat", "a {}"),
              concept_key("cat", "cat", "{}", "0f cat")]  # fmt: skip
    assert len({concept_key(), *variants}) == 5
    assert concept_key("cat", "cat", "{}", "a", "b") == concept_key("cat", "cat", "{}", "b", "a")


def study(pictures: int = 60, right: bool = True) -> tuple[Encoded, ClassRows]:
    """Pictures near their label's vector, or near another one's."""
    rng = np.random.default_rng(4)
    rows = np.eye(6, 16, dtype=np.float32)
    truth = np.arange(pictures) % 6
    cosine_rows = rows[truth if right else (truth + 1) % 6] + 0.15 * rng.normal(size=(pictures, 16))
    cosine_rows = np.float32(cosine_rows / np.linalg.norm(cosine_rows, axis=1, keepdims=True))
    names = tuple(f"<b>{place}" for place in range(6))
    files = tuple(Path(f"{place}.png") for place in range(pictures))
    dataset = Dataset(names, files, truth[:, None] == np.arange(6), multi_label=False)
    info = ModelInfo("m", "print", "fp32", "cpu", "torch", 5.0, None, 16, "none")
    background = np.full(16, 0.25, np.float32)
    return Encoded(dataset, cosine_rows, (), info), ClassRows(rows, background)


def test_a_report_has_the_curve_the_words_and_the_file_that_stores_it() -> None:
    section = calibrate(*study(), "x", aim=Aim())
    text = section.file_text()
    assert text is not None
    stored = Calibration.from_json(json.loads(text))
    assert (stored.fitted_for, stored.pictures, stored.scale) == ("x", 60, section.fitted.scale)
    document = json.loads(json.dumps(section.json()))
    assert document["calibration"] == json.loads(text)
    assert document["risk_coverage"]["points"][-1]["coverage"] == 1.0
    html = section.html()
    assert html.count("<svg") == 4  # two diagrams with their counts
    assert "No answer was wrong" in html  # so there is no curve to draw
    assert all(esc(line) in html for line in section.words())
    assert "<b>0" not in html
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(section.table())
    assert "temperature" in console.export_text()


def test_a_report_says_where_the_wanted_risk_cannot_be_reached() -> None:
    section = calibrate(*study(right=False), "x", aim=Aim(risk=0.05))
    assert section.file_text() is None
    assert section.json()["calibration"] is None
    assert "share of wrong answers" in section.words()[-1]
    assert section.words()[-1].split(":")[0] in section.html()
    assert section.html().count("<svg") == 5  # and the curve
