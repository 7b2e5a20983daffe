"""Compressed request bodies: read within the limits of plain ones, or refused by name."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.middleware.content_encoding import Unpacked
from models.encoder import Encoder

LABELS = {"labels": "cat,dog"}


def send(client: httpx.Client, content: bytes, coding: str) -> httpx.Response:
    headers = {"Content-Encoding": coding}
    return client.post("/classify", params=LABELS, content=content, headers=headers)


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("X-GZip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda data: zlib.compress(data, wbits=-15)),  # as some clients mean it
        ("identity", bytes),
        ("gzip", lambda data: gzip.compress(data[:500]) + gzip.compress(data[500:])),
    ],
)
def test_a_compressed_body_is_what_it_unpacks_to(
    client: httpx.Client, samples: dict[str, Path], coding: str, pack: Callable[[bytes], bytes]
) -> None:
    picture = samples["cat"].read_bytes()
    plain = client.post("/classify", params=LABELS, content=picture).json()
    response = send(client, pack(picture), coding)
    assert response.status_code == 200, response.text
    assert response.json()["image"]["sha256"] == plain["image"]["sha256"]


def test_json_is_unpacked_too(client: httpx.Client) -> None:
    packed = gzip.compress(json.dumps({"input": ["a cat"] * 500}).encode())
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    response = client.post("/v1/embeddings", content=packed, headers=headers)
    assert response.status_code == 200, response.text[:300]
    assert len(response.json()["data"]) == 500


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "nonsense"])
def test_other_codings_are_refused_with_those_that_are_read(
    client: httpx.Client, coding: str
) -> None:
    response = send(client, b"x" * 100, coding)
    assert response.status_code == 415
    assert response.json()["error_type"] == "unsupported_encoding"
    assert response.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    ("content", "coding"),
    [
        (b"not packed at all", "gzip"),
        (gzip.compress(bytes(5000), mtime=0)[:-9], "gzip"),
        (gzip.compress(bytes(5000), mtime=0) + b"more", "gzip"),
        (zlib.compress(bytes(5000))[:-3], "deflate"),
        (zlib.compress(bytes(5000)) + b"more", "deflate"),
        (2 * zlib.compress(bytes(5000)), "deflate"),  # members are for gzip
    ],
)
def test_a_broken_stream_is_400(client: httpx.Client, content: bytes, coding: str) -> None:
    response = send(client, content, coding)
    assert response.status_code == 400, response.text
    assert response.json()["error_type"] == "unparsable_body"


def test_a_bomb_is_over_the_limit_of_a_plain_body(
    pictogram: Encoder, serve: Callable[..., Any]
) -> None:
    with serve(pictogram, max_image_bytes=1_000_000) as client:
        response = send(client, gzip.compress(bytes(20_000_000), 1), "gzip")
    assert response.status_code == 413
    problem = response.json()
    assert problem["limit"] == 1_000_000
    assert problem["value"] <= 1_000_000 + 262_144  # it stopped there


def test_a_body_that_unpacks_to_many_times_its_size_is_over_the_limit(
    client: httpx.Client,
) -> None:
    packed = gzip.compress(b" " * 3_000_000)  # far below the limit of a batch
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = client.post("/classify/batch", content=packed, headers=headers)
    assert answer.status_code == 413
    assert answer.json()["limit"] == 50 * len(packed)
    # small bodies repeat themselves, and may
    small = b'{"labels": ["a", "b"], "image": ""' + b" " * 900_000 + b"}"
    few = client.post("/classify", content=gzip.compress(small), headers=headers)
    assert few.status_code == 422


@pytest.mark.parametrize("bits", [15, -15])
@pytest.mark.parametrize("size", [1, 2, 7, 1_000])
def test_deflate_is_read_however_it_is_wrapped_and_cut(bits: int, size: int) -> None:
    text = b"a cat and a dog " * 50
    packed = zlib.compress(text, wbits=bits)
    pieces = [packed[start : start + size] for start in range(0, len(packed), size)]
    messages = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
        for number, piece in enumerate(pieces, start=1)
    ]

    async def receive() -> Any:
        return messages.pop(0)

    async def read() -> bytes:
        body, more = b"", True
        unpacked = Unpacked(receive, "deflate", len(text), None)
        while more:
            message = await unpacked.receive()
            body, more = body + message["body"], message["more_body"]
        return body

    assert asyncio.run(read()) == text


def test_an_empty_body_of_any_coding_is_empty(client: httpx.Client) -> None:
    for coding in ("gzip", "deflate"):
        assert send(client, b"", coding).status_code == 422
