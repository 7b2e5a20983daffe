"""The figures of an evaluation equal scikit-learn's on the same predictions."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.calibration import calibration_curve

from app.evaluation import figures
from app.evaluation.data import ClassRows, ModelInfo, Scores
from app.evaluation.figures import figures_of, mistakes, scores_of
from app.labelsets.calibration import reliability

TOLERANCE = 1e-6
INFO = ModelInfo("m", "f", "fp32", "cpu", "torch", 40.0, None, 8, "simple")

seeds = st.integers(0, 2**32 - 1)


def world(seed: int, pictures: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets (N,) and distinct cosines (N, C) that know a little of them."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, pictures)
    cosines = rng.normal(0, 0.05, (pictures, classes)).astype(np.float32)
    cosines[np.arange(pictures), targets] += 0.06
    return targets, cosines


def softmax(cosines: np.ndarray, scale: float = 40.0) -> np.ndarray:
    powers = np.exp(scale * (cosines - cosines.max(axis=1, keepdims=True)))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def one_hot(targets: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=bool)[targets]


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 60), st.integers(2, 9))
def test_single_label_figures_are_scikit_learns(seed: int, pictures: int, classes: int) -> None:
    targets, cosines = world(seed, pictures, classes)
    truth, found_scores = one_hot(targets, classes), Scores(cosines, softmax(cosines))
    figures = figures_of(truth, found_scores, multi_label=False)
    predicted = cosines.argmax(axis=1)
    every = np.arange(classes)
    assert figures.top1.value == pytest.approx(metrics.accuracy_score(targets, predicted))
    if classes > 5:
        top5 = metrics.top_k_accuracy_score(targets, cosines, k=5, labels=every)
        assert figures.top5.value == pytest.approx(top5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that were predicted and are not there
        balanced = metrics.balanced_accuracy_score(targets, predicted)
    assert figures.classes.mean_recall == pytest.approx(balanced)
    precision, recall, f1, count = metrics.precision_recall_fscore_support(
        targets, predicted, labels=every, zero_division=0
    )
    np.testing.assert_allclose(figures.classes.precision, precision)
    np.testing.assert_allclose(np.nan_to_num(figures.classes.recall), recall)
    np.testing.assert_allclose(figures.classes.f1, f1)
    np.testing.assert_array_equal(figures.classes.count, count)
    expected = metrics.confusion_matrix(targets, predicted, labels=every)
    np.testing.assert_array_equal(figures.matrix, expected)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(2, 60), st.integers(2, 6), st.integers(1, 4))
def test_multi_label_figures_are_scikit_learns_with_ties_too(
    seed: int, pictures: int, classes: int, digits: int
) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random((pictures, classes)) < 0.4
    scores = np.round(rng.random((pictures, classes)), digits).astype(np.float32)
    figures = figures_of(truth, Scores(scores, scores), multi_label=True)
    there = truth.any(axis=0)
    for place in np.flatnonzero(there):
        expected = metrics.average_precision_score(truth[:, place], scores[:, place])
        assert figures.classes.average_precision[place] == pytest.approx(expected, abs=TOLERANCE)
    assert np.isnan(figures.classes.average_precision[~there]).all()
    if there.any():
        expected = metrics.average_precision_score(truth[:, there], scores[:, there], average=None)
        mean = figures.classes.mean_average_precision
        assert mean == pytest.approx(np.mean(expected), abs=TOLERANCE)
    predicted = scores >= 0.5
    f1 = metrics.f1_score(truth, predicted, average=None, zero_division=0)
    np.testing.assert_allclose(figures.classes.f1, f1)


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(1, 200))
def test_the_reliability_diagram_is_scikit_learns_and_its_error_guos(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    # on the edges of bins, too
    confidence = rng.choice([rng.random(), 0.0, 0.2, 0.4, 1.0, *rng.random(9)], count)
    right = rng.random(count) < confidence
    bins = reliability.reliability(confidence.astype(np.float32), right)
    confidence = confidence.astype(np.float32).astype(np.float64)
    shares, means = calibration_curve(right, confidence, n_bins=reliability.BINS)
    used = bins.count > 0
    np.testing.assert_allclose(bins.accuracy[used], shares)
    np.testing.assert_allclose(bins.confidence[used], means)
    error = 0.0
    for low, high in zip(np.linspace(0, 1, 16)[:-1], np.linspace(0, 1, 16)[1:], strict=True):
        inside = (confidence > low) & (confidence <= high) | (confidence == low) & (low == 0)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert bins.error == pytest.approx(error, abs=TOLERANCE)


def test_an_interval_is_wilsons_and_holds_the_share_it_is_of() -> None:
    # Newcombe 1998, table I: 81/263, 15/148, 0/20, 1/29 without continuity correction
    for hits, count, low, high in (
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718),
    ):  # fmt: skip
        assert figures.Share(hits, count).interval == pytest.approx((low, high), abs=5e-5)
    assert figures.Share(7, 7).interval[1] == 1.0
    assert figures.Share(0, 0).interval == (0.0, 1.0)


def test_equal_scores_keep_the_order_of_the_labels_as_classify_does() -> None:
    cosines = np.zeros((2, 3), np.float32)
    targets = np.array([0, 1])
    assert figures.predictions(cosines).tolist() == [0, 0]
    assert figures.ranks(cosines, targets).tolist() == [0, 1]
    assert figures.top(cosines, targets, 1).hits == 1


def test_the_most_confused_pair_stands_first_and_no_hit_is_a_pair() -> None:
    matrix = np.array([[5, 1, 0], [3, 2, 0], [0, 1, 9]])
    pairs = figures.most_confused(matrix, 2)
    assert [(p.truth, p.predicted, p.count, p.share) for p in pairs] == [
        (1, 0, 3, 0.6),
        (0, 1, 1, 1 / 6),
    ]


def test_mistakes_are_the_surest_ones_and_three_of_a_kind_at_most() -> None:
    targets = np.array([0] * 6 + [1])
    cosines = np.zeros((7, 3), np.float32)
    cosines[:6, 1] = np.linspace(0.2, 0.1, 6)  # six of class 0 are taken for 1
    cosines[6, 2] = 0.02
    scores = Scores(cosines, softmax(cosines))
    truth = one_hot(targets, 3)
    errors = mistakes(truth, figures_of(truth, scores, multi_label=False), scores, 10)
    assert [(m.picture, m.truth, m.predicted) for m in errors] == [
        (0, 0, 1), (1, 0, 1), (2, 0, 1), (6, 1, 2),
    ]  # fmt: skip
    assert errors[0].score == pytest.approx(float(scores.probabilities[0, 1]))
    assert errors[0].own == pytest.approx(float(scores.probabilities[0, 0]))


def test_mistakes_with_several_labels_are_missed_and_wrongly_seen_ones() -> None:
    truth = np.array([[True, True], [False, True], [True, False]])
    scores = np.array([[0.9, 0.1], [0.8, 0.9], [0.9, 0.2]], np.float32)
    found_scores = Scores(scores, scores)
    errors = mistakes(truth, figures_of(truth, found_scores, multi_label=True), found_scores, 5)
    assert [(m.picture, m.truth, m.predicted) for m in errors] == [(0, 1, None), (1, 1, 0)]


def test_several_labels_are_scored_against_a_background_and_never_without_one() -> None:
    rows = np.eye(8, dtype=np.float32)[:3]
    classes = ClassRows(np.eye(8, dtype=np.float32)[:2], np.eye(8, dtype=np.float32)[2])
    scores = scores_of(rows, classes, INFO, multi_label=True)
    assert scores.probabilities[0].tolist() == pytest.approx([1.0, 0.5])
    assert scores.probabilities[2].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    with pytest.raises(ValueError, match="background"):
        scores_of(rows, ClassRows(classes.rows), INFO, multi_label=True)
