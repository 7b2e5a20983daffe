"""What one namespace can learn of another's pictures and labels: nothing."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.middleware.keys import digest
from models.encoder import Encoder
from tests.conftest import alike

Serve = Callable[..., AbstractContextManager[httpx.Client]]
KEYS = {
    "alice": ('["classify", "labelsets:write"]', 'namespace = "a"'),
    "anna": ('["classify", "labelsets:write"]', 'namespace = "a"'),
    "carol": ('["classify", "labelsets:write"]', 'namespace = "c"'),
    "root": ('["admin"]', ""),
}


@pytest.fixture(scope="module")
def tenants(
    pictogram: Encoder, serve: Serve, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A server with keys of two namespaces, whose caches are on and behind them a store."""
    folder = tmp_path_factory.mktemp("tenants")
    lines = [
        f'[keys.{name}]\nsha256 = "{digest(name)}"\nscopes = {scopes}\n{more}\n'
        for name, (scopes, more) in KEYS.items()
    ]
    (folder / "keys.toml").write_text("\n".join(lines))
    with serve(
        pictogram,
        api_keys_file=folder / "keys.toml",
        image_cache_bytes=1_000_000,
        store_url="",
        data_dir=folder,
    ) as client:
        yield client


def of(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


def classify(client: httpx.Client, name: str, picture: Path, labels: str) -> dict[str, Any]:
    response = client.post(
        "/classify",
        params={"labels": labels},
        content=picture.read_bytes(),
        headers={**of(name), "Content-Type": "image/png"},
    )
    assert response.status_code == 200, response.text
    answer = response.json()
    return {
        "labels": answer["cached"],
        "image": answer["image"]["cached"],
        "stages": {part.split(";")[0] for part in response.headers["server-timing"].split(", ")},
        "predictions": answer["predictions"],
    }


def test_pictures_and_labels_are_known_to_their_own_namespace_alone(
    tenants: httpx.Client, samples: dict[str, Path]
) -> None:
    octopus, secret = samples["octopus"], "project nightingale,dog"
    first = classify(tenants, "alice", octopus, secret)
    assert (first["labels"], first["image"]) == (0, False)
    neighbour = classify(tenants, "carol", octopus, secret)
    assert (neighbour["labels"], neighbour["image"]) == (0, False)
    assert neighbour["stages"] == first["stages"]
    # the vectors are the same, also those of another key of the namespace
    assert neighbour["predictions"] == alike(first["predictions"])
    again = classify(tenants, "anna", octopus, secret)
    assert (again["labels"], again["image"]) == (2, True)
    assert again["stages"] < first["stages"]


def test_a_digest_stands_for_a_picture_in_the_namespace_alone_that_sent_it(
    tenants: httpx.Client, samples: dict[str, Path]
) -> None:
    picture = samples["guitar"].read_bytes()
    fields = {"labels": "guitar,dog", "image_sha256": hashlib.sha256(picture).hexdigest()}
    classify(tenants, "alice", samples["guitar"], "guitar,dog")
    answers = {name: tenants.post("/classify", json=fields, headers=of(name)) for name in KEYS}
    statuses = {name: answer.status_code for name, answer in answers.items()}
    assert statuses == {"alice": 200, "anna": 200, "carol": 404, "root": 404}
    assert answers["carol"].json()["error_type"] == "image_unknown"


def test_embeddings_are_known_to_their_own_namespace_alone(
    tenants: httpx.Client, samples: dict[str, Path]
) -> None:
    def texts(name: str) -> int:
        body = {"texts": ["a merger", "another"]}
        cached: int = tenants.post("/embeddings/text", json=body, headers=of(name)).json()["cached"]
        return cached

    def image(name: str) -> int:
        file = {"image": samples["rocket"].read_bytes()}
        response = tenants.post("/embeddings/image", files=file, headers=of(name))
        cached: int = response.json()["cached"]
        return cached

    for cached, every in ((texts, 2), (image, 1)):
        assert [cached(name) for name in ("alice", "carol", "alice", "carol")] == [
            0,
            0,
            every,
            every,
        ]


def test_label_sets_of_one_namespace_build_nothing_for_another(tenants: httpx.Client) -> None:
    body = {"labels": ["orchid", "tulip"], "templates": "none"}
    built: list[int] = []
    for name in ("alice", "carol"):
        before = tenants.get("/models", headers=of("root")).json()["vector_cache"]["entries"]
        response = tenants.put("/labelsets/flowers?wait=true", json=body, headers=of(name))
        assert response.json()["status"] == "ready"
        after = tenants.get("/models", headers=of("root")).json()["vector_cache"]["entries"]
        built.append(after - before)
    assert built == [2, 2]


def test_figures_of_caches_are_for_keys_with_the_scope_admin(tenants: httpx.Client) -> None:
    answer = tenants.get("/models", headers=of("carol")).json()
    assert [answer[name] for name in ("vector_cache", "image_cache", "labelset_cache")] == [
        None
    ] * 3
    assert (answer["store"]["hits"], answer["store"]["misses"]) == (None, None)
    assert answer["loaded"]["name"] == "pictogram"
    text = json.dumps(tenants.get("/models", headers=of("root")).json())
    assert "null" not in text.partition('"vector_cache"')[2]
