"""The table of routes: complete, and nobody gets past it by spelling an address in another way."""

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter

from app.api.middleware import ROUTES, Body, RouteTable
from app.api.middleware.keys import digest
from app.server.main import create_app
from app.server.settings import Settings
from models.encoder import Encoder

KEYS = {"reader": ["classify"], "writer": ["labelsets:write"], "root": ["admin"]}

# what stands for the parts of an address; the label set and its example exist
PARTS = {"{name}": "mine", "{name:path}": "api.js", "{id}": "0" * 64}

# (what it is called, the spelling of an address); none of them may open what the plain one does not
SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda path: path,
    "newline": lambda path: path + "%0A",
    "carriage return": lambda path: path + "%0D",
    "both": lambda path: path + "%0D%0A",
    "newline within": lambda path: path[:2] + "%0a" + path[2:],
    "NUL": lambda path: path + "%00",
    "delete": lambda path: path + "%7F",
    "next line": lambda path: path + "%C2%85",
    "line separator": lambda path: path + "%E2%80%A8",
    "space": lambda path: path + "%20",
    "slash after": lambda path: path + "/",
    "slashes before": lambda path: "/" + path,
    "slashes within": lambda path: path[0] + path[1:].replace("/", "//"),
    "coded slash": lambda path: path[0] + path[1:].replace("/", "%2F"),
    "coded slash after": lambda path: path + "%2F",
    "dot after": lambda path: path + "/.",
    "dots before": lambda path: "/healthz/.." + path,
    "coded dots": lambda path: "/models/%2e%2e" + path,
    "capitals": lambda path: path.upper(),
    "coded letters": lambda path: "/" + "".join(f"%{ord(c):02X}" for c in path[1:4]) + path[4:],
    "coded twice": lambda path: path + "%250A",
    "matrix parameter": lambda path: path + ";a=b",
    "query": lambda path: path + "?a=%0A",
    "coded query": lambda path: path + "%3Fa",
    "fragment": lambda path: path + "#a",
    "suffix": lambda path: path + ".json",
    "backslash": lambda path: path + "%5C",
    "whole URL": lambda path: "http://localhost" + path,
}  # fmt: skip

# what the gate and the router answer; anything else would come from behind them
REFUSED = {"forbidden", "bad_request", "method_not_allowed", "not_found"}


