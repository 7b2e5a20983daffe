"""How large a machine has to be, from the measured rates. Knows nothing of pages or servers."""

import math
from typing import Any, Final

from benchmarks import pages
from benchmarks.record import Cell

# pictures a second that somebody may want
WANTED: Final = (5, 20, 100, 500)

# share of the measured peak that a machine is planned for: what arrives, arrives in bunches
PLANNED: Final = 0.6


def table(workers: dict[str, Any] | None) -> str | None:
    """Cores and memory for each rate of `WANTED`, from the result `growth.workers`."""
    if workers is None:
        return None
    cores = workers["machine"]["cores"]
    rows: list[list[Cell]] = []
    for rate_wanted in WANTED:
        row: list[Cell] = [rate_wanted]
        for _, count, rate, *_, megabytes in workers["rows"]:
            if count == 1:
                needed = math.ceil(rate_wanted / (PLANNED * float(rate) / cores))
                machines = math.ceil(needed / cores)
                row += [f"{needed}", f"{machines * megabytes / 1000:.1f}"]
        rows.append(row)
    models = [row[0] for row in workers["rows"] if row[1] == 1]
    columns = ["pictures a second"]
    for model in models:
        columns += [f"{model}: cores", f"{model}: GB"]
    return pages.table(columns, rows)
