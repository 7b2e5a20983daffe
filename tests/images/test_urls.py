"""Images by their URL, as every route that takes them fetches them from a real HTTP server."""

import functools
import http.server
import ipaddress
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app.images.fetch import Fetcher, FetchPolicy
from app.images.urls import AllowedHost
from app.server import build
from models.encoder import Encoder

PARAMETERS = {"candidate_labels": ["cat", "dog"]}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def site(samples: dict[str, Path]) -> Iterator[str]:
    """The sample pictures at a URL."""
    handler = functools.partial(Quiet, directory=samples["cat"].parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def fetching(pictogram: Encoder, serve: Callable[..., Any], site: str) -> Iterator[httpx.Client]:
    """A server that may reach the site, though 127.0.0.1 is not public."""
    port = int(site.rpartition(":")[2])
    policy = FetchPolicy(
        max_bytes=1_000_000,
        hosts=(AllowedHost("127.0.0.1", port),),
        also=(ipaddress.ip_network("127.0.0.1/32"),),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_fetcher", lambda *_: Fetcher(policy))
        with serve(pictogram, image_urls=True) as client:
            yield client


def test_each_route_fetches_the_image(
    fetching: httpx.Client, site: str, samples: dict[str, Path]
) -> None:
    url = f"{site}/cat.png"
    classified = fetching.post("/classify", json={"labels": ["cat", "dog"], "image_url": url})
    assert classified.json()["predictions"][0]["label"] == "cat"
    assert "fetch;dur=" in classified.headers["Server-Timing"]
    for inputs in (url, {"image": url}):
        answer = fetching.post(
            "/hf/zero-shot-image-classification", json={"inputs": inputs, "parameters": PARAMETERS}
        )
        assert [prediction["label"] for prediction in answer.json()] == ["cat", "dog"]

    file = fetching.post("/embeddings/image", content=samples["cat"].read_bytes()).json()
    bodies: tuple[dict[str, Any], ...] = (
        {"input": url, "modality": "image"},
        {"input": [{"image": url}]},
        {"input": [{"type": "image_url", "image_url": {"url": url}}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]},
    )
    for body in bodies:
        answer = fetching.post("/v1/embeddings", json=body)
        assert answer.status_code == 200, answer.text
        np.testing.assert_allclose(
            answer.json()["data"][0]["embedding"], file["embeddings"][0], atol=1e-6
        )


def test_a_url_that_nothing_calls_an_image_is_a_text(fetching: httpx.Client, site: str) -> None:
    url = f"{site}/cat.png"
    text = fetching.post("/embeddings/text", json={"texts": [url]}).json()["embeddings"][0]
    answer = fetching.post("/v1/embeddings", json={"input": url}).json()
    np.testing.assert_allclose(answer["data"][0]["embedding"], text, atol=1e-6)


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/none.png", 502, "answered with status 404"),
        ("/ATTRIBUTION.md", 415, "answers 'text/markdown'"),
        ("@inside/cat.png", 422, "not among those allowed here"),
    ],
)
def test_what_cannot_be_fetched_is_told_in_each_routes_own_words(
    fetching: httpx.Client, site: str, path: str, status: int, message: str
) -> None:
    url = site + path if path.startswith("/") else f"http://{path[1:]}"
    hf = fetching.post(
        "/hf/zero-shot-image-classification", json={"inputs": url, "parameters": PARAMETERS}
    )
    assert (hf.status_code, hf.json()["field"]) == (status, "inputs")
    assert message in hf.json()["error"]
    ai = fetching.post("/v1/embeddings", json={"input": ["a cat", {"image": url}]})
    error = ai.json()["error"]
    assert (ai.status_code, error["param"]) == (status, "input")
    assert error["message"].startswith("input[1]: ")
    assert message in error["message"]
