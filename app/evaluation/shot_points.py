"""Points of few-shot curves, and where a curve crosses zero-shot. Knows not how they are made."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.evaluation.resampling import Figures
from app.figures import Share


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


def interval(draws: Figures) -> tuple[float, float]:
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
