"""Compressed answers: for those who ask, line by line where they stream, with tags of their own."""

import asyncio
import gzip
import json
import socket
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse, Response, StreamingResponse

from app.api.middleware.compression import LARGE, LEAST, Compression, wants_gzip
from tests.conftest import alike

PLAIN = {"Accept-Encoding": "identity"}
GZIP = {"Accept-Encoding": "gzip"}


def through(
    response: Response, *headers: tuple[bytes, bytes]
) -> tuple[dict[str, str], list[bytes], list[tuple[bytes, bytes]]]:
    """Headers and pieces of an answer as the middleware sends it, and the headers that came in."""
    messages: list[dict[str, Any]] = []
    requests: list[tuple[bytes, bytes]] = []

    async def route(scope: Any, receive: Any, send: Any) -> None:
        requests.extend(scope["headers"])
        await response(scope, receive, send)

    async def receive() -> Any:
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        messages.append(dict(message))

    scope = {"type": "http", "method": "GET", "headers": list(headers), "path": "/"}
    asyncio.run(Compression(route)(scope, receive, send))  # type: ignore[arg-type]
    start, *rest = messages
    pairs = {name.decode(): value.decode() for name, value in start["headers"]}
    return pairs, [message["body"] for message in rest], requests


ASKED = (b"accept-encoding", b"gzip, deflate, br")
LONG = {"labels": [f"label {number}" for number in range(500)]}


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("gzip", True), ("br, GZIP;q=0.5", True), ("x-gzip", True), ("*", True),
        ("identity, gzip", True), ("", False), ("br", False), ("gzip;q=0", False),
        ("gzip;q=0, *", False), ("*;q=0", False), ("identity, gzip;q=0.5", False),
        ("gzip;q=nonsense", False),
    ],
)  # fmt: skip
def test_only_who_asks_for_gzip_gets_it(accepted: str, expected: bool) -> None:
    assert wants_gzip(accepted.encode()) == expected


@pytest.mark.parametrize("size", [LEAST, LARGE])
def test_an_answer_is_compressed_as_a_whole(size: int) -> None:
    body = b"a cat " * size
    headers, (piece, *rest), _ = through(Response(body, media_type="text/plain"), ASKED)
    assert not any(rest)
    assert headers["content-encoding"] == "gzip"
    assert headers["content-length"] == str(len(piece))
    assert headers["vary"] == "Accept-Encoding"
    assert gzip.decompress(piece) == body


def test_what_does_not_get_smaller_or_is_compressed_already_stays() -> None:
    picture = Response(b"x" * 5_000, media_type="image/png")
    packed = Response(b"x" * 5_000, media_type="text/plain", headers={"Content-Encoding": "br"})
    small = Response(b"x" * (LEAST - 1), media_type="text/plain")
    whole = Response(b"x" * 5_000, media_type="text/plain")
    whole.headers["Cache-Control"] = "no-transform"
    part = Response(b"x" * 5_000, status_code=206, media_type="text/plain")
    for response in (picture, packed, small, whole, part):
        headers, pieces, _ = through(response, ASKED)
        assert headers.get("content-encoding") in (None, "br")
        assert b"".join(pieces) == response.body
    headers, pieces, _ = through(JSONResponse(LONG))
    assert "content-encoding" not in headers
    assert "vary" not in headers
    headers, pieces, _ = through(Response(b"x" * LEAST, media_type="text/plain"), ASKED)
    assert headers["content-encoding"] == "gzip"


@pytest.mark.parametrize("declared", [False, True])
def test_each_piece_of_a_stream_can_be_read_when_it_arrives(declared: bool) -> None:
    lines = [b'{"index": %d}\n' % number for number in range(20)]

    async def streamed() -> AsyncIterator[bytes]:
        for line in lines:
            yield line

    response = StreamingResponse(streamed(), media_type="application/x-ndjson")
    if declared:  # the length is that of the lines as they are
        response.headers["Content-Length"] = str(LEAST + len(b"".join(lines)))
    headers, pieces, _ = through(response, ASKED)
    assert headers["content-encoding"] == "gzip"
    assert "content-length" not in headers
    reader = zlib.decompressobj(zlib.MAX_WBITS | 16)
    for line, piece in zip(lines, pieces, strict=False):
        assert reader.decompress(piece) == line
    assert reader.decompress(b"".join(pieces[len(lines) :])) == b""
    assert reader.eof


