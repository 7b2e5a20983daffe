"""More requests than the service can do, from clients that do not wait; and its memory meanwhile.

    python -m benchmarks.reliability.overload

The model is made slower by a pause for each picture, so that neither the load generator nor the
HTTP side is the limit. Writes results/overload.json.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Final

import httpx

from benchmarks.folders import RESULTS
from benchmarks.pictures import SIZES, jpegs
from benchmarks.record import Cell, Result
from benchmarks.reliability import page
from benchmarks.reliability.arrivals import Caller, Outcome, moments, post, quantile
from benchmarks.reliability.misbehaving import Fault, Faults, misbehaving
from benchmarks.servers import Server
from benchmarks.usage import resident_mb, settle

EACH_SECONDS: Final = 0.01
MAX_BATCH, MAX_QUEUE = 16, 128
LOADS: Final = (0.5, 1.0, 2.0, 5.0)

# requests before the memory is looked at, and those that are refused before it is looked at again
FEW, MANY, REFUSED = 500, 10_000, 1_000

PATH: Final = "/classify?labels=cat&labels=dog&labels=rocket&templates=pictogram"
OK, OVERLOADED = 200, 503


def caller(server: Server) -> Caller:
    """One that posts a small photograph."""
    url = httpx.URL(server.url)
    body = jpegs(SIZES[0], 1)[0].read_bytes()
    return Caller(url.host, url.port or 80, post(url.host, PATH, "image/jpeg", body))


def overload(server: Server, faults: Faults, seconds: float) -> Result:
    """Find the peak, then offer shares and multiples of it."""
    faults.set(Fault(each_seconds=EACH_SECONDS))
    asyncio.run(caller(server).closed_loop(MAX_BATCH, most=100))
    busy = asyncio.run(caller(server).closed_loop(3 * MAX_BATCH, seconds))
    busy.begin, busy.end = 1.0, seconds
    peak = busy.rate(OK)
    request_seconds = 1 / peak
    bound = 2 * MAX_QUEUE * request_seconds
    rows, late, bars = [], 0.0, {}
    for load in LOADS:
        settle(server.process.pid)
        due = moments(load * peak, seconds + bound, seed=round(10 * load))
        outcome = asyncio.run(caller(server).open_loop(due))
        # the first requests find an empty queue: what counts is what comes when it is as full as
        # this load makes it
        outcome.begin, outcome.end = bound / 2, bound + seconds
        rows.append(_row(load, load * peak, peak, outcome, resident_mb(server.process.pid)))
        late = max(late, quantile([request.late for request in outcome.requests], 0.99))
    bars["share"] = outcome.rate(OK) / peak
    bars["p99"] = outcome.waited(OK, 0.99) / bound
    return Result(
        "Load as multiples of the peak, Poisson arrivals",
        ["load", "offered/s", "answered/s", "of the peak", "refused/s", "other", "p50 ms",
         "p99 ms", "p99 of 503, ms", "Retry-After s", "MB"],
        rows,
        [
            f"The peak is {peak:.1f} requests/s: {3 * MAX_BATCH} clients with one request in "
            f"flight each, never refused. The model pauses {1000 * EACH_SECONDS:g} ms per "
            f"picture; max_batch {MAX_BATCH}, max_queue {MAX_QUEUE}.",
            f"Twice max_queue x the mean service time of {1000 * request_seconds:.1f} ms is "
            f"{1000 * bound:,.0f} ms.",
            "Latency counts from the moment a request was due; 99 % were sent within "
            f"{1000 * late:.1f} ms of it.",
            "`other` counts responses other than 200 and 503, and missing responses.",
        ],
        bars,
    )  # fmt: skip


def _row(load: float, offered: float, peak: float, outcome: Outcome, memory: float) -> list[Cell]:
    refused = outcome.of(OVERLOADED)
    hints = [request.retry_after for request in refused if request.retry_after is not None]
    if len(hints) != len(refused):
        raise RuntimeError("a refusal did not say when to come back")
    others = sum(n for status, n in outcome.statuses().items() if status not in (OK, OVERLOADED))
    return [
        f"{load:g}x", round(offered, 1), round(outcome.rate(OK), 1),
        f"{100 * outcome.rate(OK) / peak:.1f} %", round(outcome.rate(OVERLOADED), 1), others,
        round(1000 * outcome.waited(OK, 0.5)), round(1000 * outcome.waited(OK, 0.99)),
        round(1000 * outcome.waited(OVERLOADED, 0.99), 1) if refused else "-",
        f"{min(hints)} to {max(hints)}" if hints else "-", round(memory),
    ]  # fmt: skip


def memory(server: Server, faults: Faults) -> Result:
    """Resident memory of one process after many requests, and after many refused ones."""
    pid, rows = server.process.pid, list[list[Cell]]()
    sizes: list[float] = []

    def look(moment: str) -> None:
        settle(pid)
        sizes.append(resident_mb(pid))
        rows.append([moment, round(sizes[-1], 1), f"{sizes[-1] / sizes[0]:.3f}"])

    faults.set(Fault())
    count = 0
    for goal in (FEW, MANY // 4, MANY // 2, MANY):
        outcome = asyncio.run(caller(server).closed_loop(MAX_BATCH, most=goal - count))
        count += outcome.statuses()[OK]
        look(f"{goal:,} requests")
    faults.set(Fault(each_seconds=EACH_SECONDS))
    refused = 0
    while refused < REFUSED:
        due = moments(5 / EACH_SECONDS, 1.0, seed=refused)
        refused += asyncio.run(caller(server).open_loop(due)).statuses()[OVERLOADED]
    look(f"{refused:,} more that were refused")
    return Result(
        "Resident memory of one process",
        ["after", "MB", f"against {FEW} requests"],
        rows,
        [f"{count:,} requests were answered 200 before the refused ones."],
        {"requests": sizes[-2] / sizes[0], "refused": sizes[-1] / sizes[-2]},
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    start, tables = time.monotonic(), []
    for measure in (lambda server, faults: overload(server, faults, options.seconds), memory):
        with (
            tempfile.TemporaryDirectory() as folder,
            misbehaving(Path(folder), max_batch=MAX_BATCH, max_queue=MAX_QUEUE) as live,
        ):
            tables.append(measure(*live))
            print(tables[-1].bars, flush=True)
    subject = "open-loop arrivals beyond what the service can do, and its memory"
    page.write("overload", subject, tables, time.monotonic() - start, options.results)


if __name__ == "__main__":
    main()
