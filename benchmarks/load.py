"""Drive a server with wrk and read what it counted. Knows nothing of what is asked."""

import json
import shutil
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.bodies import Bodies

SCRIPT: Final = Path(__file__).with_name("load.lua")

# what slow peers may take for one answer
TIMEOUT_SECONDS: Final = 120


class NoLoadGenerator(Exception):
    """wrk is not installed."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk saw; times in milliseconds, as its users would wait."""

    requests: int
    seconds: float
    errors: int
    p50: float
    p90: float
    p99: float
    max: float

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return (self.requests - self.errors) / self.seconds


def drive(url: str, bodies: Bodies, connections: int, seconds: float) -> Load:
    """Post the bodies in turn over `connections` connections for about `seconds` (whole ones)."""
    program = shutil.which("wrk")
    if program is None:
        raise NoLoadGenerator("wrk is missing (on Debian: apt-get install wrk)")
    command = [program, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
    command += ["--timeout", f"{TIMEOUT_SECONDS}s", "-s", str(SCRIPT), url, "--"]
    command += [bodies.kind, str(bodies.index)]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    return parse(process.stdout)


def drive_repeatedly(
    url: str, bodies: Bodies, connections: int, seconds: float, rounds: int
) -> Load:
    """The medians of several turns; requests, seconds, errors and the longest wait of them all."""
    loads = [drive(url, bodies, connections, seconds) for _ in range(rounds)]
    middle = {
        name: statistics.median(getattr(load, name) for load in loads)
        for name in ("p50", "p90", "p99")
    }
    requests, spent, errors = (
        sum(getattr(load, name) for load in loads) for name in ("requests", "seconds", "errors")
    )
    return Load(requests, spent, errors, **middle, max=max(load.max for load in loads))


def parse(output: str) -> Load:
    """The line that load.lua prints. wrk counts an answer that is no 2xx or 3xx as a request."""
    line = output.rstrip().splitlines()[-1]
    figures = json.loads(line)
    errors = sum(figures[kind] for kind in ("connect", "read", "write", "status", "timeout"))
    times = {name: figures[name] for name in ("p50", "p90", "p99", "max")}
    return Load(figures["requests"], figures["seconds"], errors, **times)
