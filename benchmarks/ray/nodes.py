"""Replicas and nodes of a Ray cluster die under load, and a model is changed: what is lost.

    python -m benchmarks.ray.nodes --nodes 2 3 --write

Each cluster is begun on this machine by Ray's own `cluster_utils`, each node with a raylet and a
proxy of its own, and all share one Redis. Clients classify without a pause, at the proxies of the
nodes that stay, and one registers label sets. A request whose connection is closed, or that the
proxy answers itself, counts apart, if it was begun before what was killed was gone, or within a
second after: the dead Ingress had it, or the proxy sent it there on a connection that it still
kept. Whatever else is not answered 200 is lost. In the end each label set that was acknowledged is
asked for at each node that is left.
"""

import argparse
import contextlib
import copy
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.ray.clients import CLIENTS, Failure, Load
from benchmarks.ray.cluster import APPLICATION, Cluster, kill, ray_cluster, wait_for
from benchmarks.record import Cell, Result
from benchmarks.reliability import page
from benchmarks.servers import redis_server, wait_until

ROOT: Final = Path(__file__).parents[2]
PICTURE: Final = ROOT / "tests" / "samples" / "cat.png"

REPLICAS: Final = {"Ingress": 2, "Encoder": 2}
CPUS: Final = 4

# requests that are answered before something dies, and after it
SOME: Final = 24
# between two requests of a client, so that new replicas can start on the same cores
PAUSE: Final = 0.1

# seconds in which a proxy finds out that connections are dead
MOMENT: Final = 1.0

# for whatever is to happen, on a busy machine
LONGEST: Final = 300.0

MODELS: Final = ("pictogram", "everyday")
NEXT: Final = "next"


@dataclass(frozen=True, slots=True)
class Death:
    """What became of the requests beside an event."""

    event: str
    answered: int
    closed: Sequence[Failure]
    lost: Sequence[Failure]
    seconds: float


