"""Namespaces of label sets: apart in every store, and not to be seen from one another."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.fields import NAME_PATTERN
from app.api.middleware.keys import digest
from app.labelsets.definition import (
    Definition,
    Entry,
    created,
    from_body,
    in_namespace,
    namespace_bounds,
    namespace_of,
    new,
    without_namespace,
)
from app.labelsets.registry import PAGE, Registry
from app.stores.memory import MemoryLabelSets, MemoryPictures
from models.encoder import Encoder

names = st.from_regex(NAME_PATTERN, fullmatch=True)
namespaces = st.just("") | names

KEYS = """
[keys.{name}]
sha256 = "{digest}"
scopes = ["classify", "labelsets:write"]
"""


@given(namespaces, names)
def test_a_name_goes_in_and_comes_out(namespace: str, name: str) -> None:
    stored = in_namespace(namespace, name)
    assert (without_namespace(stored), namespace_of(stored)) == (name, namespace)


@given(namespaces, names, namespaces, names)
def test_names_lie_between_the_bounds_of_their_own_namespace_alone(
    namespace: str, name: str, another: str, other: str
) -> None:
    after, before = namespace_bounds(namespace)
    assert after < in_namespace(namespace, name) < before
    assert (after < in_namespace(another, other) < before) == (another == namespace)
    assert (in_namespace(namespace, name) == in_namespace(another, other)) == (
        (namespace, name) == (another, other)
    )


@given(namespaces, st.lists(names, min_size=2, max_size=2))
def test_names_keep_their_order(namespace: str, two: list[str]) -> None:
    first, other = two
    assert (first < other) == (in_namespace(namespace, first) < in_namespace(namespace, other))


@pytest.mark.parametrize("namespace", ["a", "a-b", "a.b", "a0", "a_b", "aa", "z" * 64, "~"])
def test_namespaces_that_begin_alike_are_apart(namespace: str) -> None:
    after, before = namespace_bounds("a")
    assert (after < in_namespace(namespace, "x") < before) == (namespace == "a")


def test_a_registry_pages_and_counts_within_a_namespace() -> None:
    async def test() -> None:
        registry = Registry(MemoryLabelSets(), MemoryPictures(), most=1000)
        definition = Definition((Entry("a", ("a",)),))
        expected = [f"n{number:02}" for number in range(2 * PAGE + 3)]
        for name in expected:
            for namespace in ("", "a", "a0", "b"):
                await registry.write(new(in_namespace(namespace, name), 0, definition), None, 100)
        for namespace in ("", "a", "a0", "b"):
            page = await registry.page(*namespace_bounds(namespace), 1000)
            assert [without_namespace(record.name) for record in page] == expected
            assert {namespace_of(record.name) for record in page} == {namespace}

    asyncio.run(test())


@pytest.fixture(scope="module")
def callers(
    pictogram: Encoder, serve: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], httpx.Client]]:
    """Clients of one server by the name of their key."""
    file = tmp_path_factory.mktemp("keys") / "keys.toml"
    limited = 'namespace = "{name}"\nmax_labelsets = 3\n'
    file.write_text(
        "".join(
            KEYS.format(name=name, digest=digest(name)) + rest.format(name=name)
            for name, rest in [("red", limited), ("blue", limited), ("nobody", "")]
        )
    )
    with serve(pictogram, api_keys_file=file, max_labelsets=50) as client:
        clients_made: list[httpx.Client] = []

        def caller(name: str) -> httpx.Client:
            headers = {"Authorization": f"Bearer {name}"}
            clients_made.append(httpx.Client(base_url=client.base_url, headers=headers, timeout=60))
            return clients_made[-1]

        yield caller
        for entered in clients_made:
            entered.close()


@pytest.fixture
def red(callers: Callable[[str], httpx.Client]) -> Iterator[httpx.Client]:
    """Of a namespace of its own, with nothing in it."""
    client = callers("red")
    yield client
    for labelset in client.get("/labelsets").json()["labelsets"]:
        client.delete(f"/labelsets/{labelset['name']}")


@pytest.fixture
def blue(callers: Callable[[str], httpx.Client]) -> Iterator[httpx.Client]:
    """Of another one."""
    client = callers("blue")
    yield client
    for labelset in client.get("/labelsets").json()["labelsets"]:
        client.delete(f"/labelsets/{labelset['name']}")


@pytest.fixture
def nobody(callers: Callable[[str], httpx.Client]) -> Iterator[httpx.Client]:
    """Of a key without a namespace."""
    client = callers("nobody")
    yield client
    for labelset in client.get("/labelsets").json()["labelsets"]:
        client.delete(f"/labelsets/{labelset['name']}")


def put(client: httpx.Client, name: str, *labels: str, **headers: str) -> httpx.Response:
    body = {"labels": list(labels) or ["cat", "dog"]}
    headers_sent = {key.replace("_", "-"): value for key, value in headers.items()}
    return client.put(f"/labelsets/{name}", json=body, headers=headers_sent, params={"wait": True})


def listed(client: httpx.Client, **params: Any) -> list[str]:
    labelsets = client.get("/labelsets", params=params).json()["labelsets"]
    return [labelset["name"] for labelset in labelsets]


def classify(client: httpx.Client, picture: Path, labelset: str) -> httpx.Response:
    files = {"image": picture.read_bytes()}
    return client.post("/classify", files=files, data={"labelset": labelset})


def test_one_name_in_two_namespaces_is_two_label_sets(
    red: httpx.Client, blue: httpx.Client, nobody: httpx.Client, samples: dict[str, Path]
) -> None:
    labels = {red: ["cat", "dog"], blue: ["rocket", "pizza"], nobody: ["cat", "rocket", "key"]}
    for client, own_labels in labels.items():
        response = put(client, "pets", *own_labels)
        assert (response.status_code, response.headers["location"]) == (201, "/labelsets/pets")
        assert (response.json()["name"], response.json()["labels"]) == ("pets", own_labels)
    for client, own_labels in labels.items():
        assert client.get("/labelsets/pets").json()["labels"] == own_labels
        answer = classify(client, samples["cat"], "pets").json()
        assert answer["labelset"] == "pets"
        assert {prediction["label"] for prediction in answer["predictions"]} == set(own_labels)
    assert red.delete("/labelsets/pets").status_code == 204
    assert [listed(client) for client in labels] == [[], ["pets"], ["pets"]]
    assert classify(red, samples["cat"], "pets").status_code == 404


def test_nobody_learns_of_another_namespace(
    red: httpx.Client, blue: httpx.Client, nobody: httpx.Client, samples: dict[str, Path]
) -> None:
    put(red, "secret")
    names = ["secret", "~red/secret", "red/secret", "~red%2Fsecret", "%7Ered%2fsecret", "..%2fred"]
    for client in (blue, nobody):
        responses: list[httpx.Response] = []
        for name in names:
            responses.append(client.get(f"/labelsets/{name}"))
            responses.append(client.delete(f"/labelsets/{name}"))
            responses.append(put(client, name, "a", "b", If_Match="*"))
            responses.append(classify(client, samples["cat"], name))
        assert {response.status_code for response in responses} <= {404, 405, 412, 422}
        for after in ("", "~", "~red", "~red/", "~red/a", "\x00", "zzz", "~a"):
            assert listed(client, after=after) == []
        # a name nobody has is told of in the same words
        texts = {
            re.sub("secret|nothing", "NAME", client.get(f"/labelsets/{name}").json()["detail"])
            for name in ("secret", "nothing")
        }
        assert len(texts) == 1
    assert red.get("/labelsets/secret").status_code == 200


def test_every_answer_names_it_as_its_owner_does(
    red: httpx.Client, samples: dict[str, Path]
) -> None:
    responses = [
        put(red, "pets"),
        put(red, "pets", If_None_Match="*"),
        put(red, "pets", If_Match='"1"'),
        put(red, "none", If_Match="*"),
        red.post("/labelsets", json={"name": "pets", "labels": ["a", "b"]}),
        red.get("/labelsets/pets"),
        red.get("/labelsets/none"),
        red.delete("/labelsets/none"),
        red.delete("/labelsets/pets", headers={"If-Match": '"1"'}),
        classify(red, samples["cat"], "pets"),
        classify(red, samples["cat"], "none"),
        put(red, "long", " ".join(["cat"] * 45), "dog"),
        red.get("/labelsets/long"),
        put(red, "third"),
        put(red, "fourth"),
        red.get("/labelsets", params={"limit": 1}),
    ]
    statuses = [response.status_code for response in responses]
    assert statuses == [
        201, 412, 412, 412, 409, 200, 404, 404, 412, 200, 404, 413, 200, 201, 413, 200
    ]  # fmt: skip
    for response in responses:
        text = response.text + str(dict(response.headers))
        assert "~" not in text
        assert "red/" not in text
    assert responses[4].json()["value"] == "pets"


def test_the_list_is_paged_within_a_namespace(
    red: httpx.Client, blue: httpx.Client, nobody: httpx.Client
) -> None:
    for client in (red, blue, nobody):
        for name in ("a", "b", "c"):
            put(client, name)
    for client in (red, blue, nobody):
        first = client.get("/labelsets", params={"limit": 2})
        assert [labelset["name"] for labelset in first.json()["labelsets"]] == ["a", "b"]
        assert first.json()["next"] == "b"
        assert first.links["next"]["url"] == "/labelsets?after=b&limit=2"
        last = client.get(first.links["next"]["url"]).json()
        assert ([labelset["name"] for labelset in last["labelsets"]], last["next"]) == (["c"], None)
        assert listed(client, after="c") == []


def test_a_key_has_a_limit_of_its_own(
    red: httpx.Client, blue: httpx.Client, nobody: httpx.Client
) -> None:
    for name in ("a", "b", "c"):
        assert put(red, name).status_code == 201
    for refused in (
        put(red, "d"),
        red.post("/labelsets", json={"name": "d", "labels": ["x", "y"]}),
    ):
        answer = refused.json()
        assert (refused.status_code, answer["error_type"]) == (413, "too_large")
        assert (answer["field"], answer["limit"], answer["value"]) == ("name", 3, 4)
        assert "this key" in answer["detail"]
    assert put(red, "a", "x", "y").status_code == 200
    assert put(blue, "d").status_code == 201
    for number in range(5):
        assert put(nobody, f"n{number}").status_code == 201
    assert red.delete("/labelsets/b").status_code == 204
    assert put(red, "d").status_code == 201


def test_what_a_release_cannot_serve_as_it_is_meant_is_written_in_a_format_it_refuses() -> None:
    plain = Definition((Entry("cat", ("cat", "kitten")), Entry("dog", ("dog",))))
    best = Definition((Entry("cat", ("cat", "kitten"), combine="best"), Entry("dog", ("dog",))))
    grouped = Definition((Entry("cat", ("cat",), path=("animal",)),))
    joined = Definition((Entry("cat", ("cat",), ("a cat at home",)),), joined=True)
    for definition, format_ in ((plain, 1), (best, 2), (grouped, 2), (joined, 2)):
        stored = new("n", 7, definition)
        assert json.loads(stored.body())["format"] == format_
        again = from_body("n", 7, stored.body())
        assert again.definition == definition
        assert again.definition.rows == definition.rows
        assert again.digest == stored.digest
    assert (plain.rows, best.rows) == (2, 3)


def test_every_flipped_bit_of_a_stored_definition_is_noticed() -> None:
    before = replace(new("n", 3, Definition((Entry("a", ("a",)), Entry("b", ("b",))))), built=True)
    definition = Definition((Entry("猫", ("猫", "kitten")), Entry("dog", ("dog",))), "imagenet")
    stored = new("n", 7, definition, before)
    body = bytearray(stored.body())
    assert from_body("n", 7, bytes(body)) == stored
    refused = 0
    for place in range(len(body)):
        for bit in range(8):
            body[place] ^= 1 << bit
            try:
                assert from_body("n", 7, bytes(body)) == stored  # only the checksum's name suffered
            except (ValueError, LookupError, TypeError, AttributeError):
                refused += 1
            body[place] ^= 1 << bit
    assert refused > 8 * (len(body) - 20)


def test_all_versions_of_a_creation_have_its_lineage_and_no_other_creation_has_it() -> None:
    pets = Definition((Entry("a", ("a",)), Entry("b", ("b",))))
    first, second = created("n", pets), created("n", pets)
    assert first.lineage != second.lineage
    replaced = new("n", 7, pets, replace(first, built=True), first.lineage)
    again = from_body("n", 7, replaced.body())
    assert again == replaced
    assert again.previous is not None
    assert again.lineage == again.previous.lineage == first.lineage
    # what earlier releases wrote has none, and is written as it was
    assert from_body("n", 7, new("n", 7, pets).body()).lineage == ""
    assert "lineage" not in json.loads(new("n", 7, pets).body())


def test_a_stored_definition_without_a_checksum_is_read() -> None:
    stored = new("n", 7, Definition((Entry("a", ("a",)), Entry("b", ("b",)))))
    content = json.loads(stored.body())
    del content["crc32"]
    assert from_body("n", 7, json.dumps(content).encode()) == stored
