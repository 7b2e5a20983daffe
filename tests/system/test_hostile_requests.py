"""Requests made to harm: each gets its 2xx or 4xx, soon, and the server serves on."""

import base64
import contextlib
import io
import json
import socket
import time
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from PIL import Image
from schemathesis.core.result import Ok

from models.encoder import Encoder

LABELS = "cat,dog"
EXAMPLES = 12
SOON = 60.0  # on a busy machine

Answer = tuple[int, str | None]


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(out, "PNG")
    return out.getvalue()


IMAGE = base64.b64encode(png()).decode()


@pytest.fixture(scope="module")
def hostile(pictogram: Encoder, serve: Callable[..., Any]) -> Iterator[httpx.Client]:
    """A server that is asked nothing else; it must be as well at the end as at the beginning."""
    with serve(pictogram, request_timeout=60) as client:
        yield client
        assert client.get("/readyz").json()["status"] == "ready"
        response = client.post("/classify", content=png(), params={"labels": LABELS})
        assert response.status_code == 200


def refused(answer: httpx.Response, *statuses: int, field: str | None = None) -> dict[str, Any]:
    assert answer.status_code in statuses, (answer.status_code, answer.text[:300])
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert len(answer.content) < 5_000  # no echo of what was sent
    assert document.get("field") == field
    return document


def classify_json(client: httpx.Client, body: str | bytes) -> httpx.Response:
    return client.post("/classify", content=body, headers={"Content-Type": "application/json"})


# what the OpenAPI document leads to


def test_what_the_openapi_document_allows_and_forbids(hostile: httpx.Client) -> None:
    url = str(hostile.base_url)
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    counts: dict[str, int] = {}

    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        takes_nothing = not operation.body and not operation.query
        for mode in modes[:1] if takes_nothing else modes:
            strategy = operation.as_strategy(generation_mode=mode)

            @settings(
                max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
                suppress_health_check=list(HealthCheck), phases=[Phase.generate],
            )  # fmt: skip
            @given(case=strategy)
            def ask(case: Any) -> None:
                answer = case.call(base_url=url, timeout=SOON)
                counts[case.operation.label] = counts.get(case.operation.label, 0) + 1
                assert 200 <= answer.status_code < 500, case.as_curl_command()
                if answer.status_code >= 400:
                    assert answer.headers["content-type"][0].endswith("json")

            ask()
    assert {"POST /classify", "POST /labelsets", "PUT /labelsets/{name}"} <= set(counts)
    assert sum(counts.values()) > 50


# JSON


def body(*more: str, labels: str = '"a,b"') -> str:
    """A good body as text, with more fields as they are written."""
    return "{" + ", ".join([f'"image": "{IMAGE}"', f'"labels": {labels}', *more]) + "}"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ("[" * 100_000 + "]" * 100_000, 413, None),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, 413, None),
        ('{"labels": "a,b", "image": ' + "[" * 100_000, 413, None),
        (body(labels="[" * 150 + "]" * 150), 422, "labels"),
        (body('"top_k": ' + "9" * 1_000_000), 400, None),
        (body('"top_k": -' + "9" * 5_000), 400, None),
        (body('"top_k": 1e999999'), 422, "top_k"),
        (body('"threshold": 1e400'), 422, "threshold"),
        (body('"threshold": NaN'), 422, "threshold"),
        (body('"threshold": Infinity'), 422, "threshold"),
        (body('"threshold": -Infinity'), 422, "threshold"),
        (body('"threshold": 0.5.5'), 400, None),
        (body('"threshold": {}'), 422, "threshold"),
        (body('"multi_label": "' + "y" * 99 + '"'), 422, "multi_label"),
        (body(labels='{"a": ["b"]}'), 422, "labels"),
        (body(labels="[null, 1, true]"), 422, "labels"),
        (body('"__class__": 1'), 422, "__class__"),
        (body(f'"{"x" * 900_000}": 1'), 422, "x" * 60),
        (body(labels='"a,\\ud800"'), 400, None),
        (body(labels='["a", "b\\u0000"]'), 422, "labels"),
        ('{"labels": "a,b", "image": {"url": "x"}}', 422, "image"),
        ('{"labels": "a,b", "image": null}', 422, "image"),
        ('{"labels": "a,b", "image": ["AAAA"]}', 422, "image"),
        ("\ufeff{}", 422, "image"),
        ("", 400, None),
        ("null", 400, None),
        ("true false", 400, None),
        ('"' + "a" * 1_000_000, 400, None),
        (b'{"labels": "\xff\xfe"}', 400, None),
        ("{}".encode("utf-16"), 422, "image"),
    ],
    ids=range(30),
)
def test_json_that_is_meant_badly(
    hostile: httpx.Client, body: str | bytes, status: int, field: str | None
) -> None:
    refused(classify_json(hostile, body), status, field=field)


