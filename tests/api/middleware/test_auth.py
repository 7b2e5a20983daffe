"""Who may come in: keys and scopes, rates, origins, hosts, and what every answer carries."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.middleware.keys import digest
from benchmarks.servers import wait_until
from models.encoder import Encoder

SECRETS = {name: f"ov_{name}" for name in ("reader", "writer", "root", "slow", "shop")}
SCOPES = {
    "reader": ["classify"],
    "writer": ["labelsets:write"],
    "root": ["admin"],
    "slow": ["classify"],
    "shop": ["classify", "labelsets:write"],
}
MORE = {
    "slow": "rate_limit = 0.5\nrate_burst = 2\n",
    "shop": 'namespace = "shop"\nmax_labelsets = 2\n',
}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys.toml"
    file.write_text(
        "".join(
            f'[keys.{name}]\nsha256 = "{digest(secret)}"\nscopes = {SCOPES[name]}\n'
            + MORE.get(name, "")
            for name, secret in SECRETS.items()
        )
    )
    return file


@pytest.fixture(scope="module")
def guarded(pictogram: Encoder, serve: Callable[..., Any], keys: Path) -> Iterator[httpx.Client]:
    with serve(pictogram, api_keys_file=keys, metrics="admin") as client:
        yield client


def by(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {SECRETS[name]}"}


def classify(client: httpx.Client, picture: Path, **headers: str) -> httpx.Response:
    return client.post(
        "/classify?labels=cat,dog", content=picture.read_bytes(),
        headers={"Content-Type": "image/png", **headers},
    )  # fmt: skip


def test_without_a_key_only_the_probes_answer(
    guarded: httpx.Client, samples: dict[str, Path]
) -> None:
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert guarded.get(path).status_code == 200
    for path in ("/models", "/templates", "/labelsets", "/metrics", "/nowhere"):
        assert guarded.get(path).status_code == 401
    for headers in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer ov_nobody"},
                    {"Authorization": f"Basic {SECRETS['root']}"}):  # fmt: skip
        refused = classify(guarded, samples["cat"], **headers)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert refused.json()["error_type"] == "unauthenticated"
        assert "ov_" not in refused.text


def test_a_scope_opens_what_it_names_and_nothing_else(
    guarded: httpx.Client, samples: dict[str, Path]
) -> None:
    def statuses(name: str) -> list[int]:
        headers = by(name)
        labels = {"labels": ["cat", "dog"]}
        return [
            classify(guarded, samples["cat"], **headers).status_code,
            guarded.get("/labelsets", headers=headers).status_code,
            guarded.put(
                f"/labelsets/of-{name}?wait=true", json=labels, headers=headers
            ).status_code,
            guarded.delete(f"/labelsets/of-{name}", headers=headers).status_code,
            guarded.get("/metrics", headers=headers).status_code,
            guarded.post("/nowhere", headers=headers).status_code,
        ]

    assert statuses("reader") == [200, 200, 403, 403, 403, 404]
    assert statuses("writer") == [403, 200, 201, 204, 403, 404]
    assert statuses("root") == [200, 200, 201, 204, 200, 404]
    refused = guarded.put("/labelsets/x", json={"labels": ["a"]}, headers=by("reader")).json()
    assert (refused["error_type"], refused["limit"]) == ("forbidden", "labelsets:write")


def test_a_refused_upload_can_read_its_answer(guarded: httpx.Client) -> None:
    refused = guarded.post("/classify?labels=a,b", content=b"x" * 15_000_000)
    assert refused.status_code == 401


def test_label_sets_of_a_namespace_are_its_own(
    guarded: httpx.Client, samples: dict[str, Path]
) -> None:
    labels = {"labels": ["rocket", "pizza"]}
    registered = guarded.put("/labelsets/mine?wait=true", json=labels, headers=by("shop"))
    assert registered.status_code == 201, registered.text
    assert (registered.json()["name"], registered.headers["location"]) == (
        "mine",
        "/labelsets/mine",
    )
    assert guarded.get("/labelsets/mine", headers=by("root")).status_code == 404
    listed = guarded.get("/labelsets", headers=by("shop")).json()["labelsets"]
    assert [entry["name"] for entry in listed] == ["mine"]
    assert "mine" not in guarded.get("/labelsets", headers=by("root")).text

    picture = samples["rocket"].read_bytes()
    response = guarded.post("/classify?labelset=mine", content=picture, headers=by("shop"))
    assert (response.json()["labelset"], response.json()["predictions"][0]["label"]) == (
        "mine",
        "rocket",
    )
    lost = guarded.post("/classify?labelset=mine", content=picture, headers=by("reader"))
    assert lost.status_code == 404
    assert "shop" not in lost.text

    assert guarded.put("/labelsets/two", json=labels, headers=by("shop")).status_code in (201, 202)
    full = guarded.put("/labelsets/three", json=labels, headers=by("shop"))
    assert (full.status_code, full.json()["limit"]) == (413, 2)
    for name in ("mine", "two"):
        assert guarded.delete(f"/labelsets/{name}", headers=by("shop")).status_code == 204


def test_a_key_over_its_rate_is_429_and_others_go_on(
    guarded: httpx.Client, samples: dict[str, Path]
) -> None:
    statuses = [classify(guarded, samples["cat"], **by("slow")).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    refused = classify(guarded, samples["cat"], **by("slow"))
    assert int(refused.headers["retry-after"]) >= 1
    assert (refused.json()["error_type"], refused.json()["limit"]) == ("too_many_requests", 0.5)
    assert classify(guarded, samples["cat"], **by("reader")).status_code == 200


def test_without_keys_an_address_has_the_rate(
    pictogram: Encoder, serve: Callable[..., Any], samples: dict[str, Path]
) -> None:
    with serve(pictogram, rate_limit=0.01, rate_burst=3) as client:
        statuses = [classify(client, samples["cat"]).status_code for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        # probes are not counted
        assert [client.get("/readyz").status_code for _ in range(5)] == [200] * 5


def test_a_page_of_another_origin_cannot_write_to_a_server_without_keys(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    own_origin = f"http://{client.base_url.netloc.decode()}"
    assert classify(client, samples["cat"], Origin=own_origin).status_code == 200
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        refused = classify(client, samples["cat"], Origin=origin)
        assert (refused.status_code, refused.json()["error_type"]) == (403, "cross_origin")
    assert client.get("/models", headers={"Origin": "https://evil.example"}).status_code == 200


def test_cross_origin_reading_is_closed_unless_listed(
    client: httpx.Client, pictogram: Encoder, serve: Callable[..., Any], samples: dict[str, Path]
) -> None:
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in client.options("/classify", headers=headers).headers
    with serve(pictogram, cors_origins="https://app.example, https://b.example") as listed:
        flight = listed.options("/classify", headers=headers)
        assert flight.headers["access-control-allow-origin"] == "https://app.example"
        # what OpenAI's client in a browser and a page that names its requests send
        more = {"Access-Control-Request-Headers": "authorization,x-stainless-os,x-request-id"}
        flight = listed.options("/v1/embeddings", headers=headers | more)
        assert flight.status_code == 200, flight.text
        assert "x-stainless-os" in flight.headers["access-control-allow-headers"]
        head = {"Access-Control-Request-Method": "HEAD"}
        assert listed.options("/labelsets", headers=headers | head).status_code == 200
        evil = {"Origin": "https://evil.example"}
        flight = listed.options("/v1/embeddings", headers=headers | more | evil)
        assert flight.status_code == 400
        answer = classify(listed, samples["cat"], Origin="https://app.example")
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        # also where the request was refused, or a page could not tell why
        refused = listed.post("/classify", content=b"", headers={"Origin": "https://app.example"})
        assert refused.status_code == 422
        assert refused.headers["access-control-allow-origin"] == "https://app.example"
        evil = classify(listed, samples["cat"], Origin="https://evil.example")
        assert evil.status_code == 403
        assert "access-control-allow-origin" not in evil.headers


def test_only_the_listed_hosts_are_answered(pictogram: Encoder, serve: Callable[..., Any]) -> None:
    with serve(pictogram, allowed_hosts="127.0.0.1,vision.example") as client:
        assert client.get("/models").status_code == 200
        assert client.get("/models", headers={"Host": "[::1"}).status_code == 421
        assert client.get("/models", headers={"Host": "vision.example"}).status_code == 200
        assert client.get("/models", headers={"Host": "rebound.example"}).status_code == 421


@pytest.mark.parametrize("listed", ["vision.example", "Vision.Example."])
def test_an_absolute_name_is_that_of_the_same_host(
    listed: str, pictogram: Encoder, serve: Callable[..., Any]
) -> None:
    with serve(pictogram, allowed_hosts=listed) as client:
        for host in ("vision.example", "vision.example.", "VISION.example.:8000"):
            assert client.get("/models", headers={"Host": host}).status_code == 200
        assert client.get("/models", headers={"Host": "."}).status_code == 421


def test_a_probe_may_name_any_host_and_a_reader_of_metrics_may_not(
    pictogram: Encoder, serve: Callable[..., Any]
) -> None:
    kubelet = {"Host": "10.1.2.3:8000"}
    with serve(pictogram, allowed_hosts="vision.example", metrics="open") as client:
        for path in ("/healthz", "/readyz", "/ping"):
            assert client.get(path, headers=kubelet).status_code == 200
        for path in ("/metrics", "/", "/openapi.json", "/nowhere"):
            assert client.get(path, headers=kubelet).status_code == 421


def test_logs_name_caller_and_request_and_never_the_key_or_the_labels(
    guarded: httpx.Client, samples: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    def lines_written() -> list[str]:
        # what the client of this test logs is its own affair
        own_records = [record for record in caplog.records if record.name.startswith("openvocab")]
        return [record.getMessage() for record in own_records]

    with caplog.at_level("DEBUG"):
        classify(guarded, samples["cat"], **by("reader"), **{"X-Request-ID": "id-of-mine"})
        classify(guarded, samples["cat"], Authorization="Bearer ov_mistyped")
        guarded.get("/a%0Ab", headers=by("root"))
        # a line is written after its answer
        wait_until(lambda: any("GET /a%0Ab" in line for line in lines_written()))
    lines = lines_written()
    assert any(
        line.startswith("reader POST /classify 200 ") and "id-of-mine" in line for line in lines
    )
    assert any("GET /a%0Ab 400" in line for line in lines)
    assert not [line for line in lines if "ov_" in line or "dog" in line or "\n" in line]


def test_every_answer_tells_browsers_to_trust_nothing_in_it(client: httpx.Client) -> None:
    for path in ("/healthz", "/nowhere", "/models"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


def test_without_a_word_of_the_operator_keys_close_metrics(
    pictogram: Encoder, serve: Callable[..., Any], keys: Path
) -> None:
    with serve(pictogram, api_keys_file=keys) as client:
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers=by("reader")).status_code == 403
        assert client.get("/metrics", headers=by("root")).status_code == 200
    with serve(pictogram, api_keys_file=keys, metrics="open") as client:
        assert client.get("/metrics").status_code == 200
    with serve(pictogram) as client:
        assert client.get("/metrics").status_code == 200


@pytest.mark.parametrize("name", ["open", "off"])
def test_metrics_are_for_whom_the_operator_says(
    pictogram: Encoder, serve: Callable[..., Any], name: str, samples: dict[str, Path]
) -> None:
    with serve(pictogram, metrics=name) as client:
        classify(client, samples["cat"])
        client.get("/nowhere")
        response = client.get("/metrics")
        assert response.status_code == (200 if name == "open" else 404)
        if name == "open":
            assert 'openvocab_requests_total{route="/classify",status="200"} 1.0' in response.text
            assert 'openvocab_problems_total{error_type="not_found"} 1.0' in response.text
            assert "openvocab_in_service 0.0" in response.text
            assert "openvocab_pending_bytes 0.0" in response.text
