"""Requests a second, waiting times and memory of all sides, in turns. Knows no peer by name."""

import contextlib
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import pictures, record
from benchmarks.bodies import multipart
from benchmarks.environments import NoEnvironment
from benchmarks.load import Load
from benchmarks.peers.agreement import Disagrees, check, scores
from benchmarks.peers.servers import EIGHTY, PEERS, Peer, started
from benchmarks.pictures import LARGE, SMALL, Size
from benchmarks.record import Cell, Result
from benchmarks.rounds import Effort, Spread, figure, in_turns, seconds_of
from benchmarks.servers import DidNotStart, Server
from benchmarks.sides import FIELDS, WARM_SECONDS, Side, ours
from benchmarks.usage import peak_mb
from models.info import Precision

OURS: Final = "openvocab"
SMALL_FILES, LARGE_FILES = 64, 16
ANSWERS_EACH: Final = 2.5
LONGEST_TURN: Final = 40.0
# the same service, for peers that compute in float32
LIKE: Final = "openvocab, fp32"
COLUMNS: Final = [
    "server", "connections", "requests/s, median (range)", "p50 ms", "p99 ms", "errors",
    "peak memory MB", "openvocab is faster by", "openvocab in the same precision",
]  # fmt: skip


def variants(effort: Effort) -> Result:
    """Which way of running each peer is its fastest, at 8 connections."""
    rows: list[list[Cell]] = []
    images = pictures.jpegs(SMALL, SMALL_FILES)
    with tempfile.TemporaryDirectory() as name, ours(Path(name)) as us:
        folder = Path(name)
        for peer in PEERS:
            bodies = peer.bodies(images, folder / peer.environment)
            for variant in peer.variants:
                try:
                    with started(peer, variant, folder) as server:
                        us.resume()
                        try:
                            check(peer, server, us, images, folder)
                        finally:
                            us.pause()
                        precision = peer.precision(variant)
                        side = Side(peer.name, server, peer.path, bodies, precision)
                        side.load(8, WARM_SECONDS)
                        load = side.load(8, effort.seconds)
                except (NoEnvironment, DidNotStart, Disagrees) as failure:
                    rows.append([peer.name, variant, None, _reason(failure)])
                    continue
                rows.append([peer.name, variant, *_rate(load, effort.seconds)])
    notes = ["The comparisons use the fastest variant."]
    return Result("Ways to run each peer", ["server", "variant", "requests/s", ""], rows, notes)


def _rate(load: Load, seconds: float) -> tuple[float | None, str]:
    """Requests a second, or why there is no such figure."""
    if load.errors:
        return None, f"{load.errors} errors"
    return (load.rate, "") if load.rate else (None, f"no request ended within {seconds:g} s")


def small(effort: Effort) -> Result:
    """640 x 480 at 1, 8 and 32 connections."""
    return _compare(SMALL, SMALL_FILES, (1, 8, 32), effort)


def large(effort: Effort) -> Result:
    """12 megapixels at 1, 8 and 32 connections."""
    return _compare(LARGE, LARGE_FILES, (1, 8, 32), effort)