def test_a_key_that_is_there_twice_is_refused(hostile: httpx.Client) -> None:
    """As a field that is there twice in a form: readers of JSON would drop all but the last."""
    for repeated, name in (
        (['"labels": "cat,dog"'], "labels"),
        (['"top_k": 1'] * 5_000, "top_k"),
        (['"boxes": [{"x": 0, "y": 0, "x": 1, "width": 1, "height": 1}]'], "x"),
    ):
        document = refused(classify_json(hostile, body(*repeated)), 422)
        assert document["detail"] == f"'{name}' is there twice in one JSON object"
        assert document["value"] == name


# labels and templates


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["a", "x" * 10_000_000], (413, "labels")),
        (["a", " " * 1_000_000], (422, "labels")),
        (["a", "\u202eb"], (422, "labels")),  # turns what follows around
        (["حرب", "שלום"], (200, None)),
        (["👩‍👩‍👧‍👦", "🏳️‍🌈"], (200, None)),
        (["a", "a\u0300" * 90], (413, "labels")),
        (["a", "e\u0301"], (200, None)),
        (["é", "e\u0301", "a"], (200, None)),
        (["a", "\u200b"], (422, "labels")),
        (["a", "\ufffd"], (200, None)),
        (["a", "\x7f"], (422, "labels")),
        (["a", "\x1b[31mred"], (422, "labels")),
        (["a", "\r\nSet-Cookie: x"], (200, None)),
        (["a", "a\r\nSet-Cookie: x"], (422, "labels")),
        (["a", "b\u2028c"], (422, "labels")),
        (["a", "a\u00a0"], (422, "labels")),
        (["<script>alert(1)</script>", "' OR 1=1 --"], (200, None)),
        (["{}", "{0.__class__}"], (200, None)),
        (["%s%n", "${jndi:ldap://x}"], (200, None)),
        (["", ""], (422, "labels")),
        ([], (422, "labels")),
        (["a"] * 1_000, (422, "labels")),
        (["a"] * 100_000, (413, None)),
        (["🏴" * 80, "b"], (413, "labels")),
    ],
    ids=range(24),
)
def test_labels_in_all_shapes(hostile: httpx.Client, labels: list[str], expected: Answer) -> None:
    status, field = expected
    body = json.dumps({"image": IMAGE, "labels": labels})
    answer = classify_json(hostile, body)
    if status == 200:
        assert answer.status_code == 200, answer.text
        labels_back = {prediction["label"] for prediction in answer.json()["predictions"]}
        expected_labels = {unicodedata.normalize("NFC", label.strip()) for label in labels}
        assert labels_back == expected_labels
        for kind in ("text/csv", "text/plain"):
            headers = {"Accept": kind, "Content-Type": "application/json"}
            lines = hostile.post("/classify", content=body, headers=headers)
            assert lines.status_code == 200
            assert all(label in lines.text.replace('""', '"') for label in expected_labels)
    else:
        refused(answer, status, field=field)


