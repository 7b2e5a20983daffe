"""Blending texts with prototypes of pictures, on vectors with a gap between the two as CLIP has."""

from dataclasses import replace

import numpy as np
import pytest

from app.labelsets.prototypes import OFFSETS, PRIOR, Choice, blend, blended, choose_weight

WIDTH, SCALE = 64, 100.0


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


class World:
    """Labels whose texts lie in one cone and whose pictures in another, as far as `clear` alike."""

    def __init__(self, labels: int, clear: float, seed: int = 0, noise: float = 0.7) -> None:
        self._noise = noise
        self._random = np.random.default_rng(seed)
        meanings = self._random.normal(size=(labels, WIDTH)) / WIDTH**0.5
        others = self._random.normal(size=(labels, WIDTH)) / WIDTH**0.5
        cones = unit(self._random.normal(size=(2, WIDTH)))
        self.text = unit(3 * cones[0] + clear * meanings + (1 - clear) * others)
        self._meant = 1.5 * cones[1] + meanings
        self.labels = labels

    def pictures(self, owners: np.ndarray) -> np.ndarray:
        noise = self._random.normal(size=(len(owners), WIDTH)) / WIDTH**0.5
        return unit(self._meant[owners] + self._noise * noise)


def accuracy(rows: np.ndarray, world: World, labels: np.ndarray) -> float:
    owners = np.repeat(labels, 100)
    return float(((world.pictures(owners) @ rows.T).argmax(1) == owners).mean())


def test_examples_of_all_labels_raise_what_texts_alone_tell() -> None:
    world = World(20, clear=0.3)
    every = np.arange(20)
    owners = np.repeat(every, 4)
    vectors = blend(world.text, world.pictures(owners), owners, SCALE)
    before, after = accuracy(world.text, world, every), accuracy(vectors.rows, world, every)
    assert after > before + 0.2
    assert vectors.choice.weight > 0
    assert vectors.choice.tried == 80
    assert vectors.choice.text is not None
    assert vectors.choice.blend is not None
    # what leave-one-out tells is what pictures that nobody has seen show
    assert vectors.choice.text.accuracy == pytest.approx(before, abs=0.15)
    assert vectors.choice.blend.accuracy == pytest.approx(after, abs=0.15)


@pytest.mark.parametrize("examples", [2, 10, 19])
@pytest.mark.parametrize("clear", [0.3, 0.8])
def test_labels_without_examples_do_not_lose(examples: int, clear: float) -> None:
    gains, losses = [], []
    for seed in range(6):
        world = World(20, clear, seed)
        owners = np.repeat(np.arange(examples), 4)
        rows = blend(world.text, world.pictures(owners), owners, SCALE).rows
        taught, bare = np.arange(examples), np.arange(examples, 20)
        gains.append(accuracy(rows, world, taught) - accuracy(world.text, world, taught))
        losses.append(accuracy(world.text, world, bare) - accuracy(rows, world, bare))
    assert np.mean(gains) > (0.2 if clear < 0.5 and examples > 2 else -0.03)
    assert np.mean(losses) < 0.02


@pytest.mark.parametrize("pictures_of_label", [0, 1, 3])
def test_one_picture_of_something_else_does_not_ruin_its_label(pictures_of_label: int) -> None:
    changes = []
    for seed in range(6):
        world = World(21, clear=0.5, seed=seed)
        text, last = world.text[:20], np.array([19])
        owners = np.append(np.repeat(np.arange(20), [4] * 19 + [pictures_of_label]), 19)
        truth = np.append(owners[:-1], 20)  # a picture of what is no label here
        rows = blend(text, world.pictures(truth), owners, SCALE).rows
        changes.append(accuracy(rows, world, last) - accuracy(text, world, last))
    assert np.mean(changes) > -0.1


def test_where_texts_tell_all_pictures_have_no_weight() -> None:
    world = World(20, clear=1.0, noise=0.05)
    owners = np.repeat(np.arange(20), 4)
    weight = choose_weight(world.text, world.pictures(owners), owners, SCALE)
    assert (weight.weight, weight.reason) == (0.0, "no_gain")
    assert weight.text == weight.blend


@pytest.mark.parametrize(
    ("owners", "tried", "reason"),
    [
        ([], 0, "one_label"),
        ([0, 0, 0], 3, "one_label"),
        ([0, 1, 2], 0, "too_few"),
        ([0, 0, 1], 2, "too_few"),
    ],
)
def test_where_nothing_can_be_tried_the_text_stays_as_it_is(
    owners: list[int], tried: int, reason: str
) -> None:
    world = World(4, clear=0.3)
    places = np.array(owners, np.int64)
    vectors = blend(world.text, world.pictures(places), places, SCALE)
    assert vectors.choice == Choice(0.0, 0.0, tried, reason=reason)
    assert vectors.rows is world.text


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("weight", "offset"), [(0.3, 0.0), (0.8, 0.2)])
def test_the_dot_products_of_a_trial_are_those_of_rows_made_without_the_example(
    whole: bool, weight: float, offset: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.labelsets import prototypes

    world = World(9, clear=0.4)
    owners = np.array([0, 0, 0, 1, 1, 1, 4, 4, 4])
    examples = world.pictures(owners)
    trial = prototypes._Trial(world.text, examples, owners, SCALE)
    terms = trial.terms(whole=whole)
    trial.weigh(weight)
    original = prototypes._Known.of
    # a number that is taken from all examples, those left out included
    reach = original(world.text.astype(np.float64), examples, owners).reach

    def fixed(*parts: np.ndarray) -> prototypes._Known:
        return replace(original(*parts), reach=reach)

    monkeypatch.setattr(prototypes._Known, "of", fixed)
    for place, owner in enumerate(owners):
        left = owners != owner if whole else np.arange(len(owners)) != place
        rows = blended(world.text, examples[left], owners[left], weight, offset)
        logits = SCALE * (examples[place] @ rows.T).astype(np.float64)
        loss = np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[owner]
        figures = trial.figures(terms, offset, np.eye(len(owners))[place])
        assert figures.log_loss == pytest.approx(loss, abs=1e-3)
        assert figures.accuracy == (logits.argmax() == owner)


def test_rows_are_a_product_and_keep_the_level_of_texts() -> None:
    world = World(20, clear=0.5)
    owners = np.repeat(np.arange(20), 3)
    rows = blended(world.text, world.pictures(owners), owners, 0.8)
    assert (rows.shape, rows.dtype) == (world.text.shape, np.float32)
    pictures = world.pictures(np.arange(20))
    # what is held against a text that names nothing must not sink or rise as a whole
    assert (pictures @ rows.T).mean() == pytest.approx((pictures @ world.text.T).mean(), abs=0.02)
    assert min(OFFSETS) > 0
    assert PRIOR > 0
