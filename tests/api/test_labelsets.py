"""Label sets over HTTP: registered, replaced, listed, deleted, and used."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.servers import wait_until
from models.encoder import Encoder

JSON = {"Content-Type": "application/json"}
LONG = " ".join(["cat"] * 40)  # more tokens than the bundled model reads


@pytest.fixture
def client(pictogram: Encoder, serve: Callable[..., Any]) -> Iterator[httpx.Client]:
    """A server of its own, so that the names are its own too."""
    with serve(pictogram, max_labelsets=5, max_labelset_labels=300) as client:
        yield client


def register(client: httpx.Client, name: str, labels: Any, **more: Any) -> httpx.Response:
    body = {"name": name, "labels": labels, **more}
    return client.post("/labelsets", json=body, params={"wait": "true"})


def classify(client: httpx.Client, picture: Path, **fields: Any) -> httpx.Response:
    return client.post("/classify", files={"image": picture.read_bytes()}, data=fields)


def problem(response: httpx.Response, status: int, error_type: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    assert answer["error_type"] == error_type
    return answer


def test_text_with_one_label_a_line_is_a_label_set(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    response = client.post(
        "/labelsets?name=pets&wait=true",
        content=b"\xef\xbb\xbfcat\r\n\r\ndog\n",
        headers={"Content-Type": "text/plain"},
    )
    assert response.status_code == 201
    assert response.headers["location"] == "/labelsets/pets"
    assert response.headers["etag"] == f'"{response.json()["version"]}"'
    assert (response.json()["labels"], response.json()["status"]) == (["cat", "dog"], "ready")
    answer = classify(client, samples["cat"], labelset="pets").json()
    assert answer["predictions"][0]["label"] == "cat"
    assert (answer["labelset"], answer["cached"]) == ("pets", 2)
    assert answer["labelset_version"] == response.json()["version"]


def test_a_label_set_answers_as_the_same_labels_ad_hoc(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    labels = list(samples)
    register(client, "all", labels)
    for templates in ({}, {"templates": "simple"}, {"templates": ["a {} here", "{}"]}):
        by_set = classify(client, samples["key"], labelset="all", **templates).json()
        ad_hoc = classify(client, samples["key"], labels=labels, **templates).json()
        assert by_set["predictions"] == ad_hoc["predictions"]
        assert by_set["templates"] == ad_hoc["templates"]


def test_synonyms_whole_prompts_and_own_templates_are_used(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    labels = {"feline": ["cat", "kitten"], "other": []}
    prompts = {"other": ["a picture of a rocket"]}
    created = register(client, "mine", labels, prompts=prompts, templates=["my {}"]).json()
    assert (created["synonyms"], created["prompts"]) == ({"feline": ["cat", "kitten"]}, prompts)
    assert (created["own_templates"], created["templates"]) == (["my {}"], "custom")
    answer = classify(client, samples["cat"], labelset="mine").json()
    assert answer["predictions"][0]["label"] == "feline"
    rocket = classify(client, samples["rocket"], labelset="mine").json()
    assert rocket["predictions"][0]["label"] == "other"
    # an ensemble over two texts in one template, by another road
    repeated = client.post(
        "/classify",
        files={"image": samples["cat"].read_bytes()},
        data={"labels": ["cat", "kitten"], "templates": "my {}", "multi_label": "true"},
    ).json()
    cosines = [p["similarity"] for p in repeated["predictions"]]
    feline = next(p for p in answer["predictions"] if p["label"] == "feline")["similarity"]
    assert min(cosines) - 0.05 < feline  # the mean of two vectors lies near both


def test_presets_are_registered_by_name(client: httpx.Client) -> None:
    response = client.post(
        "/labelsets", json={"name": "small", "preset": "cifar-10"}, params={"wait": "true"}
    )
    assert response.json()["label_count"] == 10
    wrong = client.post("/labelsets", json={"name": "x", "preset": "nothing"})
    assert "imagenet-1k" in problem(wrong, 422, "invalid")["detail"]


def test_imagenet_has_a_thousand_different_labels(
    pictogram: Encoder, serve: Callable[..., Any]
) -> None:
    with serve(pictogram) as client:
        answer = client.post(
            "/labelsets",
            json={"name": "imagenet", "preset": "imagenet-1k", "templates": "none"},
            params={"wait": "true"},
        ).json()
    assert (answer["label_count"], answer["status"]) == (1000, "ready")
    assert answer["synonyms"] == {
        "missile (2)": ["missile"], "sunglasses (2)": ["sunglasses"]
    }  # fmt: skip


def test_an_existing_name_is_a_conflict_and_put_replaces_it(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    first = register(client, "pets", ["cat", "dog"]).json()["version"]
    problem(register(client, "pets", ["bird", "fish"]), 409, "labelset_exists")
    put = client.put("/labelsets/pets", json={"labels": ["rocket", "pizza"]}, params={"wait": True})
    version = put.json()["version"]
    assert put.status_code == 200
    assert version > first
    answer = classify(client, samples["rocket"], labelset="pets").json()
    assert (answer["predictions"][0]["label"], answer["labelset_version"]) == ("rocket", version)
    response = client.put("/labelsets/pets", json={"labels": ["rocket", "pizza"]})
    assert response.json()["version"] == version
    new = client.put("/labelsets/new", content="a\nb", headers={"Content-Type": "text/plain"})
    assert new.status_code in (201, 202)


def test_changes_can_depend_on_the_version(client: httpx.Client) -> None:
    first = register(client, "pets", ["cat", "dog"]).headers["etag"]
    body = {"labels": ["cat", "bird"]}

    def put(**headers: str) -> httpx.Response:
        names = {key.replace("_", "-"): value for key, value in headers.items()}
        return client.put("/labelsets/pets", json=body, headers=names)

    refused = {
        '"7"': "has changed: it is at version",
        "garbage": "is the ETag of no version",
        f"W/{first}": "is weak",  # which never matches strongly
    }
    for etag, why in refused.items():
        assert why in problem(put(If_Match=etag), 412, "precondition_failed")["detail"]
    problem(put(If_None_Match="*"), 412, "precondition_failed")
    second = put(If_Match=f'"9", {first}').headers["etag"]
    assert second != first
    stale = client.delete("/labelsets/pets", headers={"If-Match": first})
    problem(stale, 412, "precondition_failed")
    problem(
        client.put("/labelsets/nothing", json=body, headers={"If-Match": "*"}),
        412,
        "precondition_failed",
    )
    assert client.delete("/labelsets/pets", headers={"If-Match": second}).status_code == 204


def test_get_answers_304_once_it_is_ready(client: httpx.Client) -> None:
    register(client, "pets", ["cat", "dog"])
    response = client.get("/labelsets/pets")
    assert response.json()["status"] == "ready"
    for etag in (response.headers["etag"], f"W/{response.headers['etag']}", "*"):
        again = client.get("/labelsets/pets", headers={"If-None-Match": etag})
        assert (again.status_code, again.content) == (304, b"")
    other = client.get("/labelsets/pets", headers={"If-None-Match": '"4"'})
    assert other.status_code == 200


def test_a_label_that_a_json_object_has_twice_is_refused(client: httpx.Client) -> None:
    labels = '{"cat": ["kitten"], "dog": [], "cat": ["tiger"]}'
    as_json = client.put("/labelsets/a", content=f'{{"labels": {labels}}}', headers=JSON)
    as_form = client.put("/labelsets/a", files={"labels": (None, labels)})
    for response in (as_json, as_form):
        answer = problem(response, 422, "invalid")
        assert answer["detail"] == "'cat' is there twice in one JSON object"
        assert answer["value"] == "cat"
    problem(client.get("/labelsets/a"), 404, "unknown_labelset")


def test_a_file_in_a_field_that_takes_none_is_refused(client: httpx.Client) -> None:
    files = {"labels": (None, "cat,dog"), "description": ("notes.txt", b"pets")}
    answer = problem(client.put("/labelsets/a", files=files), 422, "invalid")
    assert answer["detail"] == "unexpected file field 'description'; send it as text"


def test_two_spellings_of_a_label_count_once_with_a_warning(client: httpx.Client) -> None:
    created = client.put("/labelsets/a?wait=true", json={"labels": ["hot dog", "hot  dog", "cat"]})
    assert created.json()["labels"] == ["hot dog", "cat"]
    assert created.json()["warnings"] == [
        "'hot  dog' is the label 'hot dog' written another way; it counts once"
    ]
    posted = client.post("/labelsets?name=b&wait=true", content="cat\ncaf\u00e9\ncafe\u0301")
    assert (posted.json()["labels"], len(posted.json()["warnings"])) == (["cat", "café"], 1)
    assert client.get("/labelsets/a").json()["warnings"] == []  # what is stored has but one


def test_a_deleted_name_is_gone_and_its_versions_never_come_back(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    register(client, "pets", ["cat", "dog"])
    assert client.delete("/labelsets/pets").status_code == 204
    problem(client.get("/labelsets/pets"), 404, "unknown_labelset")
    problem(client.delete("/labelsets/pets"), 404, "unknown_labelset")
    problem(classify(client, samples["cat"], labelset="pets"), 404, "unknown_labelset")
    again = register(client, "pets", ["cat", "dog"])
    assert int(again.headers["etag"].strip('"')) > 2


def test_the_list_comes_in_pages(client: httpx.Client) -> None:
    for name in ("b", "a", "d", "c"):
        register(client, name, [f"{name}1", f"{name}2"])
    first = client.get("/labelsets", params={"limit": 3})
    assert [labelset["name"] for labelset in first.json()["labelsets"]] == ["a", "b", "c"]
    assert first.json()["next"] == "c"
    assert first.links["next"]["url"] == "/labelsets?after=c&limit=3"
    last = client.get(first.links["next"]["url"]).json()
    assert ([labelset["name"] for labelset in last["labelsets"]], last["next"]) == (["d"], None)
    problem(client.get("/labelsets", params={"limit": 0}), 422, "invalid")
    by_model = client.get("/labelsets", params={"limit": 3, "model": "pictogram"})
    assert by_model.links["next"]["url"] == "/labelsets?model=pictogram&after=c&limit=3"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"labels": ["a", "b"]}, 422, "name"),
        ({"name": "../etc", "labels": ["a", "b"]}, 422, "name"),
        ({"name": "a/b", "labels": ["a", "b"]}, 422, "name"),
        ({"name": "", "labels": ["a", "b"]}, 422, "name"),
        ({"name": "x" * 65, "labels": ["a", "b"]}, 422, "name"),
        ({"name": 7, "labels": ["a", "b"]}, 422, "name"),
        ({"name": "x"}, 422, "labels"),
        ({"name": "x", "labels": []}, 422, "labels"),
        ({"name": "x", "labels": ["a", "a "]}, 422, "labels"),
        ({"name": "x", "labels": ["a", ""]}, 422, "labels"),
        ({"name": "x", "labels": ["a", "b\0"]}, 422, "labels"),
        ({"name": "x", "labels": ["a", "b" * 201]}, 413, "labels"),
        ({"name": "x", "labels": [str(n) for n in range(301)]}, 413, "labels"),
        ({"name": "x", "labels": {"a": ["b", "b"]}}, 422, "labels"),
        ({"name": "x", "labels": {"a": [str(n) for n in range(101)]}}, 413, "labels"),
        (
            {"name": "x", "labels": ["a"], "prompts": {"a": [str(n) for n in range(101)]}},
            413,
            "prompts",
        ),
        ({"name": "x", "labels": "a,b"}, 422, "labels"),
        ({"name": "x", "labels": ["a", "b"], "label": 1}, 422, "label"),
        ({"name": "x", "labels": ["a"], "prompts": {"c": ["d"]}}, 422, "prompts"),
        ({"name": "x", "labels": ["a"], "preset": "food"}, 422, "preset"),
        ({"name": "x", "labels": ["a"], "templates": "nothing"}, 404, "templates"),
        ({"name": "x", "labels": ["a"], "templates": ["{} {}"]}, 422, "templates"),
        ({"name": "x", "labels": ["a"], "description": "d" * 1001}, 413, "description"),
    ],
)
def test_a_bad_field_is_named(
    client: httpx.Client, body: dict[str, Any], status: int, field: str
) -> None:
    response = client.post("/labelsets", json=body)
    assert response.status_code == status, response.text
    assert response.json()["field"] == field
    assert client.get("/labelsets").json()["labelsets"] == []


@pytest.mark.parametrize(
    ("fields", "detail", "value"),
    [
        ({"labels": {"zebra": [str(n) for n in range(101)]}},
         "'zebra' has 101 texts, the limit is 100", 101),
        ({"labels": {"zebra": ["cat", "cat"]}},
         "duplicate text 'cat' of 'zebra' (positions 1 and 2)", "cat"),
        ({"labels": {"zebra": ["x" * 201]}},
         f"text '{'x' * 60}'... of 'zebra' has 201 characters, the limit is 200", 201),
        ({"labels": ["zebra"], "prompts": {"zebra": [""]}},
         "prompt number 1 of 'zebra' is empty", ""),
        ({"labels": ["zebra"], "prompts": {"zebra": [str(n) for n in range(101)]}},
         "'zebra' has 101 prompts, the limit is 100", 101),
        ({"labels": ["a"], "not": [str(n) for n in range(101)]},
         "not holds 101 words, the limit is 100", 101),
        ({"labels": ["a"], "description": "d" * 1001},
         "description has 1001 characters, the limit is 1000", 1001),
        ({"labels": ["a", 3]}, "labels: input should be a valid string (position 2: 3)", 3),
        ({"labels": [None]}, "labels: input should be a valid string (position 1: null)", None),
        ({"labels": ["a"], "prompts": {"a": ["b", "c", False]}},
         "prompts: input should be a valid string (position 3: false)", False),
    ],
)  # fmt: skip
def test_a_problem_says_which_label_which_place_and_what(
    client: httpx.Client, fields: dict[str, Any], detail: str, value: Any
) -> None:
    answer = client.put("/labelsets/x", json=fields).json()
    assert (answer["detail"], answer.get("value")) == (detail, value)
    if isinstance(value, int) and value > 100:
        assert answer["limit"] == value - 1


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"{", "application/json"), (b"[]", "application/json"), (b"\xff\xfea", "text/plain"),
     (b"--x--", "multipart/form-data")],
)  # fmt: skip
def test_a_body_that_cannot_be_read_is_400(client: httpx.Client, content: bytes, kind: str) -> None:
    response = client.post("/labelsets?name=x", content=content, headers={"Content-Type": kind})
    problem(response, 400, "unparsable_body")


@pytest.mark.parametrize("name", ["%2e%2e", "a%2fb", "a%00b", "%F0%9F%90%B1", "x" * 65])
def test_names_that_are_none_are_refused_in_the_address(client: httpx.Client, name: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        response = client.request(method, f"/labelsets/{name}", json={"labels": ["a", "b"]})
        assert response.status_code in (400, 404, 422), response.text
        assert response.headers["content-type"] == "application/problem+json"


def test_the_number_of_label_sets_is_limited(client: httpx.Client) -> None:
    for n in range(5):
        register(client, f"s{n}", ["a", "b"])
    document = problem(register(client, "one-more", ["a", "b"]), 413, "too_large")
    assert (document["field"], document["limit"]) == ("name", 5)
    client.delete("/labelsets/s0")
    assert register(client, "one-more", ["a", "b"]).status_code == 201


def test_prompts_of_one_set_are_limited(pictogram: Encoder, serve: Callable[..., Any]) -> None:
    with serve(pictogram, max_labelset_prompts=3) as client:
        body = {"labels": ["a", "b"], "templates": ["{}", "the {}"], "name": "x"}
        document = problem(client.post("/labelsets", json=body), 413, "too_large")
        assert (document["limit"], document["value"]) == (3, 4)
        # templates by name count as much as one's own
        for templates in ("imagenet", None):
            request = {"labels": ["a", "b"], "templates": templates, "name": "x"}
            problem(client.post("/labelsets", json=request), 413, "too_large")


def test_a_label_too_long_for_the_model_fails_the_build_and_says_why(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    document = problem(register(client, "long", ["cat", LONG]), 413, "too_large")
    assert document["field"] == "labels"
    stored = client.get("/labelsets/long").json()
    assert stored["status"] == "failed"
    assert "tokens" in stored["error"]
    problem(classify(client, samples["cat"], labelset="long"), 413, "too_large")
    client.put("/labelsets/long", json={"labels": ["cat", "dog"]}, params={"wait": True})
    assert classify(client, samples["cat"], labelset="long").status_code == 200


def test_a_replacement_that_cannot_be_built_is_told_where_the_old_version_answers(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    old = register(client, "q", ["cat", "dog"]).json()["version"]
    failing = client.put(
        "/labelsets/q", json={"labels": [LONG, f"a {LONG}"]}, params={"wait": True}
    )
    problem(failing, 413, "too_large")
    stored = client.get("/labelsets/q").json()
    assert (stored["status"], stored["serving_version"]) == ("failed", old)
    answer = classify(client, samples["cat"], labelset="q").json()
    assert (answer["predictions"][0]["label"], answer["labelset_version"]) == ("cat", old)
    (warning,) = answer["warnings"]
    assert warning.startswith(f"version {stored['version']} of q could not be built (")
    assert stored["error"] in warning
    assert warning.endswith(f"; version {old} answers")
    refused = problem(client.post("/labelsets/q/calibrate"), 422, "invalid")
    assert (refused["field"], stored["error"] in refused["detail"]) == ("labelset", True)
    client.put("/labelsets/q", json={"labels": ["cat", "rocket"]}, params={"wait": True})
    assert classify(client, samples["cat"], labelset="q").json()["warnings"] == []


class Gate:
    """Holds the text tower until it is opened."""

    def __init__(self, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        submit = encoder.submit_texts

        def gated(prompts: Any) -> Any:
            pending: Future[Any] = Future()

            def later() -> None:
                self.open.wait(120)
                try:
                    pending.set_result(submit(prompts).result())
                except Exception as error:
                    pending.set_exception(error)

            threading.Thread(target=later, daemon=True).start()
            return pending

        monkeypatch.setattr(encoder, "submit_texts", gated)


def test_the_old_version_serves_until_the_new_one_is_built(
    client: httpx.Client,
    samples: dict[str, Path],
    pictogram: Encoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = register(client, "pets", ["cat", "dog"]).json()["version"]
    gate = Gate(pictogram, monkeypatch)
    put = client.put("/labelsets/pets", json={"labels": ["cat", "an octopus", "a new thing"]})
    assert (put.status_code, put.json()["status"]) == (202, "building")
    second = put.json()["version"]
    assert put.json()["serving_version"] == first
    # looking at it changes nothing
    assert client.get("/labelsets").json()["labelsets"][0]["status"] == "building"
    answer = classify(client, samples["cat"], labelset="pets").json()
    assert answer["labelset_version"] == first
    gate.open.set()
    wait_until(lambda: client.get("/labelsets/pets").json()["status"] == "ready")
    answer = classify(client, samples["octopus"], labelset="pets").json()
    assert (answer["labelset_version"], answer["predictions"][0]["label"]) == (second, "an octopus")
    assert client.get("/labelsets/pets").json()["serving_version"] == second
    # and what serves while a third one is built is the second, not the one before
    gate.open.clear()
    third = client.put("/labelsets/pets", json={"labels": ["one more", "and another"]}).json()
    assert (third["status"], third["serving_version"]) == ("building", second)
    answer = classify(client, samples["octopus"], labelset="pets").json()
    assert answer["labelset_version"] == second
    gate.open.set()


def test_a_first_build_is_waited_for_and_then_refused(
    pictogram: Encoder,
    serve: Callable[..., Any],
    samples: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serve(pictogram, request_timeout=5) as client:
        gate = Gate(pictogram, monkeypatch)
        assert client.post("/labelsets?name=x", content="one\ntwo").status_code == 202
        response = classify(client, samples["cat"], labelset="x")
        assert "0% done" in problem(response, 503, "labelset_building")["detail"]
        assert int(response.headers["retry-after"]) >= 1
        threading.Timer(0.3, gate.open.set).start()
        assert classify(client, samples["cat"], labelset="x").status_code == 200


def test_progress_is_told_while_it_builds(
    client: httpx.Client, pictogram: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, seen, remaining = pictogram.submit_texts, threading.Event(), 40 * 80

    def gated(prompts: Any) -> Any:
        nonlocal remaining
        remaining -= len(prompts)
        if remaining:
            return submit(prompts)
        pending: Future[Any] = Future()

        def last() -> None:
            seen.wait(120)  # somebody has been told of what is done
            pending.set_result(submit(prompts).result())

        threading.Thread(target=last, daemon=True).start()
        return pending

    monkeypatch.setattr(pictogram, "submit_texts", gated)
    labels = [f"number {n}" for n in range(40)]
    client.post("/labelsets", json={"name": "x", "labels": labels, "templates": "imagenet"})
    progress: list[float] = []
    while not progress or progress[-1] < 1:
        progress.append(client.get("/labelsets/x").json()["progress"])
        if 0 < progress[-1] < 1:
            seen.set()
    assert remaining == 0
    assert progress == sorted(progress)
    assert any(0 < value < 1 for value in progress)


def test_a_build_that_the_encoder_fails_is_tried_again_on_use(
    client: httpx.Client,
    samples: dict[str, Path],
    pictogram: Encoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(prompts: Any) -> Any:
        raise RuntimeError("device lost")

    monkeypatch.setattr(pictogram, "submit_texts", broken)
    document = problem(register(client, "x", ["never seen", "nor this"]), 500, "internal")
    assert "device" not in json.dumps(document)
    assert client.get("/labelsets/x").json()["status"] == "failed"
    monkeypatch.undo()
    assert classify(client, samples["cat"], labelset="x").status_code == 200
    assert client.get("/labelsets/x").json()["status"] == "ready"


def test_without_any_cache_label_sets_still_serve(
    pictogram: Encoder, serve: Callable[..., Any], samples: dict[str, Path]
) -> None:
    with serve(pictogram, vector_cache_bytes=0, labelset_cache_bytes=0) as client:
        register(client, "pets", ["cat", "dog"])
        for _ in range(2):
            assert classify(client, samples["cat"], labelset="pets").status_code == 200


def test_labels_and_label_set_together_are_refused(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    register(client, "pets", ["cat", "dog"])
    problem(classify(client, samples["cat"], labelset="pets", labels="a,b"), 422, "invalid")
    problem(classify(client, samples["cat"], labelset="none-such"), 404, "unknown_labelset")
    for name in ("../x", "", "y" * 60_000):
        document = problem(classify(client, samples["cat"], labelset=name), 422, "invalid")
        assert document["field"] == "labelset"


def test_the_body_of_a_label_set_has_a_limit_of_its_own(
    pictogram: Encoder, serve: Callable[..., Any]
) -> None:
    with serve(pictogram, max_labelset_bytes=1000) as client:
        document = problem(client.post("/labelsets?name=x", content=b"a" * 1001), 413, "too_large")
        assert (document["limit"], document.get("field")) == (1000, None)


def test_changes_without_a_precondition_never_conflict(client: httpx.Client) -> None:
    def put(n: int) -> int:
        return client.put("/labelsets/busy", json={"labels": [f"a{n}", f"b{n}"]}).status_code

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(put, range(16)))
    assert set(statuses) <= {200, 201, 202}


def test_a_waiter_of_a_version_that_was_replaced_is_told(
    client: httpx.Client, pictogram: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(pictogram, monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(register, client, "x", ["first thing", "second thing"])
        wait_until(lambda: client.get("/labelsets/x").status_code == 200)
        replaced = client.put("/labelsets/x", json={"labels": ["third", "fourth"]})
        problem(waiter.result(), 412, "precondition_failed")
        # and the waiter's end did not bring its version back
        assert client.get("/labelsets/x").json()["version"] == replaced.json()["version"]
        gate.open.set()
        wait_until(lambda: client.get("/labelsets/x").json()["status"] == "ready")
        assert client.get("/labelsets/x").json()["labels"] == ["third", "fourth"]


def test_repeated_fields_of_the_address_are_lists_or_errors(client: httpx.Client) -> None:
    response = client.post("/labelsets?name=t&templates=a {}&templates=the {}", content="x\ny")
    assert response.json()["own_templates"] == ["a {}", "the {}"]
    twice = client.post("/labelsets?name=t2&name=t3", content="x\ny")
    assert problem(twice, 422, "invalid")["field"] == "name"
    problem(client.post("/labelsets?name=t2&templates=", content="x\ny"), 422, "invalid")


def test_addresses_in_answers_stand_below_the_root_path(
    pictogram: Encoder, serve: Callable[..., Any]
) -> None:
    with serve(pictogram, root_path="/vision", max_labelset_bytes=100) as client:
        response = client.post("/labelsets?name=a", content="x\ny")
        assert response.headers["location"] == "/vision/labelsets/a"
        client.post("/labelsets?name=b", content="x\ny")
        listed = client.get("/labelsets?limit=1")
        assert listed.links["next"]["url"].startswith("/vision/labelsets?")
        astray = client.post("/embeddings", json={"input": "a cat"}).json()["error"]["message"]
        assert astray == "/vision/embeddings not found; did you mean /vision/v1/embeddings?"
        large = client.post("/labelsets?name=c", content="x" * 101)
        assert problem(large, 413, "too_large")["limit"] == 100


def test_a_label_set_in_other_templates_is_bounded(
    pictogram: Encoder, serve: Callable[..., Any], samples: dict[str, Path]
) -> None:
    with serve(pictogram, max_labels=2, max_templates=3) as client:
        register(client, "many", [f"n{n}" for n in range(7)], templates="none")
        assert classify(client, samples["cat"], labelset="many").status_code == 200
        document = problem(
            classify(client, samples["cat"], labelset="many", templates="simple"), 413, "too_large"
        )
        assert (document["field"], document["limit"]) == ("templates", 6)


def test_the_best_of_several_texts_decides_and_is_told(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    texts = ["spaceship", "cat", "teapot"]
    response = register(client, "best", {"pet": texts, "dish": ["pizza", "salad"]}, combine="best")
    assert response.json()["combine"] == {"pet": "best", "dish": "best"}
    predictions = classify(client, samples["cat"], labelset="best").json()["predictions"]
    assert (predictions[0]["label"], predictions[0]["text"]) == ("pet", "cat")
    assert {predictions[1]["text"]} <= {"pizza", "salad"}
    flat = classify(client, samples["cat"], labels=[*texts, "pizza", "salad"], top_k=5).json()
    similarity = {p["label"]: p["similarity"] for p in flat["predictions"]}
    assert predictions[0]["similarity"] == pytest.approx(similarity["cat"], abs=1e-5)
    assert predictions[1]["similarity"] == pytest.approx(
        max(similarity["pizza"], similarity["salad"]), abs=1e-5
    )


def test_labels_are_combined_each_in_its_own_way(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    labels = {"pet": ["cat", "teapot"], "dish": ["pizza", "salad"]}
    register(client, "both", labels, combine={"pet": "best"})
    register(client, "mean", labels)
    best, mean = (
        classify(client, samples["pizza"], labelset=name).json()["predictions"]
        for name in ("both", "mean")
    )
    assert "text" not in best[0]
    assert best[0]["similarity"] == pytest.approx(mean[0]["similarity"], abs=1e-5)
    flat = classify(client, samples["pizza"], labels="cat,teapot").json()["predictions"]
    assert best[1]["similarity"] == pytest.approx(flat[0]["similarity"], abs=1e-5)
    assert best[1]["similarity"] != pytest.approx(mean[1]["similarity"], abs=1e-5)
    refused = register(client, "wrong", labels, combine={"pets": "best"})
    assert problem(refused, 422, "invalid")["field"] == "combine"


NESTED = {
    "animal": {"pet": {"cat": [], "dog": ["dog", "puppy"]}, "octopus": []},
    "dish": {"pizza": [], "doughnut": []},
    "rocket": [],
}


def test_groups_have_the_sums_of_their_labels(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    created = register(client, "nested", NESTED).json()
    assert created["labels"] == ["cat", "dog", "octopus", "pizza", "doughnut", "rocket"]
    assert created["groups"]["dog"] == ["animal", "pet"]
    answer = classify(client, samples["cat"], labelset="nested", top_k=9).json()
    scores = {p["label"]: p["score"] for p in answer["predictions"]}
    groups = {tuple(g["path"]): g["score"] for g in answer["groups"]}
    assert answer["predictions"][0]["path"] == ["animal", "pet"]
    assert "path" not in next(p for p in answer["predictions"] if p["label"] == "rocket")
    assert set(groups) == {("animal",), ("animal", "pet"), ("dish",)}
    assert groups["animal", "pet"] == pytest.approx(scores["cat"] + scores["dog"], abs=1e-5)
    assert groups["animal",] == pytest.approx(
        scores["cat"] + scores["dog"] + scores["octopus"], abs=1e-5
    )
    ranked = [g["score"] for g in answer["groups"]]
    assert ranked == sorted(ranked, reverse=True)


def test_an_uncertain_label_still_gives_a_certain_group(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    twins = {"animal": {"cat": [], "kitty": ["cat"]}, "thing": {"rocket": [], "key": []}}
    register(client, "twins", twins)
    answer = classify(client, samples["cat"], labelset="twins", threshold=0.8).json()
    assert answer["predictions"] == []
    (group,) = answer["groups"]
    assert group["path"] == ["animal"]
    assert group["score"] > 0.8


@pytest.mark.parametrize(
    ("labels", "detail"),
    [
        ({"animal": {"cat": []}, "pet": {"cat": []}}, "cat"),
        ({"animal": {}}, "has no labels"),
        ({"animal": {"pet": {}}}, "has no labels"),
        ({"animal": {"pet": ["cat", 1]}}, "neither"),
        ({"animal": {"pet": "cat"}}, "neither"),
        ({"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"i": {"j": []}}}}}}}}}}, "deep"),
    ],
)
def test_groups_that_cannot_be_are_refused(
    client: httpx.Client, labels: dict[str, Any], detail: str
) -> None:
    refused = register(client, "groups", labels)
    answer = problem(refused, 422, "invalid")
    assert answer["field"] == "labels"
    assert detail in answer["detail"]


def test_prompts_are_read_beside_the_templates_where_that_is_wanted(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    labels, prompts = ["cat", "dog"], {"cat": ["a small animal with whiskers"]}
    for name, more in (
        ("alone", {}),
        ("instead", {"prompts": prompts}),
        ("beside", {"prompts": prompts, "prompts_with": "templates"}),
    ):
        response = register(client, name, labels, **more)
        assert response.json()["prompts_with"] == more.get("prompts_with")
    alone, instead, beside = (
        {p["label"]: p["similarity"] for p in classify(
            client, samples["cat"], labelset=name).json()["predictions"]}
        for name in ("alone", "instead", "beside")
    )  # fmt: skip
    assert len({alone["cat"], instead["cat"], beside["cat"]}) == 3
    assert alone["dog"] == instead["dog"] == beside["dog"]
    refused = register(client, "none", labels, prompts_with="templates")
    assert problem(refused, 422, "invalid")["field"] == "prompts_with"


def test_templates_have_weights(client: httpx.Client, samples: dict[str, Path]) -> None:
    first, second = "a photo of a {}.", "the number {}."
    sets = {"even": [first, second], "heavy": {first: 1, second: 9}, "alone": [second]}
    similarities = {}
    for name, templates in sets.items():
        created = register(client, name, ["cat", "dog"], templates=templates).json()
        assert created["asked_templates"] == templates
        predictions = classify(client, samples["cat"], labelset=name).json()["predictions"]
        similarities[name] = next(p["similarity"] for p in predictions if p["label"] == "cat")
    low, high = sorted((similarities["even"], similarities["alone"]))
    assert low < similarities["heavy"] < high
    for weight in (0, 11, 1.5):
        refused = register(client, "wrong", ["cat", "dog"], templates={first: weight})
        assert problem(refused, 422, "invalid")["field"] == "templates"


def test_examples_of_a_label_serve_all_of_its_alternatives(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    labels = {"pet": ["cat", "dog"], "dish": ["pizza", "doughnut"]}
    register(client, "shown", labels, combine="best")
    for label, members in (("pet", ("cat", "dog")), ("dish", ("pizza", "doughnut"))):
        for name in members:
            client.post(
                "/labelsets/shown/examples", params={"wait": "true"},
                files={"image": samples[name].read_bytes()}, data={"label": label},
            ).raise_for_status()  # fmt: skip
    predictions = classify(client, samples["pizza"], labelset="shown").json()["predictions"]
    assert (predictions[0]["label"], predictions[0]["text"]) == ("dish", "pizza")


def test_own_words_rule_the_labels_out(client: httpx.Client, samples: dict[str, Path]) -> None:
    created = register(client, "pets", ["cat", "dog"], **{"not": ["pizza", "a rocket"]}).json()
    assert created["not"] == ["pizza", "a rocket"]
    answer = classify(client, samples["pizza"], labelset="pets", abstain="true").json()
    assert answer["predictions"] == []
    assert (answer["reason"]["code"], answer["reason"]["word"]) == (
        "nearer_to_another_word", "pizza"
    )  # fmt: skip
    assert answer["reason"]["value"] < answer["reason"]["limit"]
    assert answer["reason"]["withheld"]
    assert classify(client, samples["pizza"], labelset="pets").json()["predictions"]
    prediction = classify(client, samples["cat"], labelset="pets", abstain="true").json()
    assert prediction["predictions"][0]["label"] == "cat"
    refused = register(client, "wrong", ["cat", "dog"], **{"not": ["cat"]})
    assert problem(refused, 422, "invalid")["field"] == "not"


def test_a_word_that_is_the_same_to_the_model_as_a_label_rules_nothing_out(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    register(client, "pets", ["cat", "dog"], **{"not": ["Cat", "pizza"]})
    register(
        client, "kinds", {"pet": ["hamster", "cat"], "vehicle": ["rocket", "car"]}, combine="best"
    )
    warning = "{!r} is the same to the model as the label {!r} and rules nothing out"
    for fields, word, label in (
        ({"labels": "cat,dog", "not": "Cat"}, "Cat", "cat"),
        ({"labels": "dog,cat", "not": "CAT", "multi_label": "true"}, "CAT", "cat"),
        ({"labelset": "pets", "abstain": "true"}, "Cat", "cat"),
        ({"labelset": "pets", "not": "dog"}, "dog", "dog"),
        ({"labelset": "kinds", "not": "Cat"}, "Cat", "pet"),
    ):
        answer = classify(client, samples["cat"], **fields).json()
        reason = answer["reason"] and answer["reason"]["code"]
        assert reason != "nearer_to_another_word", fields
        assert warning.format(word, label) in answer["warnings"]
    others = classify(client, samples["cat"], labels="cat,dog", **{"not": "pizza"}).json()
    assert others["warnings"] == []


def test_what_fits_another_word_far_better_is_none_of_these(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    def ready() -> bool:
        answer = classify(client, samples["cat"], labels="cat,dog", abstain="true").json()
        return not any("not ready" in warning for warning in answer["warnings"])

    wait_until(ready, 120)
    reasons = []
    for name, picture in samples.items():
        labels = [label for label in samples if label != name]
        answer = classify(client, picture, labels=labels, abstain="true").json()
        reasons += [answer["reason"]] if answer["reason"] else []
    codes = [reason["code"] for reason in reasons]
    assert codes.count("nearer_to_another_word") >= 3, codes
    for reason in reasons:
        if reason["code"] == "nearer_to_another_word":
            assert reason["value"] > reason["limit"]
            assert repr(reason["word"]) in reason["detail"]
        else:
            assert "word" not in reason
    prediction = classify(client, samples["pizza"], labels="pizza,rocket", abstain="true").json()
    assert prediction["predictions"][0]["label"] == "pizza"


def test_every_precondition_of_a_change_counts(client: httpx.Client) -> None:
    body = {"labels": ["a", "b"]}
    conditions = {"If-Match": "*", "If-None-Match": "*"}
    problem(
        client.put("/labelsets/both", json=body, headers=conditions), 412, "precondition_failed"
    )
    response = client.put("/labelsets/both", json=body)
    assert response.status_code in (201, 202)
    problem(
        client.put("/labelsets/both", json=body, headers=conditions), 412, "precondition_failed"
    )
    for header in ('"5"', "*"):
        new = client.post("/labelsets", json={"name": "n", **body}, headers={"If-Match": header})
        problem(new, 412, "precondition_failed")
    documented = client.get("/openapi.json").json()["paths"]["/labelsets"]["post"]["responses"]
    assert {"409", "412"} <= documented.keys()
    again = {"name": "both", **body}
    repeated = client.post("/labelsets", json=again, headers={"If-Match": response.headers["etag"]})
    problem(repeated, 409, "labelset_exists")
    problem(
        client.post("/labelsets", json=again, headers={"If-None-Match": "*"}),
        409,
        "labelset_exists",
    )
    client.delete("/labelsets/both")


def test_prompts_that_differ_by_spaces_alone_are_refused(client: httpx.Client) -> None:
    body = {"labels": ["a", "b"], "prompts": {"a": ["x"], " a ": ["y"]}}
    answer = problem(client.put("/labelsets/spaces", json=body), 422, "invalid")
    assert (answer["field"], "'a'" in answer["detail"]) == ("prompts", True)


def test_a_form_has_whatever_json_has(client: httpx.Client) -> None:
    objects = {
        "labels": {"cat": ["cat", "kitten"], "dog": ["dog", "puppy"]},
        "combine": {"cat": "best"},
        "prompts": {"dog": ["a dog asleep"]},
        "templates": {"an icon of a {}": 2, "a {}": 1},
    }
    texts = {"prompts_with": "templates", "description": "by form"}
    form = {name: (None, json.dumps(value)) for name, value in objects.items()}
    form |= {name: (None, text) for name, text in (texts | {"not": "fish,bird"}).items()}
    sent = client.put("/labelsets/by-form", files=form, params={"wait": "true"})
    assert sent.status_code == 201, sent.text
    body = {**objects, **texts, "not": ["fish", "bird"]}
    same = client.put("/labelsets/by-json", json=body, params={"wait": "true"})
    differs = {"name", "version", "serving_version"}
    assert {k: v for k, v in sent.json().items() if k not in differs} == {
        k: v for k, v in same.json().items() if k not in differs
    }
    assert sent.json()["asked_templates"] == objects["templates"]
    # which alone is a template, not an object
    bare = client.put(
        "/labelsets/by-form", files={"labels": (None, "cat,dog"), "templates": (None, "{}")}
    )
    assert bare.json()["own_templates"] == ["{}"], bare.text
    none = {"labels": "cat,dog", "prompts": "{}", "combine": "{}"}
    assert client.put("/labelsets/by-form", data=none).is_success
    for name in objects:
        cut = client.put("/labelsets/by-form", data={"labels": "cat,dog", name: '{"cat": [}'})
        answer = problem(cut, 400, "unparsable_body")
        assert answer["field"] == name
        assert answer["detail"].startswith(f"the field {name} is not JSON: ")
    for name in ("by-form", "by-json"):
        client.delete(f"/labelsets/{name}")


def test_a_name_in_the_body_may_repeat_that_of_the_url_and_no_other(client: httpx.Client) -> None:
    body = {"name": "repeated", "labels": ["cat", "dog"]}
    sent = client.put("/labelsets/repeated", json=body, params={"wait": "true"})
    assert (sent.status_code, sent.json()["name"]) == (201, "repeated"), sent.text
    other = client.put("/labelsets/other", json=body)
    assert (other.status_code, other.json()["field"]) == (422, "name")
    assert "the URL names the label set 'other'" in other.json()["detail"]
    client.delete("/labelsets/repeated")