@pytest.mark.parametrize(
    "template",
    [
        "{0.__class__}", "{{}}", "no place", "{} {}", "{", "}", "{}{", "{0}", "{label}", "{!r}",
        "{:>1000000000}", "%s", "", "{}" * 1_000, "{}\0", "{}\ud800", "a {} " + "x" * 1_000_000,
    ],
    ids=range(17),
)  # fmt: skip
def test_templates_are_texts_and_nothing_more(hostile: httpx.Client, template: str) -> None:
    for templates in (template, [template], ["a {}.", template]):
        body = json.dumps({"image": IMAGE, "labels": LABELS, "templates": templates})
        status = classify_json(hostile, body).status_code
        assert status in ((400,) if "\ud800" in template else (404, 413, 422)), templates


def test_a_label_that_looks_like_a_template_is_a_label(hostile: httpx.Client) -> None:
    body = {"image": IMAGE, "labels": ["{}", "{0}"], "templates": ["a {}."]}
    assert hostile.post("/classify", json=body).status_code == 200


# names of label sets

NAMES = [
    "../x", "..%2fx", "%2e%2e%2f", "..", ".", ".hidden", "a/b", "a%2fb", "a%252fb", "a\\b", "%00",
    "a%00b", "a%0d%0ab", "x" * 65, "x" * 60_000, "%ff%fe", "%f0%9f%98%80", "a b", "a%20b", "a;b",
    "~root", "-x", "CON%3a", "*", "{name}", "$%7bx%7d", "%", "%zz", "a?b=c#d", "%e2%80%ae",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_that_are_paths_reach_no_file(hostile: httpx.Client, name: str) -> None:
    for method, body in (("GET", None), ("DELETE", None), ("PUT", b"cat\ndog")):
        answer = _raw(hostile, method, f"/labelsets/{name}", body)
        if answer.startswith(b"HTTP/1.1 2"):
            # a dot at the end of a path, or a query: what is left is a name or the list
            assert name in (".", "..", "a?b=c#d"), answer[:200]
        else:
            assert answer.split()[1] in (b"400", b"404", b"405", b"422", b"431"), answer[:200]
            assert b"application/problem+json" in answer
    named = {"name": name, "labels": ["a", "b"]}
    assert hostile.post("/labelsets", json=named).status_code == 422
    response = hostile.get("/labelsets", params={"after": name, "limit": 1})
    assert response.status_code in (200, 422)


def test_label_sets_in_all_shapes(hostile: httpx.Client) -> None:
    shapes: list[tuple[Any, set[int]]] = [
        ({"labels": {"a": ["b"] * 1_000}}, {413, 422}),
        ({"labels": {f"l{n}": [] for n in range(10_001)}}, {413}),
        ({"labels": {"a": [["b"]], "c": []}}, {422}),
        ({"labels": {"a": {"b": {}}}}, {422}),
        ({"labels": ["a", "b"], "prompts": {"c": ["x"]}}, {422}),
        ({"labels": ["a", "b"], "prompts": {"a": ["x" * 1_000_000]}}, {413}),
        ({"labels": ["a", "b"], "description": "x" * 1_001}, {413}),
        ({"labels": ["a", "b"], "description": "\0"}, {200, 201, 202, 422}),
        ({"labels": ["a", "b"], "preset": "imagenet-1k"}, {422}),
        ({"labels": ["a", "b"], "preset": "../../etc/passwd"}, {422}),
        ({"preset": "../../etc/passwd"}, {422}),
        ({"labels": ["a", "b"], "templates": "../simple"}, {404, 422}),
        ({"labels": ["a", "b"], "templates": ["{}"] * 1_000}, {413, 422}),
        ({"labels": None}, {422}),
        ({"labels": 7}, {422}),
        ({}, {422}),
        ([], {400}),
    ]
    for body, statuses in shapes:
        answer = hostile.put("/labelsets/shapes", json=body)
        assert answer.status_code in statuses, (str(body)[:80], answer.text[:300])
        if answer.is_client_error:
            assert answer.status_code == 400 or answer.json()["field"]
    for lines in (b"\0\n" * 99, b"\xff\xfe", b"a\n" * 20_000, b"x" * 3_000_000, b"", b"\n" * 9_999):
        assert hostile.put("/labelsets/lines", content=lines).status_code in (400, 413, 422)
    for header in ('"1"' * 10_000, '"' + "9" * 5_000 + '"', "*,*", '"-1"', "\xff"):
        for name in ("If-Match", "If-None-Match"):
            headers = {name: header.encode("latin-1")}
            answer = hostile.put("/labelsets/matched", content=b"a\nb", headers=headers)
            assert answer.status_code in (201, 202, 412, 422), (name, header[:9], answer.text)
            hostile.delete("/labelsets/matched")


# forms


def part(disposition: bytes, body: bytes = b"x", *headers: bytes) -> bytes:
    lines = [b"--B", b"Content-Disposition: form-data; " + disposition, *headers, b"", body, b""]
    return b"\r\n".join(lines)


LABELS_PART = part(b'name="labels"', b"cat,dog")
IMAGE_PART = part(b'name="image"; filename="x"', png())
END = b"--B--\r\n"
ANY = (200, 400, 413, 415, 422)


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        (part(b'name="labels"', b"a") * 5_000 + END, (413,)),
        (b"".join(part(b'name="f%d"' % n) for n in range(1_100)) + END, (413, 422)),
        (b"--B\r\n\r\n\r\n" * 5_000 + END, (400,)),
        (b"--B\r\n" * 50_000 + END, (400,)),
        (part(b'name=""') * 500 + END, (422,)),
        (part(b'name="' + b"x" * 1_000_000 + b'"') + END, (400, 422)),
        (part(b'name="labels"', b"x" * 1_100_000) + END, (413,)),
        (part(b'name="labels"', b"x", *[b"X-%d: y" % n for n in range(5_000)]) + END, (400,)),
        (part(b'name="labels"', b"x", b"X: " + b"y" * 900_000) + END, (400,)),
        (part(b'name="labels"', b"x", b"Content-Type: multipart/mixed; boundary=C") + END, (422,)),
        (LABELS_PART + part(b'name="image"', b"--C\r\n\r\nx\r\n--C--",
                            b"Content-Type: multipart/mixed; boundary=C") + END, (422,)),
        (LABELS_PART + IMAGE_PART, (400,)),
        (LABELS_PART + IMAGE_PART + b"--B", (400,)),
        (LABELS_PART + IMAGE_PART + b"--Bx\r\n", (400,)),
        ((LABELS_PART + IMAGE_PART + END).replace(b"\r\n", b"\n"), (400,)),
        (LABELS_PART + IMAGE_PART + END + b"x" * 1_000_000, ANY),
        (b"x" * 1_000_000 + LABELS_PART + IMAGE_PART + END, ANY),
        (b"x" * 1_000_000, (400,)),
        (b"", (400, 422)),
        (END, (422,)),
        (LABELS_PART + part(b"filename=x", png()) + END, (400, 422)),
        (LABELS_PART + part(b'name=image; filename*=UTF-8\'\'%00%ff', png()) + END, ANY),
        (LABELS_PART + part(b'name="image"; filename="../../etc/passwd"', png()) + END, (200,)),
        (LABELS_PART + part(b'name="image"; filename="C:\\\\a\\b"', png()) + END, (200,)),
        (LABELS_PART + part(b'name="image"; filename="a\0b\xff"', png()) + END, ANY),
        (LABELS_PART + part(b'name="image"; name="labels"; filename="x"', png()) + END, ANY),
        (LABELS_PART + part(b'name="image"; filename="x"', png(),
                            b"Content-Transfer-Encoding: base64") + END, ANY),
        (LABELS_PART + part(b'name="image"; filename="x"', png(), b"Content-Type: \xff") + END,
         ANY),
        (LABELS_PART + IMAGE_PART * 3 + END, (400, 413, 422)),
        (part(b'name="labels"; filename="l"', b"cat,dog") + IMAGE_PART + END, (200,)),
        (part(b'name="labels"', b"\xff\xfe") + IMAGE_PART + END, (400, 422)),
        (part(b'name="labels\xff"', b"a") + IMAGE_PART + END, (400, 422)),
        (b"--B\r\nContent-Disposition: attachment; name=labels\r\n\r\nx\r\n" + END, (400, 422)),
        (b"--B\r\nX\r\n\r\nx\r\n" + END, (400,)),
        (b"--B\r\n : \r\n\r\nx\r\n" + END, (400,)),
    ],
    ids=range(35),
)  # fmt: skip
def test_forms_that_are_meant_badly(
    hostile: httpx.Client, body: bytes, statuses: tuple[int, ...]
) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=B"}
    start = time.monotonic()
    answer = hostile.post("/classify", content=body, headers=headers)
    assert time.monotonic() - start < SOON
    if answer.status_code == 200:
        assert 200 in statuses
    else:
        document = answer.json()
        refused(answer, *statuses, field=document.get("field"))
        assert answer.status_code in (400, 413) or document["field"] is not None


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary="',
        "multipart/form-data; boundary=" + "B" * 10_000,
        "multipart/form-data; boundary=B; boundary=C",
        "multipart/form-data; boundary=B; charset=" + "x" * 5_000,
        "multipart/form-data; boundary=B; charset=\xff",
        "multipart/mixed; boundary=B",
        "multipart/form-data;;;;=;=" * 500,
        "application/json; charset=utf-7",
        "application/" + "x" * 5_000 + "+json",
        "application/x-www-form-urlencoded; charset=utf-16",
        "text/html",
        "image/svg+xml",
        "",
        "/",
        "\xff",
    ],
    ids=range(17),
)
def test_content_types_that_do_not_fit(hostile: httpx.Client, kind: str) -> None:
    headers = {"Content-Type": kind.encode("latin-1")}
    for body in (LABELS_PART + IMAGE_PART + END, b'{"labels": "a,b"}', b"labels=a,b", b""):
        refused_or_well(hostile.post("/classify", content=body, headers=headers))
        refused_or_well(hostile.put("/labelsets/kinds", content=body, headers=headers))


