"""One process, and a Ray cluster with one encoder and with two, asked in turns.

All on this machine and with one CPU thread for a forward pass, so that an encoder is what is added.
"""

import contextlib
import copy
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks import pictures
from benchmarks.bodies import Bodies, multipart
from benchmarks.checkpoint import open_clip_folder
from benchmarks.load import Load, drive
from benchmarks.peers.measure import WARM_SECONDS
from benchmarks.peers.sides import FIELDS, ours
from benchmarks.pictures import SMALL
from benchmarks.ray.cluster import Cluster, ray_cluster, wait_for
from benchmarks.record import Cell, Result, machine
from benchmarks.rounds import Effort, Spread, in_turns
from benchmarks.usage import cpu_seconds

FILES: Final = 64
CONNECTIONS: Final = 32
ENCODERS: Final = (1, 2)


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a side: many connections with the CPU time of all its processes, then one."""

    many: Load
    cpu_seconds: float
    alone: Load


def encoders(effort: Effort) -> Result:
    """The same requests to a single process, and to one and two encoders behind one ingress."""
    images = pictures.jpegs(SMALL, FILES)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        forms = multipart(images, FIELDS, folder / "forms")
        single = stack.enter_context(ours(folder, torch_threads=1))
        cluster = stack.enter_context(_applications(folder))
        sides = {"one process": (single.url, single.process.pid)}
        for count in ENCODERS:
            title = f"Ray, {count} encoder{'s' if count > 1 else ''}"
            sides[title] = (f"{cluster.url}{_route(count)}", cluster.process.pid)
        for url, _ in sides.values():
            drive(f"{url}/classify", forms, CONNECTIONS, WARM_SECONDS)
        turns = in_turns(
            {name: _turn(url, pid, forms, effort) for name, (url, pid) in sides.items()},
            effort.rounds,
        )
    return Result(
        f"Encoders on Ray (ViT-B-32, one thread each, 10 labels, 640x480, on {_cores()} cores)",
        [
            "side",
            f"requests/s, {CONNECTIONS} connections",
            "p50 ms",
            "CPU ms per request",
            "p50 ms, one connection",
            "errors",
        ],
        [_row(name, loads) for name, loads in turns.items()],
        _notes(turns),
    )


@contextlib.contextmanager
def _applications(folder: Path) -> Iterator[Cluster]:
    """One cluster with an application for each number of encoders; who is not asked is idle."""
    settings = {
        "model": f"local-dir:{open_clip_folder()}", "image_cache_bytes": 0, "torch_threads": 1,
    }  # fmt: skip
    with ray_cluster(folder) as cluster:
        whole: dict[str, Any] = {}
        for count in ENCODERS:
            replicas = {"Ingress": 1, "Encoder": count}
            document = copy.deepcopy(cluster.document(replicas, **settings))
            document["applications"][0] |= {
                "name": f"encoders-{count}",
                "route_prefix": _route(count),
            }
            whole = {
                **document,
                "applications": whole.get("applications", []) + document["applications"],
            }
        cluster.deploy(whole)
        for count in ENCODERS:
            with httpx.Client(base_url=f"{cluster.url}{_route(count)}", timeout=60) as client:
                wait_for(client)
            cluster.wait(f"encoders-{count}")
        yield cluster


def _route(count: int) -> str:
    return f"/encoders-{count}"


def _turn(url: str, pid: int, forms: Bodies, effort: Effort) -> Any:
    def turn() -> Turn:
        before = cpu_seconds(pid)
        many = drive(f"{url}/classify", forms, CONNECTIONS, effort.seconds)
        spent = cpu_seconds(pid) - before
        return Turn(many, spent, drive(f"{url}/classify", forms, 1, max(1.0, effort.seconds / 2)))

    return turn


def _row(name: str, turns: list[Turn]) -> list[Cell]:
    return [
        name,
        Spread.of(turn.many.rate for turn in turns).text(),
        Spread.of(turn.many.p50 for turn in turns).median,
        Spread.of(1000 * turn.cpu_seconds / max(1, turn.many.requests) for turn in turns).median,
        Spread.of(turn.alone.p50 for turn in turns).text(),
        sum(turn.many.errors + turn.alone.errors for turn in turns),
    ]


def _notes(turns: Mapping[str, list[Turn]]) -> list[str]:
    rates = [Spread.of(turn.many.rate for turn in loads).median for loads in turns.values()]
    return [
        f"Two encoders have {rates[2] / rates[1]:.2f} times the throughput of one, and "
        f"{rates[2] / rates[0]:.2f} times that of one process.",
        f"The {_cores()} cores also carry the load generator, Ray's proxy and the ingress, which "
        "decodes: a second encoder can only use what these leave.",
    ]


def _cores() -> int:
    return int(machine()["cores"])