def test_a_tag_of_compressed_bytes_is_another_one_and_is_known_when_it_comes_back() -> None:
    strong = JSONResponse(LONG, headers={"ETag": '"7"'})
    headers, _, _ = through(strong, ASKED)
    assert headers["etag"] == '"7-gzip"'
    weak = JSONResponse(LONG, headers={"ETag": 'W/"7"'})
    assert through(weak, ASKED)[0]["etag"] == 'W/"7"'
    condition = (b"if-none-match", b'"5", "7-gzip"')
    unchanged = Response(status_code=304, headers={"ETag": '"7"'})
    headers, _, requests = through(unchanged, ASKED, condition)
    assert dict(requests)[b"if-none-match"] == b'"5", "7"'
    assert headers["etag"] == '"7-gzip"'


def test_a_label_set_keeps_its_preconditions_when_it_is_compressed(client: httpx.Client) -> None:
    labels = [f"thing number {number}" for number in range(100)]
    body = {"labels": labels, "prompts": {name: [name] for name in labels}}
    client.put("/labelsets/packed", json=body, params={"wait": True})
    plain = client.get("/labelsets/packed", headers=PLAIN)
    packed = client.get("/labelsets/packed", headers=GZIP)
    assert packed.headers["content-encoding"] == "gzip"
    assert "Accept-Encoding" in packed.headers["vary"]
    assert packed.json() == plain.json()
    tag, plain_tag = packed.headers["etag"], plain.headers["etag"]
    assert tag == plain_tag[:-1] + '-gzip"'
    for condition in (tag, plain_tag, f'"1", {tag}', "*"):
        response = client.get("/labelsets/packed", headers={**GZIP, "If-None-Match": condition})
        assert (response.status_code, response.content) == (304, b"")
    head = client.head("/labelsets/packed", headers=GZIP)
    assert head.headers["content-length"] == packed.headers["content-length"]
    changed = {**GZIP, "If-Match": tag}
    second = {**body, "description": "another"}
    assert client.put("/labelsets/packed", json=second, headers=changed).is_success
    assert client.put("/labelsets/packed", json=body, headers=changed).status_code == 412
    client.delete("/labelsets/packed")


def test_the_page_is_compressed_and_asked_for_again(client: httpx.Client) -> None:
    page = client.get("/", headers=GZIP)
    assert page.headers["content-encoding"] == "gzip"
    assert page.text == client.get("/", headers=PLAIN).text
    condition = {**GZIP, "If-None-Match": page.headers["etag"]}
    assert client.get("/", headers=condition).status_code == 304


def test_lines_of_a_batch_arrive_compressed_while_the_next_picture_is_awaited(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    picture = samples["cat"].read_bytes()
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    labels = b'--b\r\nContent-Disposition: form-data; name="labels"\r\n\r\ncat,dog\r\n'
    first, second = labels + head + picture + b"\r\n" + head, picture + b"\r\n--b--\r\n"
    url = client.base_url
    with socket.create_connection((url.host, url.port), timeout=60) as link:
        link.sendall(
            b"POST /classify/batch HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Accept: application/x-ndjson\r\nAccept-Encoding: gzip\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        link.sendall(b"%x\r\n%b\r\n" % (len(first), first))
        answer = link.makefile("rb")
        headers = list(iter(answer.readline, b"\r\n"))
        assert b"content-encoding: gzip\r\n" in headers
        reader = zlib.decompressobj(zlib.MAX_WBITS | 16)
        text = b""
        while b"\n" not in text:  # the first line is here before the second picture is sent
            size = int(answer.readline(), 16)
            text += reader.decompress(answer.read(size))
            answer.readline()
        assert json.loads(text.partition(b"\n")[0])["index"] == 0
        link.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(second), second))
        while size := int(answer.readline(), 16):
            text += reader.decompress(answer.read(size))
            answer.readline()
    assert [json.loads(line)["index"] for line in text.splitlines()] == [0, 1]
    assert reader.eof


def test_a_long_answer_varies_by_form_and_coding(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    labels = ",".join(f"thing {number}" for number in range(40))
    fields = {"labels": labels, "top_k": "40"}
    image = {"image": samples["cat"].read_bytes()}
    plain, packed = (
        client.post("/classify", files=image, data=fields, headers=headers)
        for headers in (PLAIN, GZIP)
    )
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == "Accept, Accept-Encoding"
    assert plain.json()["predictions"] == alike(packed.json()["predictions"])
