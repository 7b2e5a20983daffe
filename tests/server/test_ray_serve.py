"""The service on a real Ray cluster of this machine: two ingresses, two encoders, one Redis."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.ray.cluster import Cluster, document, ray_cluster, wait_for
from benchmarks.servers import redis_server, wait_until
from models.encoder import Encoder
from tests.conftest import Serve

# the two add up a batch in different order
TOLERANCE = 1e-6
REPLICAS = {"Ingress": 2, "Encoder": 2}
CLIENTS = 8
# encoders that import torch on a busy machine take minutes
pytestmark = pytest.mark.timeout(900)

LABELS, SHOWN = 15, 5
# between two requests of a client, so that new replicas can start on the same cores
PAUSE_SECONDS = 0.3
SETTINGS = {"backend": "torch", "image_cache_bytes": 0}


class Live:
    """The deployed service: its cluster, a client, and what it was deployed with."""

    def __init__(self, cluster: Cluster, store_url: str) -> None:
        self.cluster = cluster
        self.client = httpx.Client(base_url=cluster.url, timeout=60)
        self._args = {**SETTINGS, "store_url": store_url}
        self.deploy()
        cluster.wait()

    def deploy(self, **args: object) -> None:
        """The shipped configuration with these settings; returns before it is in force."""
        self._args |= args
        self.cluster.deploy(document(self.cluster.port, REPLICAS, **self._args))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("ray")
    with redis_server(folder) as store_url, ray_cluster(folder) as cluster:
        found = Live(cluster, store_url)
        with found.client:
            yield found


@pytest.fixture(scope="module")
def single(plain_pictogram: Encoder, serve: Serve) -> Iterator[httpx.Client]:
    """The same service as one process."""
    with serve(plain_pictogram) as client:
        yield client


class Load:
    """Clients that classify all the time; what they were answered.

    With `fresh` labels each request keeps an encoder at work for a good part of a second.
    """

    def __init__(self, url: str, picture: bytes, pause: float = 0.0, fresh: bool = False) -> None:
        self._url = url
        self._pause = pause
        self._numbers = itertools.count() if fresh else itertools.repeat(0)
        self._picture = picture
        self._ended = threading.Event()
        self.wrong: list[str] = []
        self.right = 0

    def __enter__(self) -> "Load":
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._runs = [self._pool.submit(self._run) for _ in range(CLIENTS)]
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._pool.shutdown()
        for run in self._runs:
            run.result()

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._ended.is_set():
                self._ask(client)
                time.sleep(self._pause)

    def _ask(self, client: httpx.Client) -> None:
        number = next(self._numbers)
        labels = ",".join(["cat", *(f"thing {number} of {n}" for n in range(LABELS))])
        fields = {"labels": labels, "templates": "imagenet"}
        try:
            answer = client.post("/classify", files={"image": self._picture}, data=fields)
        except httpx.HTTPError as error:
            self.wrong.append(repr(error))
            return
        if answer.is_success and len(answer.json()["predictions"]) == SHOWN:
            self.right += 1
        else:
            self.wrong.append(f"{answer.status_code} {answer.text}")


def test_answers_are_those_of_a_single_process(
    live: Live, single: httpx.Client, samples: dict[str, Path]
) -> None:
    names = ",".join(samples)
    asked: list[dict[str, Any]] = [
        {"url": "/classify", "files": {"image": path.read_bytes()}, "data": {"labels": names}}
        for path in samples.values()
    ]
    cat = samples["cat"].read_bytes()
    files = {"image": cat}
    asked += [
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
    for request in asked:
        ours, theirs = live.client.post(**request), single.post(**request)
        assert ours.status_code == theirs.status_code, ours.text
        assert _comparable(ours.json()) == _comparable(theirs.json())
        for name in ("content-type", "x-content-type-options"):
            assert ours.headers[name] == theirs.headers[name]
        # Ray's proxy gives one, and so do we
        assert len(ours.headers.get_list("x-request-id", split_commas=True)) == 1


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
        with httpx.Client(base_url=live.cluster.url, timeout=60) as client:
            answer = client.post("/classify?labelset=pets", content=image)
            return str(answer.raise_for_status().json()["predictions"][0]["label"])

    with ThreadPoolExecutor(CLIENTS) as pool:
        assert set(pool.map(best, range(32))) == {"cat"}
    ingresses = live.cluster.replicas("Ingress")
    assert len(ingresses) == REPLICAS["Ingress"]
    assert not any(_holds_torch(pid) for pid in ingresses)
    assert all(_holds_torch(pid) for pid in live.cluster.replicas("Encoder"))


def _holds_torch(pid: int) -> bool:
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()


def test_an_encoder_killed_under_load_loses_no_request(
    live: Live, samples: dict[str, Path]
) -> None:
    before = live.cluster.replicas("Encoder")
    with Load(live.cluster.url, samples["cat"].read_bytes(), fresh=True) as load:
        wait_until(lambda: load.right > CLIENTS)
        os.kill(before[0], signal.SIGKILL)
        killed_at = load.right
        wait_until(lambda: load.right > killed_at + 2 * CLIENTS, 60)
    assert load.wrong == []
    # Ray starts another one
    wait_until(lambda: len(set(live.cluster.replicas("Encoder")) - set(before)) == 1, 60)
    live.cluster.wait()


def test_a_new_setting_is_deployed_under_load_and_loses_no_request(
    live: Live, samples: dict[str, Path]
) -> None:
    before = {name: set(live.cluster.replicas(name)) for name in REPLICAS}

    def all_new() -> bool:
        return all(
            len(now) == count and not now & before[name]
            for name, count in REPLICAS.items()
            for now in [set(live.cluster.replicas(name))]
        )

    with Load(live.cluster.url, samples["cat"].read_bytes(), PAUSE_SECONDS) as load:
        wait_until(lambda: load.right > CLIENTS)
        live.deploy(max_labels=LABELS + 1, hang_timeout=200)
        wait_until(all_new, 120)
        live.cluster.wait()
    assert load.wrong == []
    with contextlib.closing(httpx.Client(base_url=live.cluster.url, timeout=60)) as client:
        wait_for(client)
        fields = {"labels": ",".join(f"thing {n}" for n in range(LABELS + 2))}
        answers = [
            client.post("/classify", files={"image": samples["cat"].read_bytes()}, data=fields)
            for _ in range(8)
        ]
    assert {answer.status_code for answer in answers} == {413}


def test_a_store_that_replicas_cannot_share_is_refused() -> None:
    program = "from app.server.ray_serve import build; build({'store_url': 'memory://'})"
    command = [sys.executable, "-c", program]
    completed = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert completed.stderr.splitlines()[-1].startswith(
        "app.server.ray_serve.Unfit: OPENVOCAB_STORE_URL: "
    )


def test_each_model_has_encoders_of_its_own_behind_one_address(
    live: Live, samples: dict[str, Path], other_model: str
) -> None:
    live.deploy(more_models=other_model, model_aliases=f"mine={other_model}")
    picture = {"image": samples["cat"].read_bytes()}

    def ask(**fields: str) -> httpx.Response:
        # a connection of its own: replicas that are replaced take theirs with them
        with httpx.Client(base_url=live.cluster.url, timeout=120) as client:
            data = {"labels": "cat,dog", "templates": "pictogram", **fields}
            return client.post("/classify", files=picture, data=data)

    wait_until(lambda: ask(model="mine").is_success, 300)
    live.cluster.wait()
    answers = [ask(**fields).json() for fields in ({}, {"model": other_model}, {"model": "mine"})]
    assert [answer["model"] for answer in answers] == ["pictogram", other_model, other_model]
    scores = [[p["score"] for p in answer["predictions"]] for answer in answers]
    # its towers are those of the first, both turned alike, and it may run in bf16
    assert scores[1] == scores[2] == pytest.approx(scores[0], abs=0.05)
    names = set(live.cluster.status()["deployments"])
    assert names > {"Ingress", "Encoder"}
    (further,) = names - {"Ingress", "Encoder"}
    assert further.startswith("Encoder-local-dir-")
    assert len(live.cluster.replicas(further)) == 1
    unknown = ask(model="nobody")
    assert (unknown.status_code, unknown.json()["field"]) == (404, "model")


def test_models_that_come_and_go_are_left_to_ray() -> None:
    program = "from app.server.ray_serve import build; build({'model_idle': '60'})"
    command = [sys.executable, "-c", program]
    completed = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert "min_replicas: 0" in completed.stderr.splitlines()[-1]