@pytest.fixture(scope="module")
def server(
    pictogram: Encoder, serve: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    file: Path = tmp_path_factory.mktemp("keys") / "keys.toml"
    lines = (
        f'[keys.{k}]\nsha256 = "{digest(k)}"\nscopes = {scopes}\n' for k, scopes in KEYS.items()
    )
    file.write_text("".join(lines))
    with serve(pictogram, api_keys_file=file, metrics="admin") as client:
        yield client


def ask(
    connection: http.client.HTTPConnection, key: str, method: str, target: str
) -> tuple[int, Any]:
    """An address as it is, which a library would tidy up."""
    connection.putrequest(method, target)
    connection.putheader("Authorization", f"Bearer {key}")
    connection.putheader("Content-Length", "0")
    connection.endheaders()
    response = connection.getresponse()
    body = response.read()
    document = json.loads(body) if response.status >= 400 and body else {}
    if isinstance(document.get("error"), dict):  # as OpenAI's clients are told
        document = {"error_type": document["error"]["code"], "detail": document["error"]["message"]}
    return response.status, document


def may(scopes: list[str], needs: tuple[str, ...] | None) -> bool:
    return needs is None or "admin" in scopes or bool({*scopes} & {*needs})


def spelt(path: str) -> str:
    for part, text in PARTS.items():
        path = path.replace(part, text)
    return path


def test_no_spelling_of_an_address_gives_a_key_what_its_scopes_do_not(server: httpx.Client) -> None:
    passed = []
    with closing(http.client.HTTPConnection(server.base_url.host, server.base_url.port)) as line:
        for route, rule in ROUTES.items():
            method, _, path = route.partition(" ")
            lacking = [key for key, scopes in KEYS.items() if not may(scopes, rule.needs)]
            for key in lacking:
                for name, spelling in SPELLINGS.items():
                    status, problem = ask(line, key, method, spelling(spelt(path)))
                    code, detail = problem.get("error_type"), problem.get("detail", "")
                    nowhere = code != "not_found" or " not found; " in detail
                    if code not in REFUSED or not nowhere:
                        passed.append((key, route, name, status, code))
                    if name == "plain":
                        assert (status, code) == (403, "forbidden"), route
    assert passed == []


def test_whoever_has_the_scope_gets_through(server: httpx.Client) -> None:
    with closing(http.client.HTTPConnection(server.base_url.host, server.base_url.port)) as line:
        for route in ROUTES:
            method, _, path = route.partition(" ")
            status, problem = ask(line, "root", method, spelt(path))
            assert problem.get("error_type") not in ("forbidden", "method_not_allowed"), route
            assert status < 500, route


@pytest.mark.parametrize("name", ["%0A", "%00", "%C2%85", "%E2%80%A9"])
def test_a_control_character_in_an_address_is_refused_even_where_no_key_is_needed(
    server: httpx.Client, name: str
) -> None:
    with closing(http.client.HTTPConnection(server.base_url.host, server.base_url.port)) as line:
        status, problem = ask(line, "nobody", "GET", f"/healthz{name}")
    assert (status, problem["error_type"], problem["field"]) == (400, "bad_request", "path")
    assert problem["value"].startswith("U+")


def test_a_route_that_nobody_decided_on_is_not_served() -> None:
    router = APIRouter()
    router.add_api_route("/new", lambda: None, methods=["GET"])
    with pytest.raises(LookupError, match=r"GET /new has no rule\. This is a bug\."):
        RouteTable().add(router.routes)


def test_the_table_names_no_route_that_does_not_exist() -> None:
    app = create_app(Settings())
    declared = {
        (method.upper(), path)
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    }
    listed = {
        (route.partition(" ")[0], route.partition(" ")[2].replace(":path", "")) for route in ROUTES
    }
    assert declared <= listed
    assert listed - declared == {("GET", "/"), ("GET", "/page/{name}"), ("GET", "/openapi.json")}


def test_images_are_queued_and_uploads_stream() -> None:
    for route, rule in ROUTES.items():
        assert rule.streams == (rule.body is Body.UPLOAD)
        assert not rule.queued or rule.needs == ("classify",), route


# what other services' clients look up or send without any field in the address
WITHOUT_FIELDS = ("GET /v1/models", "GET /v1/models/{name:path}", "POST /predict")


@pytest.mark.parametrize("route", ROUTES)
def test_a_field_of_the_address_that_a_route_does_not_read_is_refused(
    server: httpx.Client, route: str
) -> None:
    headers = {"Authorization": "Bearer root"}
    server.put("/labelsets/mine", json={"labels": ["cat", "dog"]}, headers=headers)
    method, _, path = route.partition(" ")
    body: dict[str, Any] = {"content": b"GIF89a"} if method == "POST" else {}
    if method == "PUT" or path == "/embeddings/text":
        body = {"json": {}}
    response = server.request(method, f"{spelt(path)}?no_such_field=cat", headers=headers, **body)
    rule = ROUTES[route]
    if rule.needs is None or rule.probe or route in WITHOUT_FIELDS:
        assert "no_such_field" not in response.text  # machines add what they like, against caches
        return
    assert response.status_code == 422, response.text
    problem = response.json()
    openai = problem["error"] if path.startswith("/v1/") else {}
    assert "no_such_field" in (problem.get("field"), openai.get("param"))
    # and what it reads once is not read twice
    if method in ("GET", "DELETE"):
        twice = server.request(method, f"{spelt(path)}?model=a&model=b", headers=headers)
        assert twice.status_code == 422, twice.text
