"""Whether the intervals and verdicts of template trials keep their word, on invented pictures.

    python -m benchmarks.quality.intervals

How often a 95 % interval holds the true difference; how often one of six equal sets is called
really different from the best of them.
"""

from collections.abc import Callable
from itertools import combinations

import numpy as np

from app.arrays import Truth
from app.evaluation import figures
from app.evaluation.statistics import (
    ALPHA,
    Resampled,
    bootstrap_p,
    crossed,
    holm,
    mcnemar_p,
    mean_average_precision,
    mean_per_class,
    top1,
)
from benchmarks.record import publish
from models.info import Floats

WORLDS = 600
RANKED_WORLDS = 150  # each takes longer
CLASSES = 10
SETS = 6

# pictures that the first set alone has right, that the other alone has, that both or neither have
CHANCES = (0.10, 0.06, 0.84)


def coverage(dice: np.random.Generator, pictures: int) -> dict[str, float]:
    """How often the interval of a lead of 4 points holds it: of top-1, of the mean per class."""
    hits = {"top1": 0, "mean_per_class": 0}
    for _ in range(WORLDS):
        targets = dice.integers(0, CLASSES, pictures)
        lead = dice.choice([1, -1, 0], pictures, p=CHANCES)
        either = dice.random(pictures) < 0.7
        right = np.stack([np.where(lead == 0, either, lead == side) for side in (1, -1)], axis=1)
        seed = int(dice.integers(1 << 31))
        for name, resamples in (
            ("top1", top1(right, 2_000, seed)),
            ("mean_per_class", mean_per_class(right, targets, 1_000, seed)),
        ):
            low, high = resamples.interval(0, 1)
            hits[name] += low <= CHANCES[0] - CHANCES[1] <= high
    return {name: count / WORLDS for name, count in hits.items()}


def held_ranked(dice: np.random.Generator, pictures: int) -> float:
    """The same of the lead of one noisy ranking over a noisier one, in mean average precision."""

    def world(size: int) -> tuple[Truth, list[Floats]]:
        truth = dice.random((size, 5)) < 0.2
        shared = dice.standard_normal((size, 5))
        return truth, [
            (truth * gain + shared + 0.5 * dice.standard_normal((size, 5))).astype(np.float32)
            for gain in (1.2, 1.0)
        ]

    def ranked(truth: Truth, scores: Floats) -> float:
        precisions = [figures.average_precision(truth[:, c], scores[:, c]) for c in range(5)]
        return float(np.mean(precisions))

    truth, scores = world(200_000)
    true = ranked(truth, scores[0]) - ranked(truth, scores[1])
    count = 0
    for _ in range(RANKED_WORLDS):
        truth, scores = world(pictures)
        resamples = mean_average_precision(scores, truth, 1_000, int(dice.integers(1 << 31)))
        low, high = resamples.interval(0, 1)
        count += low <= true <= high
    return count / RANKED_WORLDS


def held_crossed(dice: np.random.Generator, draws: int, pictures: int) -> float:
    """The same of a mean over draws of shots and over pictures."""
    count = 0
    for _ in range(WORLDS):
        values = 0.05 + 0.02 * dice.standard_normal((draws, 1))
        values = values + 0.3 * dice.standard_normal((1, pictures))
        values = values + 0.3 * dice.standard_normal((draws, pictures))
        low, high = np.quantile(crossed(values, 1_000, int(dice.integers(1 << 31))), (0.025, 0.975))
        count += low <= 0.05 <= high
    return count / WORLDS


def false_alarms(dice: np.random.Generator, pictures: int) -> dict[str, float]:
    """How often one of SETS equal sets is called different from the best, which is chosen."""
    pairs = list(combinations(range(SETS), 2))
    ways: dict[str, Callable[[list[float], list[float]], list[float]]] = {
        "bootstrap alone": lambda boot, _: boot,
        "bootstrap, Holm": lambda boot, _: holm(boot),
        "bootstrap and McNemar, Holm": lambda boot, exact: holm(
            [max(pair) for pair in zip(boot, exact, strict=True)]
        ),
    }
    alarms = dict.fromkeys(ways, 0)
    for _ in range(WORLDS // 2):
        easy = dice.random(pictures) < 0.7
        columns = [
            np.where(dice.random(pictures) < 0.12, dice.random(pictures) < 0.7, easy)
            for _ in range(SETS)
        ]
        right = np.stack(columns, axis=1)
        resamples = top1(right, 4_000, int(dice.integers(1 << 31)))
        boot, exact = _p_values(right, resamples, pairs)
        best = int(resamples.observed.argmax())
        for way, corrected in ways.items():
            p_values = corrected(boot, exact)
            alarms[way] += any(
                p <= ALPHA for p, pair in zip(p_values, pairs, strict=True) if best in pair
            )
    return {way: count / (WORLDS // 2) for way, count in alarms.items()}


def _p_values(
    right: Truth, resamples: Resampled, pairs: list[tuple[int, int]]
) -> tuple[list[float], list[float]]:
    boot = [bootstrap_p(resamples.draws[:, a] - resamples.draws[:, b]) for a, b in pairs]
    exact = [
        mcnemar_p(int((right[:, a] & ~right[:, b]).sum()), int((right[:, b] & ~right[:, a]).sum()))
        for a, b in pairs
    ]
    return boot, exact


def main() -> None:
    dice = np.random.default_rng(0)
    document = {
        "what": "share of 95 % intervals that hold the truth; of equal sets called different",
        "source": "invented pictures, seed 0",
        "intervals": {str(size): coverage(dice, size) for size in (50, 200, 1_000)},
        "interval of mAP, 200 pictures": held_ranked(dice, 200),
        "interval over 5 draws and 300 pictures": held_crossed(dice, 5, 300),
        "false alarms of 6 equal sets": {str(size): false_alarms(dice, size) for size in (60, 400)},
    }
    publish("intervals", document)


if __name__ == "__main__":
    main()