def refused_or_well(answer: httpx.Response) -> None:
    assert answer.status_code < 500, answer.text
    if answer.is_client_error:
        refused(answer, answer.status_code, field=answer.json().get("field"))


def test_addresses_with_thousands_of_fields(hostile: httpx.Client) -> None:
    for query in (
        "&".join(f"f{n}=1" for n in range(7_000)),
        "&".join("labels=a" for _ in range(5_000)),
        "=" * 50_000,
        "labels=" + "%2c" * 15_000,
        "labels=" + "%" * 15_000,
        "labels=" + quote(json.dumps(["a"] * 900)),
        "labels=" + "[" * 30_000,
        "%5B%5D" * 5_000 + "=1",
        "labels=a,b&top_k=" + "9" * 30_000,
        "labels=a,b&threshold=" + "9" * 30_000,
        "labels=a,b&multi_label=" + "1" * 30_000,
        "labels=a,b&image=x",
        "labels[]=a&labels[]=b",
        "labels;=a,b",
    ):
        answer = hostile.post(f"/classify?{query}", content=png())
        assert answer.status_code in (413, 422), (query[:40], answer.text[:300])
        assert answer.json()["field"] is not None, query[:40]
    # separators alone are no field
    assert hostile.post("/classify?" + "&" * 50_000, content=png()).status_code == 200


