"""Prediction sets contain the right label as often as requested, whatever the model."""

import math

import numpy as np
import pytest

from app.classify.scoring import covering
from app.labelsets.calibration.conformal import PERCENTS, bounds


def world(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines (N, 12) of a model that is right about half the time, and the right labels."""
    chance = np.random.default_rng(seed)
    truth = chance.integers(0, 12, count)
    cosines = chance.normal(0, 0.03, (count, 12))
    cosines[np.arange(count), truth] += 0.05
    return cosines.astype(np.float32), truth


# well above the share of pictures whose best label is right, since that label is always in the set
@pytest.mark.parametrize("coverage", [0.7, 0.8, 0.9, 0.95])
def test_the_right_label_is_in_the_set_as_often_as_promised(coverage: float) -> None:
    covered, sizes = [], []
    count, draws = 100, 30
    for seed in range(draws):
        fitted = bounds(*world(count, seed), scale=100.0)
        cosines, truth = world(count, 1000 + seed)
        for row, right in zip(cosines, truth, strict=True):
            labels = covering(row, 100.0, fitted, coverage)
            covered.append(int(right) in labels)
            sizes.append(len(labels))
    # between coverage and coverage + 1 / (count + 1) (Angelopoulos and Bates 2021, appendix D),
    # within four standard deviations of a draw: the beta one of its bound, the binomial one of its
    # pictures
    chance = coverage * (1 - coverage)
    noise = 4 * math.sqrt((chance / (count + 2) + chance / count) / draws)
    assert coverage - noise < np.mean(covered) < coverage + 1 / (count + 1) + noise
    assert np.mean(sizes) < 12 * coverage  # as many as sets drawn blindly would need


def test_more_is_promised_by_larger_sets_best_label_first() -> None:
    fitted = bounds(*world(300, 1), scale=100.0)
    assert list(fitted) == sorted(fitted)
    cosines, _ = world(1, 2)
    order = list(np.argsort(-cosines[0], kind="stable"))
    before: list[int] = []
    for percent in PERCENTS:
        labels = covering(cosines[0], 100.0, fitted, percent / 100)
        assert labels == order[: len(labels)]
        assert len(labels) >= max(1, len(before))
        before = labels


def test_too_few_pictures_for_a_promise_give_all_labels() -> None:
    cosines, truth = world(10, 3)
    fitted = bounds(cosines, truth, 100.0)
    assert len(covering(cosines[0], 100.0, fitted, 0.99)) == 12
    assert fitted[90 - 1] < 1
