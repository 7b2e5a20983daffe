"""Measure several sides in turns, and say how far the turns were apart. Knows no server."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

# calls of which a median is worth naming
LEAST = 3


@dataclass(frozen=True, slots=True)
class Effort:
    """How long a piece may measure: `rounds` turns of each side, `seconds` each under load."""

    seconds: float = 5.0
    rounds: int = 3


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of some values, and their ends."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Of at least one value."""
        listed = sorted(values)
        return cls(statistics.median(listed), listed[0], listed[-1])

    def text(self, digits: int = 3) -> str:
        """The median, and in brackets the ends, with this many significant digits."""
        low, high = figure(self.low, digits), figure(self.high, digits)
        return f"{figure(self.median, digits)} ({low} to {high})"


def figure(value: float, digits: int = 3) -> str:
    """A number as people read it: `digits` significant ones, thousands apart, no exponent."""
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        return f"{value:.1e}"
    whole = len(str(int(abs(value))))
    if abs(value) >= 1:
        return f"{value:,.{max(0, digits - whole)}f}"
    return f"{value:.{digits}g}"


def in_turns(sides: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """A B C, A B C, ...: what drifts on the machine meets all sides alike."""
    results: dict[str, list[T]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            results[name].append(run())
    return results


def seconds_of(work: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median_seconds(work: Callable[[], object], seconds: float) -> float:
    """The median time of one call, called for about `seconds` and at least LEAST times."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < LEAST or time.perf_counter() < end:
        times.append(seconds_of(work))
    return statistics.median(times)
