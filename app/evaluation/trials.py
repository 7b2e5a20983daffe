"""Template sets on trial: their figures on the same pictures, and which differences are real.

Knows nothing of prompts, files or reports; a set is its class rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations
from typing import Final

import numpy as np

from app.arrays import Truth
from app.evaluation import figures
from app.evaluation.data import ClassRows, Encoded
from app.evaluation.figures import scored
from app.evaluation.statistics import (
    ALPHA,
    RESAMPLES,
    Resampled,
    bootstrap_p,
    detectable,
    holm,
    mcnemar_p,
    mean_average_precision,
    mean_per_class,
    top1,
)

TOP1: Final = "top1"
PER_CLASS: Final = "mean_per_class"
MAP: Final = "map"


class Verdict(StrEnum):
    """What the pictures say of a difference: which there is."""

    BETTER = "better"
    WORSE = "worse"
    UNSURE = "unsure"
    OPEN = "none seen"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share and its 95 % interval: Wilson's for top-1, else the middle of its resamples."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """How far `name` is ahead of `other` in the figure that is compared, as a share.

    `only_name` and `only_other` count the pictures that one of them alone has right; `p` is
    uncorrected, `p_corrected` by Holm for `compared` comparisons. `spread` is the standard error
    of the lead on so many `pictures`.
    """

    name: str
    other: str
    lead: Estimate
    p: float
    p_corrected: float
    compared: int
    only_name: int | None
    only_other: int | None
    spread: float
    pictures: int

    @property
    def detectable(self) -> float:
        """The least true difference that these pictures would show in four of five trials."""
        exact = self.only_name is not None
        return detectable(self.spread, self.pictures, self.compared, exact=exact)

    @property
    def verdict(self) -> Verdict:
        """Unsure: seen, but not after the correction, or on too few pictures for the exact test."""
        if self.lead.low <= 0 <= self.lead.high:
            return Verdict.OPEN
        if self.p_corrected > ALPHA:
            return Verdict.UNSURE
        return Verdict.BETTER if self.lead.value > 0 else Verdict.WORSE


@dataclass(frozen=True, slots=True)
class Trials:
    """Figures of each set by name, and differences in the first figure.

    `best` is chosen by these same pictures, so `to_best` is corrected for all pairs of sets;
    `to_reference` for the sets beside the reference, which was chosen before.
    """

    pictures: int
    classes: int
    names: tuple[str, ...]
    reference: str
    best: str
    figures: Mapping[str, Mapping[str, Estimate]]
    to_reference: tuple[Difference, ...]
    to_best: tuple[Difference, ...]
    resamples: Mapping[str, int]
    seed: int

    @property
    def compared_by(self) -> str:
        """The figure that decides: the first."""
        return next(iter(self.figures))


def judge(
    encoded: Encoded,
    sets: Mapping[str, ClassRows],
    reference: str,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Trials:
    """Compare `sets`, of which `reference` is one, by the same resamples of pictures.

    Raises ValueError: fewer than two sets, no picture, or none with a label.
    """
    if len(sets) < 2 or reference not in sets:
        raise ValueError(f"templates: 2 sets at least, {reference!r} among them; got {len(sets)}")
    pictures = len(encoded.rows)
    if not pictures:
        raise ValueError("there is no picture to compare templates on")
    names = tuple(sets)
    # so that the least p-value that resamples can show passes the correction for all pairs
    resamples = max(resamples, 100 * len(names) * (len(names) - 1) // 2)
    right, resampled_figures = measured(encoded, list(sets.values()), resamples, seed)
    first = next(iter(resampled_figures.values()))
    pairs = {
        (name_place, other_place): _compare(names, name_place, other_place, first, right, pictures)
        for name_place, other_place in combinations(range(len(names)), 2)
    }
    base, best = names.index(reference), int(np.argmax(first.observed))
    every = _corrected(list(pairs.values()))
    return Trials(
        pictures=pictures,
        classes=len(encoded.dataset.classes),
        names=names,
        reference=reference,
        best=names[best],
        figures={
            figure: {
                name: _own(figure, resampled, place, pictures) for place, name in enumerate(names)
            }
            for figure, resampled in resampled_figures.items()
        },
        to_reference=_towards(reference, _corrected([d for p, d in pairs.items() if base in p])),
        to_best=_towards(names[best], [d for p, d in zip(pairs, every, strict=True) if best in p]),
        resamples={figure: len(resampled.draws) for figure, resampled in resampled_figures.items()},
        seed=seed,
    )


def _own(figure: str, resampled: Resampled, place: int, pictures: int) -> Estimate:
    """A candidate's figure."""
    value = float(resampled.observed[place])
    if figure == TOP1:
        return Estimate(value, *figures.Share(round(value * pictures), pictures).interval)
    return Estimate(value, *resampled.interval(place))


def measured(
    encoded: Encoded, sets: Sequence[ClassRows], resamples: int, seed: int
) -> tuple[Truth | None, dict[str, Resampled]]:
    """Which pictures each set has right (N, K), for a single label; the figures, first decides."""
    data = encoded.dataset
    if data.multi_label:
        scores = [scored(encoded, rows).probabilities for rows in sets]
        return None, {MAP: mean_average_precision(scores, data.truth, resamples, seed)}
    targets = data.targets
    columns = [figures.predictions(scored(encoded, rows).cosines) == targets for rows in sets]
    right = np.stack(columns, axis=1)
    return right, {
        TOP1: top1(right, resamples, seed),
        PER_CLASS: mean_per_class(right, targets, resamples, seed),
    }


def _compare(
    names: tuple[str, ...],
    first: int,
    second: int,
    resampled: Resampled,
    right: Truth | None,
    pictures: int,
) -> Difference:
    leads = resampled.draws[:, first] - resampled.draws[:, second]
    p = bootstrap_p(leads)
    ahead = behind = None
    if right is not None:
        a, b = right[:, first], right[:, second]
        ahead, behind = int((a & ~b).sum()), int((b & ~a).sum())
        # the larger: both have to agree that there is a difference
        p = max(p, mcnemar_p(ahead, behind))
    lead = Estimate(
        float(resampled.observed[first] - resampled.observed[second]),
        *resampled.interval(first, second),
    )
    return Difference(
        name=names[first],
        other=names[second],
        lead=lead,
        p=p,
        p_corrected=p,
        compared=1,
        only_name=ahead,
        only_other=behind,
        spread=float(leads.std()),
        pictures=pictures,
    )


def _corrected(differences: Sequence[Difference]) -> list[Difference]:
    """The same, corrected for their number."""
    p_values = holm([difference.p for difference in differences])
    return [
        replace(difference, p_corrected=p, compared=len(differences))
        for difference, p in zip(differences, p_values, strict=True)
    ]


def _towards(reference: str, differences: Sequence[Difference]) -> tuple[Difference, ...]:
    """Each as the lead of a set over the reference, largest first."""
    turned = [
        difference if difference.other == reference else _turned(difference)
        for difference in differences
    ]
    return tuple(sorted(turned, key=lambda difference: -difference.lead.value))


def _turned(difference: Difference) -> Difference:
    lead = Estimate(-difference.lead.value, -difference.lead.high, -difference.lead.low)
    return replace(
        difference, name=difference.other, other=difference.name, lead=lead,
        only_name=difference.only_other, only_other=difference.only_name,
    )  # fmt: skip
