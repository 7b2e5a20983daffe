"""Class rows that pictures sharpen: text rows blended with prototypes of example pictures.

Pure numpy: knows neither stores nor what the vectors stand for.

A picture is far closer to any picture than to any text, so a mean of both would let every label
with examples win every picture. A row is therefore `(1 - weight) * text + weight * (middle + own)`:
`own` is how the label's prototype, of unit length, differs from the mean of all prototypes (the
image term of Tip-Adapter, Zhang et al. 2022, arXiv 2111.03930, centred and folded into one row);
with the `middle` of the texts similarities stay where those of texts are. A prototype of few
pictures is drawn towards the one that the label's text lets expect; a label without pictures has
that one alone, and so has a label with a single one, which nothing else vouches for. `offset` is
what labels with pictures pay for having them, where others have none: the best of many noisy terms
would win too often.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from app.arrays import Doubles, Places
from models.info import Floats

# 0: the text alone; 1 would be the pictures alone
WEIGHTS: Final = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

# where labels without pictures are; else it would lower all rows alike
OFFSETS: Final = (0.05, 0.1, 0.2, 0.3)

# a prototype of n pictures counts n / (n + PRIOR), what its text lets expect the rest
PRIOR: Final = 1.0

# a gain in the mean loss that is worth a larger weight
GAIN: Final = 0.02

Reason = Literal["one_label", "too_few", "no_gain"]


@dataclass(frozen=True, slots=True)
class ExampleFigures:
    """Means over the labels: the share of their pictures told right, and the log-loss."""

    accuracy: float
    log_loss: float


@dataclass(frozen=True, slots=True)
class Choice:
    """How much pictures count, and leave-one-out figures of the text alone and of the blend.

    `tried` examples have another one of their label beside them; others are not used. `reason` is
    why the weight is 0.
    """

    weight: float
    offset: float
    tried: int
    text: ExampleFigures | None = None
    blend: ExampleFigures | None = None
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Blend:
    """`rows` (C, D) float32, not of unit length, and how their weight was chosen."""

    rows: Floats
    choice: Choice


def blend(text: Floats, examples: Floats, owners: Places, scale: float) -> Blend:
    """Rows (C, D) of unit text rows (C, D) and examples (M, D), owned by rows number (M,) of text.

    `scale` is what a cosine is multiplied with before the softmax.
    """
    choice = choose_weight(text, examples, owners, scale)
    return Blend(blended(text, examples, owners, choice.weight, choice.offset), choice)


def blended(
    text: Floats, examples: Floats, owners: Places, weight: float, offset: float = 0.0
) -> Floats:
    """The rows (C, D) with a weight that is known."""
    if not weight:
        return text
    wide, (examples, owners) = text.astype(np.float64), _vouched_for(examples, owners)
    known = _Known.of(wide, examples, owners)
    shrink, mean = known.shrink, known.mean
    middle = shrink @ wide[known.used] / shrink.sum()
    own = known.reach * (wide - middle)
    own[known.used] *= 1 - shrink[:, None]
    own[known.used] += shrink[:, None] * (known.prototypes - mean) - offset * mean
    return np.asarray((1 - weight) * wide + weight * (middle + own), np.float32)


def means(text: Floats, starts: Sequence[int] | Places) -> Floats:
    """Unit rows (C, D) of labels whose rows in `text` (R, D) begin at `starts` (C,)."""
    sums = np.add.reduceat(text, starts)
    return np.asarray(sums / np.linalg.norm(sums, axis=1, keepdims=True), np.float32)


def around(
    rows: Floats, middles: Floats, text: Floats, starts: Sequence[int] | Places, weight: float
) -> Floats:
    """Rows (R, D) of labels whose `means`, `middles`, have become `rows` (both C, D).

    Examples are of labels, not of their alternatives: these keep their ways from the mean.
    """
    sizes = np.diff(np.append(starts, len(text)))
    apart = (1 - weight) * (text - np.repeat(middles, sizes, axis=0))
    return np.asarray(np.repeat(rows, sizes, axis=0) + apart, np.float32)


def choose_weight(text: Floats, examples: Floats, owners: Places, scale: float) -> Choice:
    """The weight and offset of least log-loss, each example told by all others.

    As far as labels have no examples, the loss counts in which each label in turn has none. None is
    chosen with which fewer examples are told right than by the text alone.
    """
    labels_shown = np.count_nonzero(np.bincount(owners, minlength=len(text)))
    examples, owners = _vouched_for(examples, owners)
    counts, tried = np.bincount(owners, minlength=len(text)), len(owners)
    known = np.count_nonzero(counts)
    if labels_shown < 2 or known < 2:
        return Choice(0.0, 0.0, tried, reason="one_label" if labels_shown < 2 else "too_few")
    bare = 1 - known / len(text)
    trial = _Trial(text, examples, owners, scale)
    one_out = trial.terms(whole=False)
    label_out = trial.terms(whole=True) if bare else one_out
    shares = 1 / counts[owners] / known
    trials: list[tuple[float, float, ExampleFigures, ExampleFigures]] = []
    for weight in WEIGHTS:
        trial.weigh(weight)
        for offset in OFFSETS if bare and weight else (0.0,):
            one_out_figures = trial.figures(one_out, offset, shares)
            untold = trial.figures(label_out, offset, shares) if bare else one_out_figures
            trials.append((weight, offset, one_out_figures, untold))
    weight, offset, one_out_figures, _ = _best(trials, bare)
    return Choice(
        weight, offset, tried, trials[0][2], one_out_figures, None if weight else "no_gain"
    )


def _best(
    trials: list[tuple[float, float, ExampleFigures, ExampleFigures]], bare: float
) -> tuple[float, float, ExampleFigures, ExampleFigures]:
    """Of weight, offset, and the figures with and without the label: no worse, and least loss."""
    best, least = trials[0], math.inf
    for trial in trials:
        one_out, label_out = trial[2:]
        loss = (1 - bare) * one_out.log_loss + bare * label_out.log_loss
        falls = (
            one_out.accuracy < trials[0][2].accuracy or label_out.accuracy < trials[0][3].accuracy
        )
        if not falls and loss < least - GAIN:
            best, least = trial, loss
    return best


def _unit(rows: Doubles) -> Doubles:
    """Rows of unit length; those of zeros stay."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def _vouched_for(examples: Floats, owners: Places) -> tuple[Floats, Places]:
    """Those of labels that have two or more."""
    several = np.bincount(owners)[owners] > 1 if len(owners) else np.zeros(0, np.bool_)
    return examples[several], owners[several]


