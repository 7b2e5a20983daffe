"""What pages of results have in common: marked places that are filled, and tables."""

import re
from collections.abc import Callable, Sequence
from typing import Final

from benchmarks.record import Cell
from benchmarks.rounds import figure

NOT_MEASURED: Final = "not measured"
MARKED: Final = re.compile(r"(<!-- from: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str, content: Callable[[str], str]) -> str:
    """The page with everything between its markers made anew, by their names."""
    return MARKED.sub(lambda m: f"{m[1]}\n{content(m[2])}\n\n{m[3]}", page)


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *([cell(x) for x in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: Cell) -> str:
    """A value as a table has it."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, float):
        return figure(value)
    return f"{value:,}" if isinstance(value, int) else value
