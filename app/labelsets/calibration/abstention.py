"""When to answer "none of these": bounds of similarity and lead, chosen from labelled pictures.

Selective classification (El-Yaniv and Wiener 2010; Geifman and El-Yaniv 2017, arXiv 1705.08500).
Pure numpy; knows neither models nor labels.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from app.arrays import Doubles, Places, Truth

FOLDS: Final = 5


def splits(count: int, seed: int) -> Iterator[tuple[Places, Places]]:
    """Where to fit and where to measure, each of `count` pictures measured once."""
    fold = np.random.default_rng(seed).permutation(np.arange(count) % FOLDS)
    for part in range(FOLDS):
        yield np.flatnonzero(fold != part), np.flatnonzero(fold == part)


@dataclass(frozen=True, slots=True)
class Curve:
    """Risk among the answered (M,) for each coverage (M,); `area` (AURC) is the mean risk.

    Coverage and risk are of all pictures, most confident first; equals come together.
    """

    coverage: Doubles
    risk: Doubles
    area: float


def fewest_answers(risk: float, confidence: float) -> int:
    """How many answers, all of them right, show that the risk is `risk` at most."""
    if risk >= 1:
        return 0
    return math.ceil(math.log(1 - confidence) / math.log1p(-risk)) if risk else 10**9


def at_most(wrong: int, answered: int, confidence: float) -> float:
    """The largest risk that such a count leaves possible (Clopper and Pearson 1934, one-sided)."""
    if wrong >= answered:
        return 1.0
    low, high = wrong / answered, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if _below(wrong, answered, middle) > 1 - confidence else (low, middle)
        )
    return high


def risk_coverage(confidence: Doubles, right: Truth) -> Curve:
    """What answering only the most confident gives: `confidence` (N,), whether it was `right`."""
    order = np.argsort(-confidence, kind="stable")
    count = np.arange(1, len(order) + 1)
    risk = np.cumsum(~right[order]) / count
    last = np.append(np.diff(confidence[order]) != 0, True)
    # within equals the order is chance: each has the risk of all of them
    risk = risk[last][np.searchsorted(count[last], count)]
    return Curve(count[last] / len(order), risk[last], float(risk.mean()))


def _below(wrong: int, answered: int, risk: float) -> float:
    """The chance of `wrong` wrong answers or fewer out of `answered`, each wrong at `risk`."""
    if risk >= 1:
        return 0.0
    k = np.arange(wrong + 1)
    choose_k = np.concatenate([[0.0], np.cumsum(np.log((answered - k[:-1]) / (k[:-1] + 1)))])
    logs = choose_k + k * math.log(max(risk, 1e-300)) + (answered - k) * math.log1p(-risk)
    return float(np.exp(logs).sum())


# without pictures of something else, the floor costs this share of the right answers at most
FLOOR_COSTS: Final = 0.02

# the same picture may come out lower by so much in a batch of another size
SLACK: Final = 1e-5

# floors that are tried
FLOORS: Final = 50

# a risk of fewer answers says nothing
FEWEST: Final = 5

# risks, as shares of the wanted one, for which bounds are tried
LADDER: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 2.0)


@dataclass(frozen=True, slots=True)
class ScoredPictures:
    """Pictures (N,): `similarity` of the best label, its `lead` over the second, whether it is
    `right`, and whether the picture shows any of the labels (`inside`).
    """

    similarity: Doubles
    lead: Doubles
    right: Truth
    inside: Truth

    def __len__(self) -> int:
        return len(self.right)

    def part(self, chosen: npt.NDArray[np.generic]) -> "ScoredPictures":
        """Some of the pictures, by places or by yes and no."""
        every = (self.similarity, self.lead, self.right, self.inside)
        similarity, lead, right, inside = (values[chosen] for values in every)
        return ScoredPictures(similarity, lead, right, inside)


@dataclass(frozen=True, slots=True)
class AbstentionBounds:
    """What an answer must reach: `floor` of its similarity, `margin` of its lead."""

    floor: float
    margin: float

    def answer(self, scored: ScoredPictures) -> Truth:
        """Which pictures (N,) are answered."""
        return (scored.similarity >= self.floor) & (scored.lead >= self.margin)


class Unreachable(ValueError):
    """The target risk cannot be reached; `least` can."""

    def __init__(self, detail: str, least: float) -> None:
        super().__init__(detail)
        self.least = least


def choose(scored: ScoredPictures, risk: float) -> AbstentionBounds:
    """The bounds with the most right answers among those whose risk on these pictures is `risk`.

    Raises: Unreachable.
    """
    floors = _floors(scored)
    candidates = [_margin(scored.part(scored.similarity >= floor), risk) for floor in floors]
    ranked = [(right, -wrong) for _, right, wrong in candidates]
    best = max(ranked)
    if best[0] == 0:
        least = min(_least(scored.part(scored.similarity >= floor)) for floor in floors)
        detail = (
            f"the share of wrong answers cannot be kept at {risk:g}; the lowest possible is "
            f"{least:.3g}"
        )
        raise Unreachable(detail, least)
    # in the middle of what does equally well: as far as can be from where it gets worse
    equal = [place for place, candidate in enumerate(ranked) if candidate == best]
    place = equal[len(equal) // 2]
    return AbstentionBounds(floors[place], candidates[place][0])


def cautious(scored: ScoredPictures, risk: float, seed: int) -> tuple[AbstentionBounds, Truth]:
    """`choose` for a stricter risk than the wanted one, where pictures that it did not see say so.

    The bounds, and which pictures (N,) are answered by bounds that were chosen without them. Where
    no strictness helps: the one that helps most.

    Raises: Unreachable.
    """
    trials: list[tuple[bool, float, AbstentionBounds, Truth]] = []
    for share in reversed([share for share in LADDER if share <= 1]):
        try:
            bounds = choose(scored, share * risk)
        except Unreachable:
            if share == 1:
                raise
            break
        answers = _unseen(scored, share * risk, seed)
        wrong, count = counts(scored, answers)
        rate = wrong / count if count else 1.0
        trials.append((rate > risk, rate if rate > risk else 0.0, bounds, answers))
    # the first of equals is the least strict
    _, least, bounds, answers = min(trials, key=lambda trial: trial[:2])
    if not answers.any():
        detail = f"with at most {risk:g} wrong answers, nothing is answered"
        raise Unreachable(f"{detail} among pictures that they were not chosen by", least)
    return bounds, answers


def promise(
    scored: ScoredPictures, risk: float, confidence: float, seed: int
) -> tuple[AbstentionBounds, ScoredPictures]:
    """Bounds whose true risk is `risk` at most, with that confidence, and the pictures that say so.

    A third of the pictures proposes bounds, the others test them one after the other, the most
    promising first, until one fails (fixed-sequence testing, as in Angelopoulos et al. 2021, arXiv
    2110.01052): so no test needs a stricter level for the sake of the others.

    Raises: Unreachable.
    """
    order = np.random.default_rng(seed).permutation(len(scored))
    third = np.arange(len(scored)) % 3 == 0
    proposing, testing = scored.part(order[third]), scored.part(order[~third])
    needed = fewest_answers(risk, confidence)
    passed: list[tuple[int, AbstentionBounds]] = []
    least = 1.0
    for bounds in _ladder(proposing, risk, confidence):
        wrong, count = counts(testing, bounds.answer(testing))
        most = at_most(wrong, count, confidence)
        least = min(least, most)
        if most > risk:
            break
        passed.append((int(bounds.answer(proposing).sum()), bounds))
    if not passed:
        detail = (
            f"{len(scored)} pictures do not show with {confidence:g} confidence that at most "
            f"{risk:g} of the answers are wrong, only {least:.3g}; "
            f"at least {math.ceil(needed * 3 / 2)} are needed"
        )
        raise Unreachable(detail, least)
    return max(passed, key=lambda candidate: candidate[0])[1], testing


def counts(scored: ScoredPictures, answers: Truth) -> tuple[int, int]:
    """How many of the answers are wrong, and how many there are."""
    return int((answers & ~scored.right).sum()), int(answers.sum())


def _floors(scored: ScoredPictures) -> Sequence[float]:
    if scored.inside.all():
        known = np.sort(scored.similarity[scored.right])
        if not len(known):
            return (-1.0,)
        lost = int(FLOOR_COSTS * len(known))
        return (float(known[lost]) - SLACK,)
    values = np.unique(scored.similarity)
    between = (values[1:] + values[:-1]) / 2
    if not len(between):
        return (-1.0,)
    places = np.unique(np.linspace(0, len(between) - 1, FLOORS).astype(int))
    return (-1.0, *(float(between[place]) for place in places))


def _margin(scored: ScoredPictures, risk: float) -> tuple[float, int, int]:
    """The least margin at this risk, with the right and wrong answers that it leaves."""
    order = np.argsort(-scored.lead, kind="stable")
    lead, wrong = scored.lead[order], np.cumsum(~scored.right[order])
    count = np.arange(1, len(lead) + 1)
    last = np.append(np.diff(lead) != 0, True)[: len(lead)]
    fits = np.flatnonzero(last & (wrong <= risk * count) & (count >= FEWEST))
    if not len(fits):
        return 0.0, 0, 0
    right = count - wrong
    # the first of equals: what comes after it are wrong answers alone
    place = int(fits[np.argmax(right[fits])])
    below = lead[place + 1] if place + 1 < len(lead) else 0.0
    margin = (lead[place] + below) / 2 if place + 1 < len(lead) else 0.0
    return float(margin), int(right[place]), int(wrong[place])


def _least(scored: ScoredPictures) -> float:
    order = np.argsort(-scored.lead, kind="stable")
    risk = np.cumsum(~scored.right[order]) / np.arange(1, len(order) + 1)
    return float(risk[FEWEST - 1 :].min()) if len(order) >= FEWEST else 1.0


def _unseen(scored: ScoredPictures, risk: float, seed: int) -> Truth:
    answers = np.zeros(len(scored), np.bool_)
    for train, test in splits(len(scored), seed):
        with contextlib.suppress(Unreachable):
            answers[test] = choose(scored.part(train), risk).answer(scored.part(test))
    return answers


def _ladder(scored: ScoredPictures, risk: float, confidence: float) -> list[AbstentionBounds]:
    """What these pictures propose, what they themselves are surest of first."""
    bounds_by_risk: dict[AbstentionBounds, float] = {}
    for share in LADDER:
        with contextlib.suppress(Unreachable):
            bounds = choose(scored, share * risk)
            bounds_by_risk[bounds] = at_most(*counts(scored, bounds.answer(scored)), confidence)
    return sorted(bounds_by_risk, key=lambda bounds: bounds_by_risk[bounds])
