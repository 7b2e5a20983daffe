"""Damaged vectors in a store: noticed, computed anew, and put right."""

import asyncio
import json
import logging
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from redis import Redis

from app.stores.lru import ByteLru
from app.stores.memory import MemoryVectors
from app.stores.vectors import TwoLevels, decode, encode
from models.encoder import Encoder

WIDTH = 4
LABELS = [f"thing {number}" for number in range(9)]


def sealed(numbers: list[float]) -> bytes:
    """A value whose checksum is right, whatever its numbers are."""
    head = struct.pack("<4sII", b"OVEC", 1, len(numbers))
    payload = np.array(numbers, "<f4").tobytes()
    return head + struct.pack("<I", zlib.crc32(head + payload)) + payload


def poisons(value: bytes) -> list[bytes]:
    """One value in each way that it can be wrong."""
    width = (len(value) - 16) // 4
    first = [1.0] + [0.0] * (width - 1)
    return [
        value[:-1],
        value[: len(value) // 2],
        b"",
        value[:-1] + bytes([value[-1] ^ 1]),
        value[:40] + bytes([value[40] ^ 128]) + value[41:],
        sealed([np.nan, *first[1:]]),
        sealed([np.inf, *first[1:]]),
        sealed([2.0, *first[1:]]),
        sealed(first[:-1]),
    ]


def test_of_many_damaged_vectors_one_line_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        store = MemoryVectors(60, 1 << 20)
        levels = TwoLevels(ByteLru(1 << 20), store, WIDTH)
        good = np.array([0.6, 0.8, 0, 0], np.float32)
        await store.put_many({"good": encode(good), **{f"bad {n}": b"x" for n in range(50)}})
        rows = await levels.fetch(["good", *(f"bad {n}" for n in range(50))])
        assert list(rows) == ["good"]
        assert np.array_equal(rows["good"], good)
        kept = levels.memory.get("good")
        assert kept is not None
        assert np.array_equal(kept, good)
        assert (levels.store_hits, levels.store_misses) == (1, 50)

    with caplog.at_level(logging.WARNING):
        asyncio.run(test())
    (line,) = caplog.messages
    assert "50 damaged vectors" in line


@pytest.fixture(params=["sqlite", "redis"])
def damage(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[dict[str, Any], Callable[[], dict[str, bytes]], Callable[..., None]]]:
    """Settings of a store, what vectors it has, and how to put others into it."""
    if request.param == "sqlite":
        path = tmp_path / "openvocab.sqlite3"

        def stored_vectors() -> dict[str, bytes]:
            with closing(sqlite3.connect(path)) as file:
                return dict(file.execute("SELECT key, value FROM vectors ORDER BY key"))

        def put(values: dict[str, bytes]) -> None:
            with closing(sqlite3.connect(path)) as file, file:
                file.executemany("UPDATE vectors SET value = ? WHERE key = ?", [
                    (value, key) for key, value in values.items()
                ])  # fmt: skip
                file.execute("UPDATE vectors SET value = 'text' WHERE value = ?", (b"",))

        yield {"store_url": "", "data_dir": tmp_path}, stored_vectors, put
        return
    server = request.getfixturevalue("start_redis")()
    with Redis.from_url(server.url) as redis:

        def read_redis() -> dict[str, bytes]:
            keys = sorted(redis.keys("openvocab:vector:*"))
            return {key: redis.get(key) for key in keys if redis.type(key) == b"string"}

        def put_redis(values: dict[str, bytes]) -> None:
            redis.mset(values)
            empty = [key for key, value in values.items() if not value]
            redis.delete(*empty)
            for key in empty:
                redis.lpush(key, "another kind of value")

        yield {"store_url": server.url}, read_redis, put_redis


def test_damaged_vectors_of_a_store_are_computed_anew_and_put_right(
    damage: Any,
    pictogram: Encoder,
    serve: Callable[..., Any],
    samples: dict[str, Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    chosen, read, put = damage

    def classify(client: httpx.Client) -> dict[str, Any]:
        files, data = {"image": samples["cat"].read_bytes()}, {"labels": json.dumps(LABELS)}
        document: dict[str, Any] = client.post("/classify", files=files, data=data).json()
        return document

    with serve(pictogram, store_timeout=5, **chosen) as client:
        before = classify(client)
    kept = read()
    assert len(kept) >= len(LABELS)
    wrong = [poisons(value)[number % 9] for number, value in enumerate(kept.values())]
    put(dict(zip(kept, wrong, strict=True)))
    with serve(pictogram, store_timeout=5, **chosen) as client:
        after = classify(client)
    assert before["cached"] == after["cached"] == 0
    scores = [{p["label"]: p["score"] for p in each["predictions"]} for each in (before, after)]
    assert scores[1] == pytest.approx(scores[0], abs=1e-5)
    restored, width = read(), pictogram.info.embedding_width
    assert list(restored) == list(kept)
    for key, value in kept.items():
        # in steps of other sizes, which follow the speed of the moment, the last bits may differ
        vector = decode(restored[key], width)
        assert vector == pytest.approx(decode(value, width), abs=1e-6)
    assert "damaged vectors" in caplog.text
