"""Zero-shot against few-shot on the same test pictures, as Radford et al. 2021, figure 6.

Knows nothing of options or reports. The probe is a logistic regression on image vectors, the blend
adds prototypes of the shots to the text rows (app.labelsets.prototypes).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from app.arrays import Doubles, Places, Truth
from app.evaluation import linear_probe
from app.evaluation.data import ClassRows, Encoded, halves
from app.evaluation.figures import Share, predictions
from app.evaluation.statistics import RESAMPLES, crossed
from app.labelsets.prototypes import around, blended, choose_weight, means
from models.info import Floats


@dataclass(frozen=True, slots=True)
class Point:
    """A method with `shots` pictures a class: mean over draws, and its 95 % interval over draws.

    `lead` over zero-shot, with an interval over both draws and test pictures. `chosen` is the mean
    of what was chosen on the shots: the logarithm of the L2 strength, or the weight of the blend.
    """

    shots: int
    value: float
    low: float
    high: float
    draws: tuple[float, ...]
    lead: float
    lead_low: float
    lead_high: float
    chosen: float


@dataclass(frozen=True, slots=True)
class Curve:
    """A method's points by shots, ascending."""

    method: str
    points: tuple[Point, ...]

    @property
    def overtakes(self) -> int | None:
        """The fewest shots from which on the mean stays above zero-shot."""
        return _from([point.lead > 0 for point in self.points], self.points)

    @property
    def certain(self) -> int | None:
        """The fewest shots from which on every interval of the lead is above 0."""
        return _from([point.lead_low > 0 for point in self.points], self.points)

    @property
    def crossing(self) -> float | None:
        """Shots where the curve meets zero-shot, between the points on both sides.

        Log-linear, as Radford et al. 2021, figure 7, count what a probe needs to match zero-shot.
        """
        first = self.overtakes
        before = [point for point in self.points if first is not None and point.shots < first]
        if not before or before[-1].lead == 0:
            return None
        low = before[-1]
        high = next(point for point in self.points if point.shots == first)
        share = -low.lead / (high.lead - low.lead)
        return math.exp(math.log(low.shots) * (1 - share) + math.log(high.shots) * share)


@dataclass(frozen=True, slots=True)
class Shots:
    """All curves on the same `tested` pictures, and zero-shot there.

    `classes` took part, `left_out` had fewer than two pictures. `short` names the classes that had
    fewer than so many to give, `too_many` the numbers that no class had, `largest` what one had.
    """

    classes: tuple[str, ...]
    left_out: tuple[str, ...]
    tested: int
    pool: int
    draws: int
    zero_shot: Share
    curves: tuple[Curve, ...]
    short: Mapping[int, tuple[str, ...]]
    too_many: tuple[int, ...]
    largest: int
    resamples: int
    seed: int


def interval(draws: Doubles) -> tuple[float, float]:
    """The 95 % interval of the mean of draws (S,), by Student's t; of one draw: itself."""
    mean = float(draws.mean())
    if len(draws) == 1:
        return mean, mean
    from scipy.stats import t

    half = float(t.ppf(0.975, len(draws) - 1)) * float(draws.std(ddof=1)) / math.sqrt(len(draws))
    return max(0.0, mean - half), min(1.0, mean + half)


def _from(holds: Sequence[bool], points: Sequence[Point]) -> int | None:
    """The first shots from which on something holds to the end."""
    fails = np.flatnonzero(~np.array(holds))
    first = int(fails[-1]) + 1 if len(fails) else 0
    return points[first].shots if first < len(points) else None


PROBE: Final = "probe"
BLEND: Final = "blend"

# shots by which a blend's weight is chosen, which takes a matrix of them; and of how many classes
# they are at least: what is right among two is not right among all
CHOOSING: Final = 4_000
CHOOSERS: Final = 20


class ShotsError(ValueError):
    """Shots that cannot be drawn; a line for a person."""


