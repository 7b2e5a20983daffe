"""One process, and a Ray cluster with one encoder, with two, and with that of another model.

All on this machine, in turns, and with one CPU thread for a forward pass, so that an encoder is
what is added. The other model is asked once, so that it is loaded, and then has nothing to do.
"""

import contextlib
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
from benchmarks.pictures import SMALL
from benchmarks.ray.cluster import Cluster, ray_cluster, wait_for
from benchmarks.record import Cell, Result, machine
from benchmarks.rounds import Effort, Spread, in_turns
from benchmarks.sides import FIELDS, WARM_SECONDS, ours
from benchmarks.usage import cpu_seconds

FILES: Final = 64
CONNECTIONS: Final = 32
OTHER_MODEL: Final = "pictogram"


@dataclass(frozen=True, slots=True)
class Application:
    """A deployed service: the number of the model's encoders, and another model, if any."""

    name: str
    title: str
    encoders: int
    other_model: str = ""


APPLICATIONS: Final = (
    Application("one", "Ray, 1 encoder", 1),
    Application("two", "Ray, 2 encoders", 2),
    Application("beside", "Ray, 1 encoder, another model idle", 1, OTHER_MODEL),
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a side: many connections with the CPU time of all its processes, then one."""

    many: Load
    cpu_seconds: float
    alone: Load


def encoders(effort: Effort) -> Result:
    """The same requests to a single process and to each application, with one ingress."""
    images = pictures.jpegs(SMALL, FILES)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        forms = multipart(images, FIELDS, folder / "forms")
        single = stack.enter_context(ours(folder, torch_threads=1))
        cluster = stack.enter_context(_applications(folder))
        sides = {"one process": (single.url, single.process.pid)}
        for application in APPLICATIONS:
            sides[application.title] = (f"{cluster.url}/{application.name}", cluster.process.pid)
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
    """One cluster with all applications, of which those without requests are idle."""
    settings = {
        "model": f"local-dir:{open_clip_folder()}", "image_cache_bytes": 0, "torch_threads": 1,
    }  # fmt: skip
    with ray_cluster(folder) as cluster:
        chosen = [_application(cluster, application, settings) for application in APPLICATIONS]
        whole = cluster.document({"Ingress": 1, "Encoder": 1})
        cluster.deploy({**whole, "applications": chosen})
        for application in APPLICATIONS:
            base_url = f"{cluster.url}/{application.name}"
            with httpx.Client(base_url=base_url, timeout=60) as client:
                wait_for(client)
                cluster.wait(application.name)
                if application.other_model:
                    _classify_once(client, application.other_model)
        yield cluster


def _application(
    cluster: Cluster, application: Application, settings: Mapping[str, object]
) -> dict[str, Any]:
    """Its part of the configuration. The other model's deployment is as that of the first."""
    from app.server.ray_serve import deployment_name  # Ray is an extra

    replicas = {"Ingress": 1, "Encoder": application.encoders}
    document = cluster.document(replicas, more_models=application.other_model, **settings)
    part: dict[str, Any] = document["applications"][0]
    if application.other_model:
        _, encoder = part["deployments"]
        name = deployment_name(application.other_model, default=False)
        part["deployments"].append({**encoder, "name": name})
    return {**part, "name": application.name, "route_prefix": f"/{application.name}"}


def _classify_once(client: httpx.Client, model: str) -> None:
    (image,) = pictures.jpegs(SMALL, 1)
    fields = {"labels": "cat,dog", "model": model}
    client.post("/classify", files={"image": image.read_bytes()}, data=fields).raise_for_status()


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
        f"With another model beside it ({OTHER_MODEL}, in a process of its own) one encoder has "
        f"{rates[3] / rates[1]:.2f} times the throughput that it has alone.",
        f"The {_cores()} cores also carry the load generator, Ray's proxy and the ingress, which "
        "decodes: a second encoder can only use what these leave.",
    ]


def _cores() -> int:
    return int(machine()["cores"])
