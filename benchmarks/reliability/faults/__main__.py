"""Break Redis under a running server, and look how long `/classify` takes in all of it.

    python -m benchmarks.reliability.faults
    python -m benchmarks.reliability.faults --only paused,slow --seconds 5
    python -m benchmarks.reliability.faults --kills 1000   processes that write to SQLite alone

In each fault two clients classify one after the other: one names a label set that is known, one
brings labels that nobody has seen. What counts is the slowest answer, less what a request takes
while all is well, against the store timeout and 50 ms.
"""

import argparse
import itertools
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks.folders import RESULTS
from benchmarks.record import machine, versions
from benchmarks.reliability.faults.redis import FAULTS, Rig
from benchmarks.reliability.faults.writers import kill_writers
from benchmarks.servers import Server, openvocab, wait_until

STORE_TIMEOUT = 0.25
MARGIN = 0.05
HEAL_SECONDS = 30.0
SAMPLE = Path(__file__).parents[3] / "tests" / "samples" / "cat.png"


@dataclass
class Tally:
    """What one client saw: seconds of its answers, and how many were not 200."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0


class Asker:
    """Classifies one picture again and again, with a known label set or with new labels."""

    def __init__(self, server: Server, *, known: bool, numbers: Iterator[int]) -> None:
        self._client = httpx.Client(base_url=server.client.base_url, timeout=30)
        self._known = known
        self._numbers = numbers
        self._picture = SAMPLE.read_bytes()

    def ask(self, tally: Tally) -> None:
        """One request."""
        number = next(self._numbers)
        labels = {"labels": [f"thing {number}", f"animal {number}"]}
        fields: dict[str, Any] = {"labelset": "known"} if self._known else labels
        start = time.perf_counter()
        answer = self._client.post("/classify", files={"image": self._picture}, data=fields)
        tally.seconds.append(time.perf_counter() - start)
        if answer.status_code != httpx.codes.OK:
            tally.refused += 1
            print(answer.status_code, answer.text, file=sys.stderr, flush=True)

    def during(self, seconds: float) -> Tally:
        """As many requests as there is time for."""
        tally, end = Tally(), time.monotonic() + seconds
        while time.monotonic() < end:
            self.ask(tally)
        return tally


def together(askers: list[Asker], seconds: float) -> list[Tally]:
    """All of them at the same time."""
    tallies: list[Tally] = []
    threads = [
        threading.Thread(target=lambda asker=asker: tallies.append(asker.during(seconds)))
        for asker in askers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tallies


def healed(server: Server) -> float:
    """Seconds until the server says that all is well again."""
    start = time.monotonic()
    wait_until(lambda: server.client.get("/readyz").json()["status"] == "ready", HEAL_SECONDS)
    return time.monotonic() - start


def measure(names: list[str], seconds: float) -> list[dict[str, Any]]:
    """One row for each fault."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        rig = Rig(Path(name))
        try:
            settings = {"store_timeout": STORE_TIMEOUT, "image_cache_bytes": 0}
            with openvocab(rig.url, Path(name), **settings) as server:
                body = {"labels": ["cat", "dog", "pizza", "rocket"]}
                put = server.client.put("/labelsets/known", params={"wait": True}, json=body)
                put.raise_for_status()
                numbers = itertools.count()
                askers = [Asker(server, known=k, numbers=numbers) for k in (True, False)]
                together(askers, 2)
                healthy = [s for tally in together(askers, seconds) for s in tally.seconds]
                usual = statistics.median(healthy)
                for fault in names:
                    rows.append(_measure_fault(fault, rig, server, askers, seconds, usual))
                    print(json.dumps(rows[-1]), flush=True)
        finally:
            rig.close()
    return rows


def _measure_fault(
    fault: str, rig: Rig, server: Server, askers: list[Asker], seconds: float, usual: float
) -> dict[str, Any]:
    with FAULTS[fault].happening(rig):
        tallies = together(askers, seconds)
        ready = server.client.get("/readyz").json()["status"]
    took = [s for tally in tallies for s in tally.seconds]
    over = max(took) - usual
    return {
        "fault": fault,
        "requests": len(took),
        "not_answered_200": sum(tally.refused for tally in tallies),
        "usual_median_ms": round(1000 * usual, 1),
        "median_ms": round(1000 * statistics.median(took), 1),
        "slowest_ms": round(1000 * max(took), 1),
        "slowest_less_usual_ms": round(1000 * over, 1),
        "within": over <= STORE_TIMEOUT + MARGIN,
        "readyz": ready,
        "healed_after_seconds": round(healed(server), 2),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(FAULTS), help="faults, comma-separated")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each fault")
    parser.add_argument("--kills", type=int, default=0, help="writers to kill instead")
    options = parser.parse_args()
    if options.kills:
        write("sqlite", _kills(options.kills))
        return
    names = options.only.split(",")
    unknown = set(names) - set(FAULTS)
    if unknown:
        parser.error(f"no fault is called {unknown.pop()!r}; there are {', '.join(FAULTS)}")
    result = {
        "what": "the slowest /classify while Redis is broken, two clients, against store timeout",
        "store_timeout_ms": round(1000 * STORE_TIMEOUT),
        "margin_ms": round(1000 * MARGIN),
        "faults": measure(names, options.seconds),
    }
    if set(names) == set(FAULTS):
        write("redis", result)


def write(name: str, result: dict[str, Any]) -> None:
    """Write faults-NAME.json."""
    head = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
    }
    text = json.dumps(head | result, indent=1)
    print(text)
    (RESULTS / f"faults-{name}.json").write_text(text + "\n")


def _kills(kills: int) -> dict[str, Any]:
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcome = kill_writers(kills, Path(folder), random.Random(0))
    return {
        "what": "label sets lost by kill -9 of two processes that write to one SQLite file",
        **asdict(outcome),
        "seconds": round(time.monotonic() - start, 1),
    }


if __name__ == "__main__":
    main()
