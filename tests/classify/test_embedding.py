"""Embeddings of pictures seen lately: over HTTP, bounded, and apart by model."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.classify.embedding import LARGE, Embedded, ImageCache, digest
from app.errors import Invalid, each_of
from app.stores.lru import ByteLru
from models.encoder import Encoder


def test_a_picture_that_was_seen_is_not_encoded_again(
    pictogram: Encoder, serve: Callable[..., Any], samples: dict[str, Path]
) -> None:
    with serve(pictogram, image_cache_bytes=1_000_000) as client:
        answers = [
            client.post(
                "/classify",
                files={"image": samples["cat"].read_bytes()},
                data={"labels": labels},
            )
            for labels in ("cat,dog", "cat,dog", "rocket,cat,pizza")
        ]
        first, second, third = (answer.json() for answer in answers)
        assert [a["image"]["cached"] for a in (first, second, third)] == [False, True, True]
        assert second["predictions"] == first["predictions"]
        assert third["predictions"][0]["label"] == "cat"
        assert {**second["image"], "cached": False} == first["image"]
        assert "encode" not in answers[1].headers["server-timing"]
        cache = client.get("/models").json()["image_cache"]
        assert (cache["entries"], cache["hits"], cache["misses"]) == (1, 2, 1)
        assert cache["bytes"] <= cache["max_bytes"] == 1_000_000


def test_switched_off_it_keeps_nothing(
    pictogram: Encoder, serve: Callable[..., Any], samples: dict[str, Path]
) -> None:
    with serve(pictogram, image_cache_bytes=0) as client:
        for _ in range(2):
            answer = client.post(
                "/classify",
                files={"image": samples["cat"].read_bytes()},
                data={"labels": "cat,dog"},
            ).json()
            assert answer["image"]["cached"] is False
        assert client.get("/models").json()["image_cache"]["entries"] == 0


def test_another_model_does_not_see_the_embedding() -> None:
    memory = ByteLru(10_000)
    embedded = Embedded(np.float32([0.6, 0.8]), 16_000_000, 3)
    ImageCache(memory, "one").put("ab", embedded)
    row = ImageCache(memory, "one").get("ab")
    assert row is not None
    np.testing.assert_array_equal(row.vector, embedded.vector)
    assert (row.width, row.height) == (16_000_000, 3)
    assert ImageCache(memory, "other").get("ab") is None


def test_digests_of_large_and_small_files_are_sha256() -> None:
    for data in (b"small", b"x" * (LARGE + 1)):
        assert asyncio.run(digest(data)) == hashlib.sha256(data).hexdigest()


async def settle() -> None:
    """Whoever has something to do has done it."""
    for _ in range(30):
        await asyncio.sleep(0)


def test_one_that_fails_calls_off_those_after_it_and_waits_for_those_before_it() -> None:
    ended = []

    async def call(place: int, late: asyncio.Event) -> None:
        try:
            await late.wait()
            raise Invalid(f"number {place}")
        finally:
            for _ in range(place):  # what it closes at its end takes a while
                await asyncio.sleep(0)
            ended.append(place)

    async def run() -> None:
        events = [asyncio.Event() for _ in range(5)]
        calls = asyncio.create_task(each_of(map(call, range(5), events)))
        await settle()
        events[2].set()
        await settle()
        assert ended == [2, 3, 4]
        events[1].set()
        await settle()
        assert ended == [2, 3, 4, 1]
        assert not calls.done()  # number 0 may fail, too
        events[0].set()
        with pytest.raises(Invalid, match="number 0"):
            await calls

    asyncio.run(run())


@pytest.mark.parametrize("just_as_one_ends", [False, True])
def test_a_caller_that_leaves_calls_off_all(just_as_one_ends: bool) -> None:
    ended = []

    async def run() -> None:
        async def call(place: int) -> None:
            try:
                if place == 0 and just_as_one_ends:
                    asyncio.get_running_loop().call_soon(calls.cancel)
                    return
                await asyncio.Event().wait()
            finally:
                ended.append(place)

        calls = asyncio.create_task(each_of(map(call, range(3))))
        await settle()
        if not just_as_one_ends:
            calls.cancel()
            await settle()
        assert sorted(ended) == [0, 1, 2]
        with pytest.raises(asyncio.CancelledError):
            await calls

    asyncio.run(run())