@pytest.mark.parametrize(
    "image",
    [
        "=" * 100_000, "A" * 999_999, "data:image/png;base64," + "=" * 9, "data:" * 50_000,
        "data:;base64,", "data:image/png;base64;base64,AAAA", "DATA:image/png;BASE64," + "!" * 9,
        "data:image/png," + "%41" * 9, "data:image/png" + ";a=b" * 90_000 + ";base64,AAAA",
        " " * 1_000_000, "\n" * 1_000_000, "AA\0A", "ＡＡＡＡ", "file:///etc/passwd",
        "\u2028" * 999,
        "data:image/svg+xml;base64," + base64.b64encode(b"<svg").decode(), "-_-_" * 99,
    ],
    ids=range(17),
)  # fmt: skip
def test_images_in_base64_that_are_none(hostile: httpx.Client, image: str) -> None:
    start = time.monotonic()
    for answer in (
        hostile.post("/classify", json={"image": image, "labels": LABELS}),
        hostile.post("/classify", files={"image": (None, image), "labels": (None, LABELS)}),
    ):
        refused(answer, 413, 415, 422, field=answer.json().get("field"))
    assert time.monotonic() - start < SOON


# bodies on the wire


def _raw(client: httpx.Client, method: str, target: str, body: bytes | None) -> bytes:
    """A request exactly as it is written here, and all of its answer."""
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    if body is not None:
        head += f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    with _connect(client) as sock:
        sock.sendall(head.encode() + b"\r\n" + (body or b""))
        return _rest(sock)


