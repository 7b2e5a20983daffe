"""What clients of HTTP expect of every address: HEAD, and slashes at the end."""

import http.client
from urllib.parse import urlsplit

import httpx
import pytest


@pytest.mark.parametrize(
    "path",
    ["/", "/page/playground.js", "/openapi.json", "/healthz", "/readyz", "/metrics", "/models",
     "/templates", "/labelsets", "/labelsets/unknown", "/v1/models", "/nothing"],
)  # fmt: skip
def test_head_is_answered_as_get_without_a_body(client: httpx.Client, path: str) -> None:
    varying = {"x-request-id", "date", "server-timing", "content-length"}
    get, head = client.get(path), client.head(path)
    assert head.status_code == get.status_code
    assert head.content == b""
    assert set(head.headers) == set(get.headers)
    for name in set(get.headers) - varying:
        assert head.headers[name] == get.headers[name]
    if path not in ("/metrics", "/models"):  # these count
        length = int(get.headers["content-length"])
        assert abs(int(head.headers["content-length"]) - length) <= 2


def test_a_connection_goes_on_after_head(client: httpx.Client) -> None:
    url = urlsplit(str(client.base_url))
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=60)
    for method in ("HEAD", "GET", "HEAD", "GET"):
        connection.request(method, "/templates")
        response = connection.getresponse()
        assert response.status == 200
        assert (response.read() == b"") == (method == "HEAD")
    connection.close()


def test_head_is_no_method_of_its_own_in_the_document(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert not any("head" in methods for methods in paths.values())


def test_a_method_that_is_not_taken_names_head_with_get(client: httpx.Client) -> None:
    response = client.delete("/models")
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD"
    assert client.head("/classify").status_code == 405


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("GET", "/models/", "/models"),
        ("POST", "/classify/", "/classify"),
        ("POST", "/classify//", "/classify"),
        ("PUT", "/labelsets/pets/", "/labelsets/pets"),
        ("GET", "/labelsets/a%3Fb/", "/labelsets/a%3Fb"),
        ("GET", "/labelsets/pets/calibration/", "/labelsets/pets/calibration"),
        ("GET", "/v1/models/", "/v1/models"),
        ("GET", "/v1/models/pictogram/", "/v1/models/pictogram"),
    ],
)
def test_an_address_with_a_slash_at_its_end_names_the_right_one(
    client: httpx.Client, method: str, path: str, route: str
) -> None:
    response = client.request(method, path)
    assert response.status_code == 404
    answer = response.json()
    detail = answer["error"]["message"] if path.startswith("/v1/") else answer["detail"]
    assert detail.endswith(f"remove the slash at the end: {route}")
    assert "location" not in response.headers


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("POST", "/embeddings", "/v1/embeddings"),
        ("POST", "/v1/v1/embeddings", "/v1/embeddings"),
        ("POST", "/v1/classify", "/classify"),
        ("POST", "//v1/embeddings", "/v1/embeddings"),
        ("GET", "/labelsets//pets/", "/labelsets/pets"),
        ("GET", "/labelsets//a%3Fb", "/labelsets/a%3Fb"),
    ],
)
def test_an_address_with_slashes_or_v1_too_many_or_too_few_names_the_right_one(
    client: httpx.Client, method: str, path: str, route: str
) -> None:
    response = client.request(method, str(client.base_url).rstrip("/") + path)
    answer = response.json()
    detail = answer["error"]["message"] if "v1" in path + route else answer["detail"]
    assert (response.status_code, detail) == (404, f"{path} not found; did you mean {route}?")


@pytest.mark.parametrize("path", ["/nothing/", "//example.com/", "/%2f%2fexample.com//"])
def test_where_nothing_is_without_the_slash_no_address_is_named(
    client: httpx.Client, path: str
) -> None:
    response = client.get(str(client.base_url).rstrip("/") + path)
    assert response.status_code == 404
    detail = response.json()["detail"]
    assert detail.endswith(
        "not found; GET /openapi.json lists all paths, /page/reference.html explains them"
    )
    for named in ("/openapi.json", "/page/reference.html"):
        assert client.get(named).status_code == 200


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/labelsets", "POST, GET, HEAD"),
        ("/labelsets/pets", "GET, HEAD, PUT, DELETE"),
        ("/labelsets/pets/calibration", "GET, HEAD, PUT, DELETE"),
        ("/labelsets/pets/examples", "POST, GET, HEAD, DELETE"),
        ("/labelsets/pets/examples/1", "GET, HEAD, DELETE"),
    ],
)
def test_a_method_that_is_not_taken_names_all_that_are(
    client: httpx.Client, path: str, methods: str
) -> None:
    response = client.patch(path)
    assert response.status_code == 405
    assert set(response.headers["allow"].split(", ")) == set(methods.split(", "))
    named = response.json()["detail"].partition(" does not support PATCH, but ")[2]
    assert set(named.split(", ")) == set(methods.split(", "))
