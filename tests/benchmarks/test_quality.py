"""The figures that benchmarks.quality is made of, on pictures that are invented."""

import numpy as np

from benchmarks.quality.strangers import Draws, auroc, resampled
from benchmarks.quality.together import together
from benchmarks.quality.validation import compared


def draws_of(scores: list[float], labels_shown: list[bool]) -> Draws:
    of_labels = np.array([labels_shown])
    return Draws(of_labels, of_labels, {"score": np.array([scores])}, {})


def test_a_score_is_as_good_as_it_tells_strangers_from_pictures_of_the_labels() -> None:
    of_labels = [True, True, False, False]
    assert auroc(draws_of([4, 3, 2, 1], of_labels), "score") == 1
    assert auroc(draws_of([1, 2, 3, 4], of_labels), "score") == 0
    assert auroc(draws_of([1, 1, 1, 1], of_labels), "score") == 0.5


def test_the_first_resample_is_what_was_observed() -> None:
    single = draws_of([4, 3, 2, 1], [True, True, False, False])
    refused = np.array([[True, False, True, True]])
    strangers, lost = resampled(single, [refused])[0, 0]
    assert (strangers, lost) == (1.0, 0.5)


def test_a_way_is_compared_with_the_first_of_them() -> None:
    first, second = np.array([True] * 50 + [False] * 50), np.array([True] * 60 + [False] * 40)
    rows = compared({"first": first, "second": second})
    assert rows[0][2] == ""
    assert str(rows[1][2]).startswith("+10.0 (+")


def test_pictures_beside_one_another_come_to_one_label() -> None:
    chance = np.random.default_rng(0)
    centres = np.eye(2, 8)[np.repeat([0, 1], 20)]
    rows = np.asarray(centres + chance.normal(scale=0.05, size=centres.shape), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    shares = np.tile(np.array([0.7, 0.3], np.float32), (40, 1))
    shares[20:] = shares[20:, ::-1]
    shares[[0, 25]] = shares[[25, 0]]  # the text takes two of them for the other label
    helped = together(rows, shares)
    assert np.allclose(helped.sum(axis=1), 1, atol=1e-5)
    assert (helped.argmax(axis=1) == np.repeat([0, 1], 20)).all()