@dataclass(frozen=True, slots=True)
class _Known:
    """The rows `used` by examples (E,), with the `counts`, `sums` (E, D) and prototypes of them,
    how far these are believed, and their mean; each example's `place`.

    `reach` is how far prototypes differ where texts differ by one.
    """

    used: Places
    place: Places
    counts: Doubles
    sums: Doubles
    prototypes: Doubles
    shrink: Doubles
    mean: Doubles
    reach: float

    @classmethod
    def of(cls, text: Doubles, examples: Floats, owners: Places) -> "_Known":
        used, place, counts = np.unique(owners, return_inverse=True, return_counts=True)
        sums = np.zeros((len(used), text.shape[1]))
        np.add.at(sums, place, examples.astype(np.float64))
        shrink = counts / (counts + PRIOR)
        prototypes = _unit(sums)
        mean = shrink @ prototypes / shrink.sum()
        apart = text[used] - shrink @ text[used] / shrink.sum()
        shared = shrink @ (apart * (prototypes - mean)).sum(1)
        spread = shrink @ (apart**2).sum(1)
        reach = max(0.0, float(shared / spread)) if spread > 0 else 0.0
        wide = counts.astype(np.float64)
        return cls(used, place, wide, sums, prototypes, shrink, mean, reach)


@dataclass(frozen=True, slots=True)
class _Terms:
    """For each example: `own` (M, E) of the labels with examples, what the offset takes from
    them, and the `centre` (M, 1) of what the texts let expect."""

    own: Doubles
    lowered: Doubles
    centre: Doubles


class _Trial:
    """Every example against rows that were made without it, by dot products alone."""

    def __init__(self, text: Floats, examples: Floats, owners: Places, scale: float) -> None:
        self._known = known = _Known.of(text.astype(np.float64), examples, owners)
        self._rows = np.arange(len(owners))
        self._scale = scale
        self._examples = examples.astype(np.float64)
        self._near = self._examples @ text[known.used].T.astype(np.float64)
        self._far = examples @ np.delete(text, known.used, axis=0).T
        self._weight = 0.0
        self._far_top = self._far_sum = np.zeros(len(owners))

    def terms(self, *, whole: bool) -> _Terms:
        """Without the example itself, or without the `whole` of its label's examples."""
        known, place, mine = self._known, self._known.place, (self._rows, self._known.place)
        left = known.counts[place] - (known.counts[place] if whole else 1)
        own = known.sums[place] - (known.sums[place] if whole else self._examples)
        own = _unit(own) * (left > 0)[:, None]
        before, after = known.shrink[place], left / (left + PRIOR)
        total = known.shrink.sum() - before + after
        mean = known.shrink @ known.prototypes - before[:, None] * known.prototypes[place]
        mean = (mean + after[:, None] * own) / total[:, None]
        shrink = np.tile(known.shrink, (len(place), 1))
        near = self._examples @ known.prototypes.T
        shrink[mine], near[mine] = after, (self._examples * own).sum(1)
        level = (self._examples * mean).sum(1, keepdims=True)
        centre = known.reach * (shrink * self._near).sum(1, keepdims=True) / total[:, None]
        expected = known.reach * self._near - centre
        added = shrink * (near - level) + (1 - shrink) * expected
        return _Terms(added, level * (shrink > 0), centre)

    def weigh(self, weight: float) -> None:
        """Take this weight, and with it sum up the labels without examples once."""
        self._weight = weight
        logits = self._scale * (1 - weight + weight * self._known.reach) * self._far
        self._far_top = logits.max(1, initial=-1e30)
        self._far_sum = np.exp(logits - self._far_top[:, None]).sum(1)

    def figures(self, terms: _Terms, offset: float, shares: Doubles) -> ExampleFigures:
        """How well the examples are classified with the chosen weight, each counting its share."""
        weight, scale = self._weight, self._scale
        added = terms.own - offset * terms.lowered
        logits = scale * ((1 - weight) * self._near + weight * added)
        far_top = self._far_top - scale * weight * terms.centre[:, 0]
        right = logits[self._rows, self._known.place]
        top = np.maximum(logits.max(1), far_top)
        total = np.exp(logits - top[:, None]).sum(1) + self._far_sum * np.exp(far_top - top)
        return ExampleFigures(
            float(shares @ (right >= top)), float(shares @ (top + np.log(total) - right))
        )
