"""What crosses processes: two servers on one store, restarts, kills, and a store that goes away."""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from app.server.build import EXPORTS
from benchmarks import servers
from benchmarks.reliability.crash import kill_and_look
from benchmarks.servers import redis_server, wait_until
from tests.conftest import alike

# what Redis does at once it does later on a busy machine
STORE_TIMEOUT = 10
KILLS = 3  # `python -m benchmarks.reliability.crash` does a hundred


openvocab = partial(servers.openvocab, store_timeout=STORE_TIMEOUT)


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, module_data_dir: Path) -> Iterator[tuple[str, str, Path]]:
    """Kind, URL and folder of a store."""
    folder = module_data_dir
    if request.param == "sqlite":
        yield "sqlite", "", folder
        return
    with redis_server(folder) as url:
        yield "redis", url, folder


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def two(
    request: pytest.FixtureRequest, exports: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[httpx.Client, httpx.Client, str]]:
    """Clients of two servers on a store of their own, and its URL."""
    folder = tmp_path_factory.mktemp("two")
    (folder / EXPORTS).symlink_to(exports)
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(redis_server(folder)) if request.param == "redis" else ""
        one, other = (stack.enter_context(openvocab(url, folder)).client for _ in range(2))
        yield one, other, url


on_redis = pytest.mark.parametrize("two", ["redis"], indirect=True, scope="module")


def classify(client: httpx.Client, picture: Path, **fields: str) -> httpx.Response:
    return client.post("/classify", files={"image": picture.read_bytes()}, data=fields)


def test_two_servers_see_each_others_changes_on_the_next_request(
    two: tuple[httpx.Client, httpx.Client, str], samples: dict[str, Path]
) -> None:
    one, other, _ = two
    labels = {"labels": ["cat", "dog"]}
    before = other.get("/models").json()["store"]["hits"]
    first = one.put("/labelsets/shared", json=labels, params={"wait": True})
    assert first.status_code == 201
    version = first.json()["version"]
    answer = classify(other, samples["cat"], labelset="shared").json()
    assert (answer["predictions"][0]["label"], answer["labelset_version"]) == ("cat", version)
    # the vectors came through the store
    assert other.get("/models").json()["store"]["hits"] >= before + 2

    replaced = other.put(
        "/labelsets/shared", json={"labels": ["rocket", "pizza"]}, params={"wait": True}
    )
    version = replaced.json()["version"]
    answer = classify(one, samples["rocket"], labelset="shared").json()
    assert (answer["predictions"][0]["label"], answer["labelset_version"]) == ("rocket", version)

    etag = first.headers["etag"]
    stale = one.put("/labelsets/shared", json=labels, headers={"If-Match": etag})
    assert stale.status_code == 412
    assert one.delete("/labelsets/shared").status_code == 204
    assert classify(other, samples["cat"], labelset="shared").status_code == 404


def test_stopped_and_started_everything_is_still_there(
    store: tuple[str, str, Path], samples: dict[str, Path]
) -> None:
    _, url, folder = store
    with openvocab(url, folder) as server:
        server.client.put(
            "/labelsets/kept", json={"labels": {"cat": ["cat", "kitten"], "dog": []}},
            params={"wait": True},
        )  # fmt: skip
        before = classify(server.client, samples["cat"], labelset="kept").json()
    with openvocab(url, folder) as server:
        wait_until(lambda: server.client.get("/labelsets/kept").json()["status"] == "ready")
        after = classify(server.client, samples["cat"], labelset="kept").json()
        answer = server.client.get("/models").json()
    assert after["predictions"] == alike(before["predictions"])
    # nothing was encoded again: both vectors came from the store
    assert answer["store"]["hits"] >= 2


def test_a_kill_loses_no_acknowledged_label_set(store: tuple[str, str, Path]) -> None:
    kind, url, folder = store
    result = kill_and_look(KILLS, kind, url, folder, seed=1)
    assert result.changes > 0
    assert (result.lost, result.wrong, result.not_built) == (0, 0, 0)


def test_without_redis_known_label_sets_go_on_and_it_heals(
    samples: dict[str, Path], data_dir: Path
) -> None:
    with contextlib.ExitStack() as stack:
        running = contextlib.ExitStack()
        url = running.enter_context(redis_server(data_dir))
        client = stack.enter_context(openvocab(url, data_dir)).client
        client.put("/labelsets/pets", json={"labels": ["cat", "dog"]}, params={"wait": True})
        running.close()  # Redis is gone

        assert classify(client, samples["cat"], labelset="pets").status_code == 200
        assert classify(client, samples["cat"], labels="cat,rocket").status_code == 200
        assert classify(client, samples["cat"], labelset="unheard-of").status_code == 503
        refused = client.put("/labelsets/pets", json={"labels": ["a", "b"]})
        assert refused.status_code == 503
        assert refused.json()["error_type"] == "store_unavailable"
        assert int(refused.headers["retry-after"]) >= 1
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")

        port = int(url.rpartition(":")[2].partition("/")[0])
        stack.enter_context(redis_server(data_dir, port))
        wait_until(lambda: client.get("/labelsets/pets").status_code == 200)
        wait_until(
            lambda: client.put("/labelsets/pets", json={"labels": ["cat", "bird"]}).is_success
        )
        wait_until(lambda: client.get("/readyz").json()["status"] == "ready")


