"""A running server while its Redis is broken in every way: it classifies, and it heals."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.reliability.faults.asking import look, names, put, status
from benchmarks.reliability.faults.redis import FAULTS, Fault, Rig, full, replica
from benchmarks.servers import openvocab, wait_until
from tests.conftest import alike

PETS = ["cat", "dog", "rocket"]
# of the store: a busy machine is no fault; how long answers take is measured elsewhere
TIMEOUT = 2.0


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A Redis server that may be treated badly."""
    rig = Rig(tmp_path_factory.mktemp("redis"))
    yield rig
    rig.close()


@pytest.fixture(scope="module")
def server(rig: Rig, module_data_dir: Path) -> Iterator[httpx.Client]:
    """A client of a server on it; no fault needs another one."""
    with openvocab(rig.url, module_data_dir, store_timeout=TIMEOUT, rate_limit=1000) as server:
        yield server.client


@pytest.fixture
def client(server: httpx.Client) -> Iterator[httpx.Client]:
    """The same client, once all is well, with the label set that it knows."""
    wait_until(lambda: status(server) == "ready")
    put(server, "pets", PETS, wait=True)
    yield server
    for name in names(server):
        if name != "pets":
            server.delete(f"/labelsets/{name}")


def writes(client: httpx.Client, name: str) -> list[httpx.Response]:
    """A new name in two ways, and a change of a known one."""
    return [
        put(client, name, ["a", "b"]),
        put(client, "pets", ["cat", "a bird"]),
        client.post("/labelsets", json={"name": name, "labels": ["a", "b"]}),
    ]


# an answer that is just in time on a quiet machine is late on a busy one
@pytest.mark.parametrize("name", [name for name in FAULTS if name != "sluggish"])
def test_it_classifies_refuses_writes_says_so_and_heals(
    name: str, rig: Rig, client: httpx.Client, samples: dict[str, Path]
) -> None:
    fault: Fault = FAULTS[name]
    new = f"new-{name.replace(' ', '-')}"
    put(client, "other", ["x", "y"], wait=True)
    before = look(client, samples["cat"])
    version = client.get("/labelsets/pets").headers["etag"]
    with fault.happening(rig):
        assert look(client, samples["cat"]) == alike(before)
        if fault.leaves == "everything":
            assert put(client, new, ["a", "b"], wait=True).status_code == 201
            assert client.delete(f"/labelsets/{new}").status_code == 204
            wait_until(lambda: status(client) == "ready")
        else:
            refusals = writes(client, new)
            if name != "full":  # to delete is to make room
                refusals.append(client.delete("/labelsets/pets"))
            for refused in refusals:
                assert refused.status_code == 503, refused.text
                assert refused.json()["error_type"] == "store_unavailable"
                assert int(refused.headers["retry-after"]) >= 1
            assert status(client) == "degraded"
        if fault.leaves == "reads":
            # a refused write lets idle connections go, and the next call makes them anew
            wait_until(lambda: client.get("/labelsets").status_code == 200)
            assert names(client) == ["other", "pets"]
        assert look(client, samples["cat"]) == alike(before)
    # nothing but time heals it
    wait_until(lambda: status(client) == "ready")
    assert names(client) == ["other", "pets"]
    assert client.get(f"/labelsets/{new}").status_code == 404
    assert client.get("/labelsets/pets").headers["etag"] == version
    assert look(client, samples["cat"]) == alike(before)
    assert put(client, "pets", ["cat", "a fish", *PETS[1:]]).is_success
    assert client.delete("/labelsets/other").status_code == 204


def test_where_it_is_full_room_is_made_by_deleting_also_while_other_writes_are_refused(
    rig: Rig, client: httpx.Client
) -> None:
    put(client, "other", ["x", "y"], wait=True)
    with full(rig):
        assert put(client, "new", ["a", "b"]).status_code == 503
        assert put(client, "new", ["a", "b"]).status_code == 503
        assert client.delete("/labelsets/other").status_code == 204
        assert names(client) == ["pets"]
        assert status(client) == "degraded"


@pytest.mark.parametrize("lost", ["names", "recent", "names recent"])
def test_label_sets_that_are_known_are_listed_again_where_the_lists_of_names_are_lost(
    lost: str, rig: Rig, client: httpx.Client
) -> None:
    put(client, "other", ["x", "y"], wait=True)
    with rig.direct() as direct:
        direct.delete(*(f"openvocab:{which}" for which in lost.split()))
    assert names(client) == ["other", "pets"]


@pytest.mark.parametrize("fault", [full, replica])
def test_a_server_that_starts_on_a_redis_without_writes_serves_what_is_there(
    fault: Callable[[Rig], Any],
    rig: Rig,
    client: httpx.Client,
    samples: dict[str, Path],
    serve: Any,
    pictogram: Any,
) -> None:
    expected = look(client, samples["cat"])
    with fault(rig), serve(pictogram, store_url=rig.url, store_timeout=TIMEOUT) as second:
        assert status(second) == "degraded"
        assert look(second, samples["cat"]) == alike(expected)
        assert names(second) == ["pets"]
        assert put(second, "new", ["a", "b"]).status_code == 503


def test_definitions_survive_where_everything_else_is_evicted(
    rig: Rig, client: httpx.Client, samples: dict[str, Path]
) -> None:
    for number in range(20):
        put(client, f"set-{number:02}", [f"a{number}", f"b{number}"], wait=True)
    with rig.direct() as direct:
        vectors = len(direct.keys("openvocab:vector:*"))
        assert vectors >= 40
        with FAULTS["evicting"].happening(rig):
            room = direct.info("memory")["used_memory"] - 2_000_000
            direct.config_set("maxmemory", room)  # more than all vectors
            look(client, samples["cat"])
            assert len(direct.keys("openvocab:vector:*")) < vectors
    assert names(client) == ["pets", *(f"set-{number:02}" for number in range(20))]
