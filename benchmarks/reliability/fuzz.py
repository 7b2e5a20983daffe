"""Decode thousands of damaged images; count what is anything but a picture or a clear refusal.

    python -m benchmarks.reliability.fuzz --cases 20000 --seed 1

Each case is a small file of some format, changed at random by --seed and its number alone: it can
be made again with --case NUMBER. All are decoded, in several processes; every twentieth is sent to
a running server as well. Accepted are pictures and problems of status 4xx. Anything else, a Python
warning, a lost process, over five seconds or 900 MB are written down.
"""

import argparse
import os
import platform
import random
import resource
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path

import httpx

from app.errors import Problem
from app.images.decode import FORMATS, HEIC, Decoder, decode
from app.images.limits import ImageLimits
from benchmarks.record import publish
from benchmarks.reliability.hostile.mutations import mutated
from benchmarks.reliability.hostile.seeds import seeds
from benchmarks.servers import openvocab
from benchmarks.usage import peak_mb
from models import ImageSpec

SPEC = ImageSpec(224, 224, "shortest", "bicubic", 0)
SLOW_SECONDS = 5.0
LARGE_MB = 900
SENT = 20
TOGETHER = 100
LABELS = "cat,dog"


@dataclass
class Outcome:
    """What became of some cases; `unexpected` by case."""

    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    unexpected: dict[int, str] = field(default_factory=dict)
    slowest: tuple[float, int] = (0.0, 0)
    peak_mb: int = 0
    largest_step_mb: int = 0

    def add(self, more: "Outcome") -> None:
        """Take over what others found."""
        self.cases += more.cases
        self.outcomes += more.outcomes
        self.formats += more.formats
        self.unexpected |= more.unexpected
        self.slowest = max(self.slowest, more.slowest)
        self.peak_mb = max(self.peak_mb, more.peak_mb)
        self.largest_step_mb = max(self.largest_step_mb, more.largest_step_mb)


@cache
def _files() -> tuple[dict[str, bytes], tuple[str, ...]]:
    files = seeds()
    return files, (*FORMATS, HEIC) if "heic: plain" in files else FORMATS


def case(seed: int, number: int) -> tuple[str, bytes]:
    """The format that a case began as, and its file."""
    dice = random.Random(f"{seed}/{number}")
    files, _ = _files()
    name = dice.choice(list(files))
    return name.partition(":")[0], mutated(dice, files[name], list(files.values()))


def prepare() -> None:
    """Warnings count as errors but for those that the service ignores, too."""
    warnings.resetwarnings()
    warnings.simplefilter("error")
    _, formats = _files()
    Decoder(SPEC, ImageLimits(), 1, heic=HEIC in formats).close()


def decode_cases(seed: int, numbers: Iterable[int]) -> Outcome:
    """Decode cases one after the other in this process, which `prepare` has prepared."""
    outcome = Outcome()
    _, formats = _files()
    for number in numbers:
        kind, data = case(seed, number)
        outcome.cases += 1
        outcome.formats[kind] += 1
        start, before = time.perf_counter(), _peak_mb()
        try:
            decode(data, SPEC, ImageLimits(), formats)
            outcome.outcomes["decoded"] += 1
        except Problem as problem:
            outcome.outcomes[problem.code] += 1
            if not 400 <= problem.status < 500 or isinstance(problem.__cause__, Warning):
                outcome.unexpected[number] = f"{problem!r} because of {problem.__cause__!r}"
        except BaseException as error:
            outcome.unexpected[number] = repr(error)
        spent = time.perf_counter() - start
        outcome.slowest = max(outcome.slowest, (round(spent, 3), number))
        step = round(_peak_mb() - before)
        outcome.largest_step_mb = max(outcome.largest_step_mb, step)
        if spent > SLOW_SECONDS or step > LARGE_MB:
            outcome.unexpected[number] = f"took {spent:.1f} s and {step} MB"
    outcome.peak_mb = round(_peak_mb())
    return outcome


def send_cases(client: httpx.Client, seed: int, numbers: Iterable[int]) -> Outcome:
    """Send cases to a server, in the three ways that it takes them."""
    outcome = Outcome()
    for number in numbers:
        kind, data = case(seed, number)
        outcome.cases += 1
        outcome.formats[kind] += 1
        start = time.perf_counter()
        try:
            if number % 2:
                files = {"image": data}
                answer = client.post("/classify", files=files, data={"labels": LABELS})
            else:
                answer = client.post("/classify", content=data, params={"labels": LABELS})
            outcome.outcomes[str(answer.status_code)] += 1
            if not (answer.is_success or answer.is_client_error):
                outcome.unexpected[number] = f"sent: {answer.status_code} {answer.text[:200]}"
        except httpx.HTTPError as error:
            outcome.unexpected[number] = f"sent: {error!r}"
        spent = time.perf_counter() - start
        outcome.slowest = max(outcome.slowest, (round(spent, 3), number))
    return outcome


def decode_all(seed: int, cases: int, processes: int) -> Outcome:
    """Decode in several processes; where one dies, its case is found and the others are redone."""
    outcome, lost = Outcome(), []
    parts = [range(start, min(start + TOGETHER, cases)) for start in range(0, cases, TOGETHER)]
    with ProcessPoolExecutor(processes, get_context("spawn"), prepare) as pool:
        running = [(part, pool.submit(decode_cases, seed, part)) for part in parts]
        for part, future in running:
            try:
                outcome.add(future.result())
            except Exception:  # with one process the pool loses all that waits
                lost.append(part)
    for part in lost:
        outcome.add(_decode_alone(seed, part))
    return outcome


def _decode_alone(seed: int, part: range) -> Outcome:
    """Decode in a process of its own, and if it dies, each half in one."""
    with ProcessPoolExecutor(1, get_context("spawn"), prepare) as pool:
        try:
            return pool.submit(decode_cases, seed, part).result()
        except Exception as error:
            if len(part) == 1:
                return Outcome(1, unexpected={part[0]: f"the process died: {error!r}"})
    outcome = _decode_alone(seed, part[: len(part) // 2])
    outcome.add(_decode_alone(seed, part[len(part) // 2 :]))
    return outcome


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="write this case's file to the standard output")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    if options.case is not None:
        os.write(1, case(options.seed, options.case)[1])
        return
    start = time.monotonic()
    decoded = decode_all(options.seed, options.cases, options.processes)
    print(f"decoded {decoded.cases} cases, {len(decoded.unexpected)} unexpected")
    with (
        tempfile.TemporaryDirectory() as name,
        openvocab("memory://", Path(name), heic=True) as server,
    ):
        before = peak_mb(server.process.pid)
        http_outcome = send_cases(server.client, options.seed, range(0, options.cases, SENT))
        growth = peak_mb(server.process.pid) - before
        log = (Path(name) / "server.log").read_text()
    document = {
        "what": "damaged images: anything but a picture or a problem of status 4xx is unexpected",
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "pillow": metadata.version("pillow"),
        "seed": options.seed,
        "seconds": round(time.monotonic() - start, 1),
        "decoded": vars(decoded),
        "sent": {
            **vars(http_outcome),
            "peak_mb": round(before + growth),
            "grown_mb": round(growth),
        },
        "server_log": log.splitlines()[:20],
    }
    publish("fuzz", document)


if __name__ == "__main__":
    main()