def shots(
    encoded: Encoded,
    classes: ClassRows,
    ks: Sequence[int],
    *,
    seeds: int = 5,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Shots:
    """Both methods with each of `ks` shots a class, in `seeds` draws. Raises ShotsError.

    One half of the pictures is for testing alone. Of the other, each draw puts the pictures of each
    class in an order, of which k shots are the first k, so that curves of one draw are nested. A
    class with fewer gives all it has; one with fewer than two pictures takes no part anywhere.
    """
    data, text, left_out = _taking_part(encoded, classes)
    tested, drawn_from = halves(data.dataset.truth, seed)
    targets = data.dataset.targets
    pools = [drawn_from[targets[drawn_from] == place] for place in range(len(data.dataset.classes))]
    largest = max(len(pool) for pool in pools)
    counts = sorted({k for k in ks if k > 0})
    used = [k for k in counts if k <= largest]
    if not used:
        problem = f"no class has {counts[0]} to draw from" if counts else "0 is zero-shot alone"
        raise ShotsError(
            f"--shots needs a number from 1 to {largest}: {problem}. The largest class has "
            f"{largest}; the other half is for testing"
        )
    task = _Task(data.rows, targets, text, data.info.scale, tested)
    orders = [_order(pools, (seed, draw)) for draw in range(seeds)]
    outcomes: dict[tuple[str, int], tuple[Truth, Floats]] = {}
    for k in used:
        taken = [np.concatenate([pool[:k] for pool in order]) for order in orders]
        power = linear_probe.strength(data.rows[taken[0]], targets[taken[0]])
        outcomes[PROBE, k] = task.by_probe(taken, power)
        outcomes[BLEND, k] = task.by_blend(taken, k)
    right = task.right(text)

    def curve(method: str) -> Curve:
        return Curve(
            method,
            tuple(
                _point(k, *outcomes[method, k], right, resamples=resamples, seed=seed) for k in used
            ),
        )

    names = data.dataset.classes
    return Shots(
        classes=names,
        left_out=left_out,
        tested=len(tested),
        pool=len(drawn_from),
        draws=seeds,
        zero_shot=Share(int(right.sum()), len(right)),
        curves=(curve(PROBE), curve(BLEND)),
        short={k: tuple(n for n, p in zip(names, pools, strict=True) if len(p) < k) for k in used},
        too_many=tuple(k for k in counts if k > largest),
        largest=largest,
        resamples=resamples,
        seed=seed,
    )


@dataclass(frozen=True, slots=True)
class _Task:
    """Pictures (N, D), their classes, rows of text, and the places of the tested pictures."""

    pictures: Floats
    targets: Places
    text: ClassRows
    scale: float
    tested: Places

    def right(self, classes: ClassRows) -> Truth:
        """Which tested pictures (T,) class rows tell."""
        return self._are(predictions(classes.cosines(self.pictures[self.tested])))

    def by_probe(self, taken: Sequence[Places], power: float) -> tuple[Truth, Floats]:
        """Which test pictures are classified correctly in each draw (S, T); the strengths (S,)."""
        unknown = self.pictures[self.tested]
        right = [
            self._are(
                linear_probe.predictions(self.pictures[some], self.targets[some], power, unknown)
            )
            for some in taken
        ]
        return np.stack(right), np.full(len(taken), power, np.float32)

    def by_blend(self, taken: Sequence[Places], k: int) -> tuple[Truth, Floats]:
        """The same of the blend; its weights (S,)."""
        right, weights = [], []
        middles = means(self.text.rows, self.text.starts)
        for some in taken:
            rows, weight = self._blended(some, k, middles)
            right.append(self.right(replace(self.text, rows=rows)))
            weights.append(weight)
        return np.stack(right), np.array(weights, np.float32)

    def _blended(self, some: Places, k: int, middles: Floats) -> tuple[Floats, float]:
        """Rows like those of the text, of which `middles` (C, D) are the means; and the weight."""
        examples, owners = self.pictures[some], self.targets[some]
        # of many examples those of some classes choose, and of very many the first of each
        few, each = len(middles), k
        if len(some) > CHOOSING:
            few = min(few, max(CHOOSERS, CHOOSING // k))
            each = max(2, CHOOSING // few)
        nth = np.arange(len(owners)) - np.searchsorted(owners, owners)
        part = (owners < few) & (nth < each)
        choice = choose_weight(middles[:few], examples[part], owners[part], self.scale)
        rows = blended(middles, examples, owners, choice.weight, choice.offset)
        text = self.text
        return around(rows, middles, text.rows, text.starts, choice.weight), choice.weight

    def _are(self, answers: Places) -> Truth:
        return np.asarray(answers == self.targets[self.tested], np.bool_)


def _taking_part(
    encoded: Encoded, classes: ClassRows
) -> tuple[Encoded, ClassRows, tuple[str, ...]]:
    """Pictures and rows of the classes that have two pictures or more; names of the others."""
    data = encoded.dataset
    if data.multi_label:
        raise ShotsError("--shots needs pictures with one label each, not --multi-label")
    kept = np.flatnonzero(data.counts >= 2)
    if len(kept) < 2:
        raise ShotsError(
            f"--shots needs 2 classes with 2 pictures at least, to draw from and to test on; "
            f"got {len(kept)}"
        )
    some = encoded.subset(np.flatnonzero(data.truth[:, kept].any(axis=1)))
    part = some.dataset
    names = tuple(data.classes[place] for place in kept)
    dataset = type(part)(names, part.files, part.truth[:, kept], multi_label=False)
    left_out = tuple(name for name in data.classes if name not in set(names))
    taking_part = Encoded(dataset, some.rows, some.unread, some.info)
    return taking_part, classes.subset(kept), left_out


def _order(pools: Sequence[Places], seed: tuple[int, int]) -> list[Places]:
    dice = np.random.default_rng(seed)
    return [dice.permutation(pool) for pool in pools]


def _point(
    k: int, right: Truth, chosen: Floats, without: Truth, *, resamples: int, seed: int
) -> Point:
    """Right (S, T) in each draw with k shots, and `without` (T,) any."""
    draws = right.mean(axis=1)
    low, high = interval(draws)
    leads = right.astype(np.float64) - without
    behind, ahead = np.quantile(crossed(leads, resamples, seed), (0.025, 0.975))
    return Point(
        shots=k,
        value=float(draws.mean()),
        low=low,
        high=high,
        draws=tuple(draws.tolist()),
        lead=float(leads.mean()),
        lead_low=float(behind),
        lead_high=float(ahead),
        chosen=float(math.fsum(chosen.tolist()) / len(chosen)),
    )