class Registering:
    """A client that registers label sets one after the other, and knows which were acknowledged."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.acknowledged: dict[str, list[str]] = {}
        self.refused = 0

    def __enter__(self) -> "Registering":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._ended.wait(PAUSE):
            number += 1
            labels = [f"thing {number}", "cat"]
            url = f"{self._urls[number % len(self._urls)]}/labelsets/set-{number}"
            with httpx.Client(timeout=60) as client, contextlib.suppress(httpx.HTTPError):
                if client.put(url, json={"labels": labels, "templates": "pictogram"}).is_success:
                    self.acknowledged[f"set-{number}"] = labels
                    continue
            self.refused += 1

    def move(self, urls: Sequence[str]) -> None:
        """Register at other addresses from now on."""
        self._urls = urls

    def missing(self, url: str) -> list[str]:
        """Those that a node does not have as they were acknowledged."""
        with httpx.Client(base_url=url, timeout=60) as client:
            return [
                name for name, labels in self.acknowledged.items()
                if client.get(f"/labelsets/{name}").json().get("labels") != labels
            ]  # fmt: skip


def whole(cluster: Cluster, application: str = APPLICATION) -> bool:
    """Whether all replicas that there should be are running."""
    status = cluster.status(application)
    return status["status"] == "RUNNING" and all(
        status["deployments"][name].get("RUNNING") == count for name, count in REPLICAS.items()
    )


def beside(
    event: str, load: Load, happen: Callable[[], float], settled: Callable[[], bool]
) -> Death:
    """Let something happen under load, and wait until all is well again.

    `happen` returns the moment from which on nothing may be lost.
    """
    before = load.right
    wait_until(lambda: load.right >= before + SOME, LONGEST)
    already = len(load.wrong)
    start = happen()
    wait_until(settled, LONGEST)
    seconds, after = time.monotonic() - start, load.right
    wait_until(lambda: load.right >= after + SOME, LONGEST)
    wrong = load.wrong[already:]
    death = Death(
        event,
        load.right - before,
        [failure for failure in wrong if _closed(failure, start)],
        [failure for failure in wrong if not _closed(failure, start)],
        seconds,
    )
    for kind, failures in (("closed", death.closed), ("lost", death.lost)):
        for failure in failures:
            when = failure.start - start
            sys.stderr.write(f"{event}: {kind}: {when:+.2f} s {failure.text[:200]}\n")
    return death


def _closed(failure: Failure, killed: float) -> bool:
    return not failure.answered and failure.start < killed + MOMENT


def killing(cluster: Cluster, deployment: str) -> Callable[[], float]:
    """End one of its replicas at once, and wait for Ray to notice."""

    def happen() -> float:
        kill(cluster.replicas(deployment)[:1])
        killed = time.monotonic()
        wait_until(lambda: not whole(cluster), LONGEST)
        return killed

    return happen


def deaths(count: int) -> Iterator[Death | tuple[str, int, int]]:
    """What is lost on a cluster of `count` nodes; last how many label sets there were and are."""
    with (
        tempfile.TemporaryDirectory() as name,
        redis_server(Path(name)) as store,
        ray_cluster(Path(name), [CPUS] * count) as cluster,
    ):
        first = cluster.document(REPLICAS, store_url=store, image_cache_bytes=0)
        if count > max(REPLICAS.values()):
            # no node has all of them, and one more has room for those of a node that dies
            for deployment in first["applications"][0]["deployments"]:
                deployment["max_replicas_per_node"] = 1
        cluster.deploy(first)
        wait_until(lambda: whole(cluster), LONGEST)
        answering(cluster.urls)
        with (
            Registering(cluster.urls) as sets,
            Load(cluster.urls, PICTURE.read_bytes(), PAUSE) as load,
        ):

            def well() -> bool:
                return whole(cluster, NEXT)

            for deployment in REPLICAS:
                yield beside(
                    f"{deployment} killed",
                    load,
                    killing(cluster, deployment),
                    lambda: whole(cluster),
                )
            yield beside("another model, in steps", load, *_change(cluster, first, load, sets))
            there = [
                {name: len(cluster.replicas(name, node, NEXT)) for name in REPLICAS}
                for node in range(count)
            ]
            # never the head: without another Redis for Ray itself a cluster ends with it
            node = max(range(1, count), key=lambda node: min(there[node].values()))
            staying = [url for number, url in enumerate(cluster.urls) if number != node]
            load.move([f"{url}/{NEXT}" for url in staying])
            sets.move([f"{url}/{NEXT}" for url in staying])
            replicas_text = ", ".join(
                f"{n} of {REPLICAS[name]} {name}" for name, n in there[node].items()
            )

            def power_cut() -> float:
                cluster.kill_node(node)
                killed = time.monotonic()
                wait_until(lambda: not well(), LONGEST)
                return killed

            yield beside(f"node killed ({replicas_text})", load, power_cut, well)
        lost = {name for url in staying for name in sets.missing(f"{url}/{NEXT}")}
        yield "label sets", len(sets.acknowledged), len(lost)


def answering(urls: Sequence[str]) -> None:
    """Wait until all of them are ready."""
    for url in urls:
        with httpx.Client(base_url=url, timeout=60) as client:
            wait_for(client)


def _change(
    cluster: Cluster, first: Mapping[str, Any], load: Load, sets: Registering
) -> tuple[Callable[[], float], Callable[[], bool]]:
    """As docker/ray/README.md says: a second application, the traffic moved, the first removed."""
    second = copy.deepcopy(dict(first))
    (application,) = second["applications"]
    application |= {"name": NEXT, "route_prefix": f"/{NEXT}"}
    application["args"] |= {"model": MODELS[1]}
    urls = [f"{url}/{NEXT}" for url in cluster.urls]

    def happen() -> float:
        start = time.monotonic()
        cluster.deploy({**second, "applications": [*first["applications"], application]})
        wait_until(lambda: whole(cluster, NEXT), LONGEST)
        answering(urls)
        # it embeds the labels first, as whoever moves real traffic would have it do
        for url in urls:
            wait_until(partial(load.answered, url), LONGEST)
        load.move(urls)
        sets.move(urls)
        moved = load.right
        wait_until(lambda: load.right >= moved + SOME, LONGEST)
        cluster.deploy(second)
        return start

    return happen, lambda: not cluster.replicas("Ingress") and whole(cluster, NEXT)


def measured(counts: Sequence[int]) -> Result:
    """A row for each event on each cluster."""
    rows: list[list[Cell]] = []
    notes = []
    for count in counts:
        for event in deaths(count):
            if isinstance(event, tuple):
                _, sets, lost = event
                notes.append(
                    f"{count} nodes: {sets} label sets were acknowledged meanwhile; {lost} of them "
                    "are missing on a surviving node."
                )
                continue
            sys.stderr.write(f"{count} nodes: {event.event}: {len(event.lost)} lost\n")
            rows.append([
                count, event.event, event.answered, len(event.closed), len(event.lost),
                round(event.seconds, 1),
            ])  # fmt: skip
    return Result(
        f"Nodes of a Ray cluster on one machine, {CLIENTS} clients at the surviving proxies",
        ["nodes", "event", "answered", "connections closed", "lost", "recovered after, s"],
        rows,
        notes,
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--write", action="store_true", help="keep the result, for the page")
    options = parser.parse_args()
    start = time.monotonic()
    result = measured(options.nodes)
    for row in result.rows:
        sys.stdout.write("\t".join(str(cell) for cell in row) + "\n")
    sys.stdout.write("\n".join(result.notes) + "\n")
    if options.write:
        subject = "requests lost when replicas and nodes of a Ray cluster die"
        page.write(
            "nodes", subject, [result], time.monotonic() - start, module="benchmarks.ray.nodes"
        )
        page.main()


if __name__ == "__main__":
    main()