def _connect(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=SOON)


def _rest(sock: socket.socket) -> bytes:
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while chunk := sock.recv(1 << 20):
            parts.append(chunk)
    return b"".join(parts)


def _post(*lines: bytes) -> bytes:
    first = b"POST /classify?labels=a,b HTTP/1.1"
    return b"\r\n".join([first, b"Host: x", b"Content-Type: image/png", *lines, b"", b""])


def test_a_body_shorter_than_it_says_is_waited_for_and_then_given_up(
    pictogram: Encoder, serve: Callable[..., Any]
) -> None:
    with serve(pictogram, request_timeout=2, head_timeout=3) as client, _connect(client) as sock:
        sock.sendall(_post(b"Content-Length: 100000") + png())
        reply = _rest(sock)  # the answer, and then the connection is closed
        assert reply.startswith(b"HTTP/1.1 408 ")
        assert b"slow_body" in reply
        assert client.get("/healthz").status_code == 200


def test_a_body_that_trickles_or_never_ends_is_given_up(
    pictogram: Encoder, serve: Callable[..., Any]
) -> None:
    with serve(pictogram, request_timeout=2, head_timeout=3) as client, _connect(client) as sock:
        end = time.monotonic() + SOON
        sock.sendall(_post(b"Transfer-Encoding: chunked"))
        with contextlib.suppress(ConnectionError):
            while True:
                assert time.monotonic() < end
                sock.sendall(b"1\r\nx\r\n")
                time.sleep(0.05)
        # what came before the connection ended is there still
        assert _rest(sock).startswith(b"HTTP/1.1 408 ")
        assert client.get("/healthz").status_code == 200


def test_a_body_longer_than_it_says_is_no_part_of_the_request(hostile: httpx.Client) -> None:
    with _connect(hostile) as sock:
        image = png()
        length = b"Content-Length: %d" % len(image)
        sock.sendall(_post(length) + image + b"and more of it" * 99)
        reply = _rest(sock)
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert reply.count(b"HTTP/1.1 400 ") == 1


def test_clients_that_send_and_run_away_leave_nothing_behind(hostile: httpx.Client) -> None:
    image = png()
    for count in range(60):
        with _connect(hostile) as sock:
            length = b"Content-Length: %d" % len(image)
            sock.sendall((_post(length) + image)[: 40 + 5 * count])
    end = time.monotonic() + SOON
    while hostile.get("/healthz").status_code != 200 and time.monotonic() < end:
        time.sleep(0.1)
    assert hostile.get("/readyz").status_code == 200
