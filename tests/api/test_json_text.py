"""JSON bodies that would become far more than they are, and lists in text fields."""

import json
import random
import time
from typing import Any

import httpx
import pytest

from app.api.json_text import JsonLimits, cost, json_list, json_object
from app.errors import Invalid, TooLarge, Unparsable

LIMITS = JsonLimits(values=1_000, nested=200)


def nodes(value: Any) -> tuple[int, int]:
    """Values, and objects, lists and names, found by walking what was parsed."""
    if isinstance(value, dict):
        inner = [nodes(child) for child in value.values()]
        size = 1 + len(value)
    elif isinstance(value, list):
        inner, size = [nodes(child) for child in value], 1
    else:
        return 1, 0
    return 1 + sum(v for v, _ in inner), size + sum(n for _, n in inner)


def some(chance: random.Random, depth: int = 0) -> Any:
    texts = ("", "a", "x, y: [z] {", '"', '\\"', "\\", "\\\\", "é\u2028", ',",', "[[[,,,")
    kind = chance.randrange(5 if depth < 4 else 3)
    if kind == 3:
        return [some(chance, depth + 1) for _ in range(chance.randrange(5))]
    if kind == 4:
        return {chance.choice(texts): some(chance, depth + 1) for _ in range(chance.randrange(5))}
    return (chance.choice(texts), chance.random(), None)[kind]


def test_the_cost_is_never_less_than_what_is_parsed() -> None:
    chance = random.Random(1)
    for _ in range(2_000):
        value = some(chance)
        text = json.dumps(value, ensure_ascii=chance.random() < 0.5).encode()
        values, nested = nodes(value)
        counted = cost(text, JsonLimits(10**9, 10**9))
        assert counted.values + 1 >= values
        assert counted.nested >= nested
        # with limits that the marks within its strings exceed, they are not counted
        exact = cost(text, JsonLimits(counted.values + 50, nested + 1))
        assert nested <= exact.nested <= counted.nested


@pytest.mark.parametrize(
    "text",
    [
        b'{"x":[' + b"[]," * 2_000 + b"[]]}",
        b'{"x":[' + b'"",' * 2_000 + b'""]}',
        b'{"x":[' + b"0," * 2_000 + b"0]}",
        b'{"x":{' + b'"a":{},' * 300 + b'"b":0}}',
        b"[" * 300,
        b'{"x":"' + b"," * 2_000 + b'","y":[' + b"0," * 2_000 + b"0]}",
        # each quote within a string is looked at by itself
        b'{"x":"' + b"," * 2_000 + b'\\"' * 4 * LIMITS.values + b'"}',
    ],
)
def test_more_values_than_a_request_can_need_are_refused_before_they_are_made(text: bytes) -> None:
    with pytest.raises(TooLarge, match=r"\(the limit\)") as raised:
        cost(text, LIMITS)
    assert raised.value.limit in (LIMITS.values, LIMITS.nested)


@pytest.mark.parametrize("text", ["," * 2_000, ":[{" * 1_000, r"\"," * 900, "\\\\"])
def test_marks_in_strings_are_no_values(text: str) -> None:
    raw = json.dumps({"labels": ["a", text], "b": [text]}).encode()
    assert cost(raw, LIMITS).values < 20


@pytest.mark.parametrize(
    ("text", "kind"),
    [("null", "null"), ("true", "boolean"), ("1", "number"), ("1.5", "number"), ('"a"', "string"),
     ("[]", "list")],
)  # fmt: skip
def test_a_body_that_is_no_object_is_told_in_the_words_of_json(text: str, kind: str) -> None:
    with pytest.raises(Unparsable, match=f"^the body is a JSON {kind}, an object is expected$"):
        json_object(text.encode())


def test_names_are_counted_whatever_is_in_strings() -> None:
    chance = random.Random(2)
    for _ in range(1_000):
        value = {"": some(chance), '\\":{': some(chance)}
        assert json_object(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"a": [], "a": ["x"]}', "a"),
        ('{"labels": {"b": [], "a": [], "b": ["x"]}}', "b"),
        ('{"x": [{"y": ":::", "y": 1}]}', "y"),
        (r'{"a": 1, "\u0061": 2, "n": 1e999, "m": -0}', "a"),
        ('{"a": 1, "a": ' + "9" * 4_000 + "}", "a"),
    ],
)
def test_a_name_that_is_there_twice_is_refused_and_told(text: str, name: str) -> None:
    for read in (json_object, lambda body: json_list(f"[{body.decode()}]")):
        with pytest.raises(Invalid, match=f"^'{name}' is there twice in one JSON object$") as error:
            read(text.encode())
        assert error.value.value == name


def test_a_list_in_a_text_is_bounded_and_may_be_as_deep_as_it_likes() -> None:
    assert json_list('["a", "b"]') == ["a", "b"]
    with pytest.raises(TooLarge):
        json_list("[" + "[]," * 200_000 + "[]]")
    for broken in ("[" * 10_000, '["\ud800"]', "["):
        with pytest.raises(ValueError, match="looks like a JSON list but is not valid JSON"):
            json_list(broken)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/classify", b'{"x":[' + b"[]," * 100_000 + b"[]]}"),
        ("/classify", b'{"image":"aGk=","labels":"[' + b"[]," * 100_000 + b'[]]"}'),
        ("/classify", b'{"image":"aGk=","labels":"' + b"," * 200_000 + b'"}'),
        ("/classify", b'{"labels":["a","b"],"templates":[' + b'"",' * 100_000 + b'""]}'),
        ("/embeddings/text", b'{"texts":[' + b"[]," * 100_000 + b"[]]}"),
        ("/embeddings/image", b'{"images":[' + b"[]," * 100_000 + b"[]]}"),
        ("/v1/embeddings", b'{"input":[' + b"[]," * 100_000 + b"[]]}"),
        ("/hf/zero-shot-image-classification", b'{"inputs":[' + b"[]," * 100_000 + b"[]]}"),
        ("/classify/batch?labels=a,b", b'{"images":[' + b"[]," * 200_000 + b"[]]}"),
        ("/labelsets", b'{"labels":[' + b"[]," * 100_000 + b"[]]}"),
    ],
)
def test_every_route_that_takes_json_bounds_it(
    client: httpx.Client, path: str, body: bytes
) -> None:
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413, answer.text


def test_lines_of_a_label_set_are_read_up_to_the_limit_and_no_further(client: httpx.Client) -> None:
    def put(body: bytes) -> httpx.Response:
        return client.put("/labelsets/lines", content=body, headers={"Content-Type": "text/plain"})

    many = put(b"".join(b"%d\n" % n for n in range(200_000)))
    assert (many.status_code, many.json()["field"]) == (413, "labels")
    assert put(b"\n" * 500_000).json()["error_type"] == "invalid"
    lines = put(b"\xef\xbb\xbfcat\r\n\r\n  dog \rred\xe2\x80\xa9\xc2\xa0fox\n\n")
    assert lines.status_code in (200, 201, 202, 422), lines.text


def test_escaped_quotes_do_not_make_the_search_for_names_long() -> None:
    body = b'{"a": "' + b'\\"' * 5_000_000 + b'", "c": ":b"}'
    begun = time.process_time()
    assert json_object(body)["c"] == ":b"
    assert time.process_time() - begun < 1  # a step for each quote takes two seconds
