"""The service on a real Ray cluster of two nodes: two ingresses, two encoders, one Redis.

In the order of the file: the last test ends a node.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.ray.clients import CLIENTS, LABELS, PATIENCE, Load
from benchmarks.ray.cluster import Cluster, ray_cluster, wait_for
from benchmarks.servers import redis_server, wait_until
from models.encoder import Encoder
from tests.conftest import Serve

# the two add up a batch in different order
TOLERANCE = 1e-6
REPLICAS = {"Ingress": 2, "Encoder": 2}
# replicas on a busy machine take minutes
pytestmark = pytest.mark.timeout(900)

# between two requests of a client, so that new replicas can start on the same cores
PAUSE_SECONDS = 0.3
# for what must happen at all, however busy the machine is
LONGEST = 300
# a request waits as long as a busy machine needs
SETTINGS = {"image_cache_bytes": 0, "request_timeout": 120, "store_timeout": 10}
# so long a proxy on a busy machine may keep connections to what is dead
NOTICE_SECONDS = 5
# of each node, which begins as many processes before any is asked for; a replica asks for a tenth
CPUS = (2, 2)


class Live:
    """The deployed service: its cluster, a client, and what it was deployed with."""

    def __init__(self, cluster: Cluster, store_url: str) -> None:
        self.cluster = cluster
        self.client = httpx.Client(base_url=cluster.url, timeout=PATIENCE)
        self._args: dict[str, object] = {}
        self.deploy(**SETTINGS, store_url=store_url)
        cluster.wait()

    def deploy(self, **args: object) -> None:
        """The shipped configuration with these settings, unless it has them already.

        Returns before it is in force.
        """
        if not args.items() <= self._args.items():
            self._args |= args
            self.cluster.deploy(self.cluster.document(REPLICAS, **self._args))


@pytest.fixture(scope="module")
def live(
    pictogram: Encoder, own_data_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    # with the export that `pictogram` made
    folder = tmp_path_factory.mktemp("ray")
    with (
        redis_server(folder) as store_url,
        ray_cluster(folder, CPUS, data_dir=own_data_dir) as cluster,
    ):
        live = Live(cluster, store_url)
        with live.client:
            yield live


@pytest.fixture(scope="module")
def single(pictogram: Encoder, serve: Serve) -> Iterator[httpx.Client]:
    """The same service as one process."""
    with serve(pictogram) as client:
        yield client


def test_answers_are_those_of_a_single_process(
    live: Live, single: httpx.Client, samples: dict[str, Path]
) -> None:
    names = ",".join(samples)
    requests: list[dict[str, Any]] = [
        {"url": "/classify", "files": {"image": path.read_bytes()}, "data": {"labels": names}}
        for path in samples.values()
    ]
    cat = samples["cat"].read_bytes()
    files = {"image": cat}
    requests += [
        {"url": "/classify", "files": files, "data": {"labels": "cat,dog", "multi_label": "true"}},
        {"url": "/classify", "files": files, "data": {"labels": "cat,dog", "explain": "true"}},
        {"url": "/embeddings/text", "json": {"texts": ["a cat", "a dog"]}},
        {"url": "/embeddings/image", "files": files},
        # errors, found in the ingress and in the encoder
        {"url": "/classify", "files": {"image": b"no picture"}, "data": {"labels": "cat,dog"}},
        {"url": "/classify", "files": files, "data": {"labels": "cat,cat"}},
        {"url": "/classify", "files": files, "data": {"labels": f"dog,{'cat ' * 49}"}},
        {"url": "/classify", "files": {"image": bytes(21_000_000)}, "data": {"labels": "a,b"}},
    ]
    for request in requests:
        on_ray, on_one = live.client.post(**request), single.post(**request)
        assert on_ray.status_code == on_one.status_code, on_ray.text
        assert _comparable(on_ray.json()) == _comparable(on_one.json())
        for name in ("content-type", "x-content-type-options"):
            assert on_ray.headers[name] == on_one.headers[name]
        # Ray's proxy gives one, and so do we
        assert len(on_ray.headers.get_list("x-request-id", split_commas=True)) == 1


def _comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _comparable(v) for k, v in value.items() if k not in ("request_id", "instance")}
    if isinstance(value, list):
        return [_comparable(v) for v in value]
    return pytest.approx(value, abs=TOLERANCE) if isinstance(value, float) else value


def test_the_ingresses_share_label_sets_and_hold_no_model(
    live: Live, samples: dict[str, Path]
) -> None:
    body = {"name": "pets", "labels": ["cat", "dog"]}
    assert live.client.post("/labelsets?wait=true", json=body).status_code == httpx.codes.CREATED
    image = samples["cat"].read_bytes()

    def best(_: int) -> str:
        with httpx.Client(base_url=live.cluster.url, timeout=PATIENCE) as client:
            answer = client.post("/classify?labelset=pets", content=image)
            return str(answer.raise_for_status().json()["predictions"][0]["label"])

    with ThreadPoolExecutor(CLIENTS) as pool:
        assert set(pool.map(best, range(32))) == {"cat"}
    ingresses = live.cluster.replicas("Ingress")
    assert len(ingresses) == REPLICAS["Ingress"]
    assert not any(_holds_openvino(pid) for pid in ingresses)
    assert all(_holds_openvino(pid) for pid in live.cluster.replicas("Encoder"))


def _holds_openvino(pid: int) -> bool:
    return "libopenvino" in Path(f"/proc/{pid}/maps").read_text()


def test_one_page_of_metrics_has_what_all_replicas_count(
    live: Live, samples: dict[str, Path]
) -> None:
    picture, more = samples["cat"].read_bytes(), 20

    def requests() -> float:
        return sum(s.value for s in _samples(live, "openvocab_requests_total")
                   if s.labels["route"] == "/classify")  # fmt: skip

    def pictures() -> dict[str, float]:
        counts: dict[str, float] = {}
        for sample in _samples(live, "openvocab_batch_size_sum"):
            if sample.labels["kind"] == "image":
                name = sample.labels["deployment"]
                counts[name] = counts.get(name, 0) + sample.value
        return counts

    before, encoded = requests(), pictures()
    for _ in range(more):
        # a connection of its own, so that it may come to either Ingress
        url = f"{live.cluster.url}/classify?labels=cat,dog"
        assert httpx.post(url, content=picture, timeout=PATIENCE).is_success
    # each is counted just after it was answered
    wait_until(lambda: requests() == before + more)
    # counted where they are encoded, and the canary's beside them
    assert pictures().keys() == {"Encoder"}
    wait_until(lambda: pictures()["Encoder"] >= encoded["Encoder"] + more)
    serving = _samples(live, "process_resident_memory_bytes")
    replicas = {(s.labels["deployment"], s.labels["replica"]) for s in serving}
    assert sorted(name for name, _ in replicas) == ["Encoder", "Encoder", "Ingress", "Ingress"]


def _samples(live: Live, name: str) -> list[Any]:
    text = live.client.get("/metrics").raise_for_status().text
    families = text_string_to_metric_families(text)
    return [sample for family in families for sample in family.samples if sample.name == name]


def test_an_encoder_killed_under_load_loses_no_request(
    live: Live, samples: dict[str, Path]
) -> None:
    before = live.cluster.replicas("Encoder")
    with Load([live.cluster.url], samples["cat"].read_bytes(), fresh=True) as load:
        wait_until(lambda: load.right > CLIENTS, LONGEST)
        os.kill(before[0], signal.SIGKILL)
        killed_at = load.right
        wait_until(lambda: load.right > killed_at + 2 * CLIENTS, LONGEST)
    assert load.wrong == []
    # Ray starts another one
    wait_until(lambda: len(set(live.cluster.replicas("Encoder")) - set(before)) == 1, LONGEST)
    live.cluster.wait()


@pytest.fixture(scope="module")
def further(other_model: str) -> dict[str, str]:
    """Settings of a second model."""
    # in fp32, as in other tests, which share its export
    return {"more_models": other_model, "model_aliases": f"mine={other_model}", "precision": "fp32"}


def test_a_new_setting_is_deployed_under_load_and_loses_no_request(
    live: Live, samples: dict[str, Path], further: dict[str, str]
) -> None:
    before = {name: set(live.cluster.replicas(name)) for name in REPLICAS}

    def all_new() -> bool:
        return all(
            len(now) == count and not now & before[name]
            for name, count in REPLICAS.items()
            for now in [set(live.cluster.replicas(name))]
        )

    with Load([live.cluster.url], samples["cat"].read_bytes(), PAUSE_SECONDS) as load:
        wait_until(lambda: load.right > CLIENTS, LONGEST)
        # and for the test of several models, as each deployment starts all replicas anew
        live.deploy(max_labels=LABELS + 1, hang_timeout=200, **further)
        wait_until(all_new, LONGEST)
        live.cluster.wait()
    assert load.wrong == []
    with contextlib.closing(httpx.Client(base_url=live.cluster.url, timeout=PATIENCE)) as client:
        wait_for(client)
        fields = {"labels": ",".join(f"thing {n}" for n in range(LABELS + 2))}
        answers = [
            client.post("/classify", files={"image": samples["cat"].read_bytes()}, data=fields)
            for _ in range(8)
        ]
    assert {answer.status_code for answer in answers} == {413}


def test_what_suits_no_cluster_is_refused() -> None:
    program = (
        "from app.server.ray_serve import Unfit, build\n"
        "for args in ({'store_url': 'memory://'}, {'model_idle': '60'}):\n"
        "    try:\n"
        "        build(args)\n"
        "    except Unfit as unfit:\n"
        "        print(unfit)\n"
    )
    command = [sys.executable, "-c", program]
    completed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    store, idle = completed.stdout.splitlines()
    assert store.startswith("OPENVOCAB_STORE_URL: ")  # replicas cannot share it
    assert "min_replicas: 0" in idle  # models that come and go are left to Ray


def test_each_model_has_encoders_of_its_own_behind_one_address(
    live: Live, samples: dict[str, Path], other_model: str, further: dict[str, str]
) -> None:
    live.deploy(**further)
    picture = {"image": samples["cat"].read_bytes()}

    def ask(**fields: str) -> httpx.Response:
        # a connection of its own: replicas that are replaced take theirs with them
        with httpx.Client(base_url=live.cluster.url, timeout=PATIENCE) as client:
            data = {"labels": "cat,dog", "templates": "pictogram", **fields}
            return client.post("/classify", files=picture, data=data)

    wait_until(lambda: ask(model="mine").is_success, LONGEST)
    live.cluster.wait()
    answers = [ask(**fields).json() for fields in ({}, {"model": other_model}, {"model": "mine"})]
    assert [answer["model"] for answer in answers] == ["pictogram", other_model, other_model]
    scores = [[p["score"] for p in answer["predictions"]] for answer in answers]
    # its towers are those of the first, both turned alike
    assert scores[1] == scores[2] == pytest.approx(scores[0], abs=1e-5)
    names = set(live.cluster.status()["deployments"])
    assert names > {"Ingress", "Encoder"}
    (name,) = names - {"Ingress", "Encoder"}
    assert name.startswith("Encoder-local-dir-")
    assert len(live.cluster.replicas(name)) == 1
    unknown = ask(model="nobody")
    assert (unknown.status_code, unknown.json()["field"]) == (404, "model")


def test_a_node_killed_under_load_loses_only_what_its_ingress_worked_on(
    live: Live, samples: dict[str, Path]
) -> None:
    assert live.client.get("/labelsets/pets").json()["labels"] == ["cat", "dog"]
    pids = {pid for name in REPLICAS for pid in live.cluster.replicas(name, node=1)}
    assert pids
    with Load([live.cluster.url], samples["cat"].read_bytes(), PAUSE_SECONDS) as load:
        wait_until(lambda: load.right > CLIENTS, LONGEST)
        live.cluster.kill_node(1)
        noticed = time.monotonic() + NOTICE_SECONDS
        after = load.right
        wait_until(lambda: load.right > after + 4 * CLIENTS, LONGEST)
        # Ray starts the replicas of that node on the other one
        wait_until(
            lambda: all(
                len(live.cluster.replicas(name, node=0)) == count
                for name, count in REPLICAS.items()
            ),
            LONGEST,
        )
    assert [f for f in load.wrong if f.answered or f.start > noticed] == []
    assert live.client.get("/labelsets/pets").json()["labels"] == ["cat", "dog"]