@on_redis
def test_what_redis_lost_is_published_again_and_what_was_deleted_is_not(
    two: tuple[httpx.Client, httpx.Client, str], samples: dict[str, Path]
) -> None:
    import redis

    client, _, url = two
    for name in ("kept", "too", "gone"):
        client.put(f"/labelsets/{name}", json={"labels": ["cat", "dog"]}, params={"wait": True})
    client.delete("/labelsets/gone")
    etag = client.get("/labelsets/kept").headers["etag"]
    with redis.Redis.from_url(url) as direct:
        direct.flushall()
        assert classify(client, samples["cat"], labelset="kept").status_code == 200
        assert client.get("/labelsets/kept").headers["etag"] == etag
        direct.flushall()
        names = [labelset["name"] for labelset in client.get("/labelsets").json()["labelsets"]]
        assert {"kept", "too"} <= set(names)
        assert "gone" not in names
        direct.flushall()
        response = client.post("/labelsets", json={"name": "too", "labels": ["a", "b"]})
        assert response.status_code == 409
    assert client.get("/labelsets/gone").status_code == 404


@on_redis
def test_after_a_loss_two_servers_agree_again(
    two: tuple[httpx.Client, httpx.Client, str], samples: dict[str, Path]
) -> None:
    """One knows a set that the other, after the loss, has made anew under the same name."""
    import redis

    one, other, url = two
    one.put("/labelsets/p", json={"labels": ["cat", "dog"]}, params={"wait": True})
    with redis.Redis.from_url(url) as direct:
        direct.flushall()
    anew = other.post(
        "/labelsets", json={"name": "p", "labels": ["rocket", "key"]}, params={"wait": True}
    )
    assert anew.status_code == 201
    for client in (one, other):
        answer = classify(client, samples["rocket"], labelset="p").json()
        assert answer["predictions"][0]["label"] == "rocket"
        assert answer["labelset_version"] == anew.json()["version"]


def test_one_record_that_cannot_be_read_harms_only_itself(
    samples: dict[str, Path], data_dir: Path
) -> None:
    import sqlite3

    damages: dict[str, Callable[[bytes], bytes]] = {
        "bad": lambda body: b'{"format": 2}',
        "flipped": lambda body: body.replace(b'"dog"', b'"dof"'),  # a bit, in valid JSON
    }
    with openvocab("", data_dir) as server:
        for name in ("a", *damages, "z"):
            server.client.put(
                f"/labelsets/{name}", json={"labels": ["cat", "dog"]}, params={"wait": True}
            )
    with contextlib.closing(sqlite3.connect(data_dir / "openvocab.sqlite3")) as file:
        for name, damage in damages.items():
            (body,) = file.execute("SELECT body FROM labelsets WHERE name = ?", (name,)).fetchone()
            damaged = damage(body)
            assert damaged != body
            file.execute("UPDATE labelsets SET body = ? WHERE name = ?", (damaged, name))
        file.commit()
    with openvocab("", data_dir) as server:
        client = server.client

        def states() -> dict[str, str]:
            listed = client.get("/labelsets").json()["labelsets"]
            return {entry["name"]: entry["status"] for entry in listed}

        failed = dict.fromkeys(damages, "failed")
        wait_until(lambda: states() == {"a": "ready", **failed, "z": "ready"})
        for name in damages:
            url = f"/labelsets/{name}"
            refused = classify(client, samples["cat"], labelset=name)
            told = (refused.status_code, refused.json()["error_type"])
            assert told == (409, "unreadable_labelset"), name
            assert client.get(url).json()["status"] == "failed", name
            mended = client.put(url, json={"labels": ["x", "y"]}, params={"wait": True})
            assert mended.json()["status"] == "ready", name
            assert client.delete(url).status_code == 204, name


def test_a_server_starts_without_its_redis_and_says_so(
    samples: dict[str, Path], data_dir: Path
) -> None:
    with openvocab("redis://127.0.0.1:9/0", data_dir, store_timeout=60) as server:
        assert server.client.get("/readyz").json()["status"] == "degraded"
        start = time.monotonic()
        assert classify(server.client, samples["cat"], labels="cat,dog").status_code == 200
        assert time.monotonic() - start < 60  # it does not wait for the store


def test_after_a_change_of_model_stored_sets_are_embedded_anew(
    samples: dict[str, Path], other_model: str, data_dir: Path
) -> None:
    with openvocab("", data_dir) as server:
        for name in ("pets", "things"):
            server.client.put(
                f"/labelsets/{name}",
                json={"labels": ["cat", "dog"], "templates": "pictogram"},
                params={"wait": True},
            )
        before = classify(server.client, samples["cat"], labelset="pets").json()
    with openvocab("", data_dir, model=other_model, precision="fp32") as server:
        # nobody asks for them, and they get ready
        wait_until(
            lambda: (
                {
                    labelset["status"]
                    for labelset in server.client.get("/labelsets").json()["labelsets"]
                }
                == {"ready"}
            )
        )
        after = classify(server.client, samples["cat"], labelset="pets").json()
        assert server.client.get("/models").json()["store"]["hits"] == 0
    assert after["model"] != before["model"]
    # with the vectors of the first model every similarity would be another
    for new, old in zip(after["predictions"], before["predictions"], strict=True):
        assert new["label"] == old["label"]
        assert abs(new["similarity"] - old["similarity"]) < 1e-3
    with openvocab("", data_dir) as server:  # and back: the old vectors are still there
        wait_until(lambda: server.client.get("/models").json()["store"]["hits"] >= 2)
        again = classify(server.client, samples["cat"], labelset="pets").json()
        assert again["predictions"] == alike(before["predictions"])