def eighty(effort: Effort) -> Result:
    """The tutorial server with 80 templates: seconds per request, so counted one by one."""
    images = pictures.jpegs(SMALL, SMALL_FILES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ours(folder) as us, started(EIGHTY, "async", folder) as peer:
            agreement = check(EIGHTY, peer, us, images, folder)
            bodies = multipart(images, FIELDS, folder / "forms")
            side = Side(OURS, us, "/classify", bodies, _precision(us))
            side.load(1, WARM_SECONDS)
            files = [path.read_bytes() for path in images]
            turns = iter(range(len(files)))

            def slow() -> float:
                peer.resume()
                try:
                    return seconds_of(lambda: scores(peer, files[next(turns)], FIELDS))
                finally:
                    peer.pause()

            peer.pause()
            times = in_turns(
                {"peer": slow, OURS: lambda: 1 / side.load(1, effort.seconds).rate}, effort.rounds
            )
            rows: list[list[Cell]] = []
            for title, key, server in ((OURS, OURS, us), (EIGHTY.name, "peer", peer)):
                spread = Spread.of(1000 * x for x in times[key])
                rows.append([title, spread.text(), round(peak_mb(server.process.pid))])
    ratio = statistics.median(times["peer"]) / statistics.median(times[OURS])
    return Result(
        "The tutorial server with 80 templates, 640x480, one connection",
        ["server", "ms per request, median (range)", "peak memory MB"],
        rows,
        [
            f"{EIGHTY.name}: {EIGHTY.about}; {agreement}.",
            f"{effort.rounds} requests of the slow side.",
        ],
        {"eighty.1": ratio},
    )


def _compare(size: Size, files: int, connections: Sequence[int], effort: Effort) -> Result:
    images = pictures.jpegs(size, files)
    average = statistics.mean(path.stat().st_size for path in images)
    notes = [
        f"{files} distinct JPEG files, quality {pictures.QUALITY}, {average / 1000:,.0f} kB on "
        "average; openvocab uses its 80 default templates.",
    ]
    rows: list[list[Cell]] = []
    bars: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        us = stack.enter_context(ours(folder))
        own_bodies = multipart(images, FIELDS, folder / "ours")
        sides = [Side(OURS, us, "/classify", own_bodies, _precision(us))]
        notes.append(f"{OURS}: {sides[0].precision}, which is what it chooses on this processor.")
        if sides[0].precision != "fp32":
            like = stack.enter_context(ours(folder, precision="fp32"))
            sides.append(Side(LIKE, like, "/classify", own_bodies, "fp32"))
        for peer in PEERS:
            try:
                side, agreement = stack.enter_context(_ready(peer, us, images, folder))
            except (NoEnvironment, DidNotStart, Disagrees) as failure:
                notes.append(f"{peer.name} is not measured: {_reason(failure)}.")
            else:
                sides.append(side)
                notes.append(f"{side.name}: {peer.about}; {agreement}.")
        for side in sides:
            side.server.pause()
        loads: dict[tuple[str, int], list[Load]] = {}
        for count in connections:
            turns = {
                side.name: partial(side.load, count, _enough(side, count, effort)) for side in sides
            }
            for side_name, side_loads in in_turns(turns, effort.rounds).items():
                loads[side_name, count] = side_loads
        for count in connections:
            rates = {s.name: statistics.median(x.rate for x in loads[s.name, count]) for s in sides}
            like_with = {s.precision: rates[s.name] for s in sides if s.name in (OURS, LIKE)}
            for side in sides:
                side_loads = loads[side.name, count]
                rate = Spread.of(x.rate for x in side_loads)
                ratios: list[float] = []
                if rate.median and side.name not in (OURS, LIKE):
                    ratios = [rates[OURS] / rate.median]
                    if side.precision in like_with:
                        ratios.append(like_with[side.precision] / rate.median)
                rows.append(_row(side, count, side_loads, rate, ratios))
                if size is SMALL and ratios:
                    bars[f"{side.name.partition(' (')[0]}.{count}"] = ratios[0]
    title = (
        f"{size.name} ({size.megapixels:.2g} megapixels), {len(FIELDS['labels'].split(','))} labels"
    )
    return Result(title, COLUMNS, rows, notes, bars)


def _enough(side: Side, count: int, effort: Effort) -> float:
    """Seconds of a turn after warming up: a slow server answers each connection a few times."""
    warm = side.load(count, WARM_SECONDS)
    seconds = ANSWERS_EACH * count / warm.rate if warm.requests > warm.errors else LONGEST_TURN
    return min(LONGEST_TURN, max(effort.seconds, seconds))


def _row(
    side: Side, count: int, loads: list[Load], rate: Spread, ratios: list[float]
) -> list[Cell]:
    errors = sum(x.errors for x in loads)
    memory = round(peak_mb(side.server.process.pid))
    if not rate.high:
        return [side.name, count, "no answer within a turn", None, None, errors, memory, "", ""]
    p50, p99 = (statistics.median(getattr(x, name) for x in loads) for name in ("p50", "p99"))
    faster = [f"{figure(ratio)}x" for ratio in ratios]
    faster += [""] * (2 - len(faster))
    return [side.name, count, rate.text(), figure(p50), figure(p99), errors, memory, *faster]


def _precision(us: Server) -> Precision:
    """What a server of ours computes in."""
    precision: Precision = us.client.get("/models").raise_for_status().json()["loaded"]["precision"]
    return precision


@contextlib.contextmanager
def _ready(
    peer: Peer, us: Server, images: Sequence[Path], folder: Path
) -> Iterator[tuple[Side, str]]:
    variant = _fastest(peer)
    with started(peer, variant, folder) as server:
        agreement = check(peer, server, us, images, folder)
        bodies = peer.bodies(images, folder / peer.environment)
        precision = peer.precision(variant)
        side = Side(f"{peer.name} ({variant}, {precision})", server, peer.path, bodies, precision)
        yield side, agreement


def _fastest(peer: Peer) -> str:
    """As `variants` found; the first that is listed before it was measured."""
    document = record.read("peers", "variants") or {"rows": []}
    rates = {row[1]: row[2] for row in document["rows"] if row[0] == peer.name and row[2]}
    return max(rates, key=rates.__getitem__) if rates else next(iter(peer.variants))


def _reason(failure: Exception) -> str:
    lines = [line for line in str(failure).splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else type(failure).__name__
