"""Rows of a table that sets sides beside the first one. Knows no lever."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.record import Cell
from benchmarks.rounds import Spread, figure

COLUMNS: Final = ["side", "ms, median (range)", "speed-up"]


def beside_the_first(times: Mapping[str, Sequence[float]]) -> list[list[Cell]]:
    """Milliseconds by side from seconds, and how many times as fast each is as the first."""
    first = statistics.median(next(iter(times.values())))
    rows: list[list[Cell]] = []
    for name, seconds in times.items():
        spread = Spread.of(1000 * value for value in seconds)
        rows.append([name, spread.text(), f"{figure(1000 * first / spread.median)}x"])
    return rows
