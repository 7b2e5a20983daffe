"""Waiting time with 1,000 labels against that with two, all vectors known."""

import contextlib
import statistics
import tempfile
from pathlib import Path
from typing import Final

from benchmarks import pictures
from benchmarks.bodies import multipart
from benchmarks.pictures import SMALL
from benchmarks.record import Cell, Result
from benchmarks.registering import TEMPLATE, names, register
from benchmarks.rounds import Effort, Spread, figure
from benchmarks.sides import Side, loaded, ours

FILES: Final = 64
MANY: Final = 1_000


def labels(effort: Effort) -> Result:
    """640 x 480, one connection; the labels sent along, and as a registered label set."""
    images = pictures.jpegs(SMALL, FILES)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        server = stack.enter_context(ours(folder))
        register(server, "few", names(2), TEMPLATE)
        register(server, "many", names(MANY), TEMPLATE)
        fields_by_count = {
            count: {"labels": ",".join(names(count)), "templates": TEMPLATE} for count in (2, MANY)
        }
        requests = {
            "2 labels sent": fields_by_count[2],
            "1,000 labels sent": fields_by_count[MANY],
            "label set of 2": {"labelset": "few"},
            "label set of 1,000": {"labelset": "many"},
            "1,000 labels sent, abstain": {**fields_by_count[MANY], "abstain": "true"},
            "label set of 1,000, abstain": {"labelset": "many", "abstain": "true"},
        }
        sides = [
            Side(name, server, "/classify", multipart(images, fields, folder / str(number)))
            for number, (name, fields) in enumerate(requests.items())
        ]
        loads = loaded(sides, 1, effort.seconds, effort.rounds)
    p50 = {name: Spread.of(x.p50 for x in turns) for name, turns in loads.items()}
    rows: list[list[Cell]] = [
        [name, p50[name].text(), figure(statistics.median(x.p99 for x in turns))]
        for name, turns in loads.items()
    ]
    few, many, few_set, many_set, *_ = (spread.median for spread in p50.values())
    ratios = [many / few, many_set / few_set]
    notes = [
        f"1,000 against 2: {ratios[0]:.3f} in the request, {ratios[1]:.3f} as label sets; "
        "the larger one counts."
    ]
    return Result(
        "1,000 labels against 2, ViT-B-32, 640x480, one connection",
        ["request", "p50 ms, median (range)", "p99 ms"],
        rows,
        notes,
        {"limit.labels": max(ratios)},
    )
