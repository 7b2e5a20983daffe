"""Scores from vectors: held against numpy's float64 and against known identities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from app.classify import scoring

COSINES = arrays(np.float32, st.integers(1, 40), elements=st.floats(-1, 1, width=32))
NEAR = 1e-5


@given(COSINES, st.floats(0.01, 200))
def test_softmax_equals_float64_and_sums_to_one(cosines: np.ndarray, scale: float) -> None:
    found = scoring.softmax(cosines, scale)
    exact = np.exp(np.float64(scale) * (cosines.astype(np.float64) - cosines.max()))
    np.testing.assert_allclose(found, exact / exact.sum(), atol=1e-4)
    assert found.dtype == np.float32
    assert found.sum() == pytest.approx(1, abs=NEAR)


@given(COSINES, st.floats(0.01, 200), st.floats(-20, 20))
def test_sigmoid_equals_float64_and_never_overflows(
    cosines: np.ndarray, scale: float, bias: float
) -> None:
    exact = 1 / (1 + np.exp(-(np.float64(scale) * cosines.astype(np.float64) + bias)))
    np.testing.assert_allclose(scoring.sigmoid(cosines, scale, bias), exact, atol=1e-4)


def test_a_label_as_near_as_the_background_scores_one_half() -> None:
    found = scoring.against_background(np.float32([0.3, 0.2, 0.4]), 0.3, 100.0)
    assert found[0] == pytest.approx(0.5, abs=NEAR)
    assert found[1] < 0.01
    assert found[2] > 0.99


def test_against_background_is_the_softmax_of_two() -> None:
    pair = scoring.softmax(np.float32([0.31, 0.3]), 100.0)
    found = scoring.against_background(np.float32([0.31]), 0.3, 100.0)
    assert found[0] == pytest.approx(pair[0], abs=NEAR)


def test_similarities_are_dot_products() -> None:
    classes = np.float32([[1, 0], [0, 1], [0.6, 0.8]])
    np.testing.assert_allclose(scoring.similarities(np.float32([0.6, 0.8]), classes), [0.6, 0.8, 1])


def test_ranking_is_best_first_and_keeps_the_order_of_equals() -> None:
    scores = np.float32([0.1, 0.3, 0.3, 0.2, 0.1])
    assert scoring.rank(scores, 4, None) == (1, 2, 3, 0)
    assert scoring.rank(scores, 9, 0.2) == (1, 2, 3)
    assert scoring.rank(scores, 9, 0.5) == ()
