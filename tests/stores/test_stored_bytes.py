"""Bytes that 0.1.0 wrote, in tests/data/stored, are read by this release for ever.

The SQLite file and the keys of a Redis hold the definitions below. They are never written again: a
new format adds fixtures beside them.
"""

import asyncio
import base64
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from redis import Redis

from app.labelsets.calibration.value import F1, Answered, Calibration, HeldOutFigures
from app.labelsets.definition import Definition, Entry, Example, from_body
from app.labelsets.registry import Registry
from app.stores import vectors
from app.stores.protocols import Head, LabelSetRecord, Store
from app.stores.redis.store import RedisStore
from app.stores.sqlite.store import SqliteStore

FOLDER = Path(__file__).parents[1] / "data" / "stored"


PLAIN = Definition(
    (
        Entry("cat", ("cat",)),
        Entry("dog", ("dog", "puppy", "a good boy")),
        Entry("猫 & 🐈", ("猫", "e\u0301\u2028")),
        Entry("whole", ("whole",), ("a photo of the whole.", "{} as it is")),
    ),
    "imagenet",
    'pets of "everybody"\n',
)
OWN_TEMPLATES = Definition(
    (Entry("cat", ("cat",)), Entry("dog", ("dog",))), ("a {}.", "{} and no {more}")
)
EXAMPLES = (
    Example("a" * 64, "cat", 640, 480, 1234, "0193a5c7e0ff" + "0" * 16),
    Example("b" * 64, "dog", 32, 65_000, 19_000_000, "0193a5c7e100" + "f" * 16),
)
FITTED = Calibration(
    model="pictogram",
    fingerprint="f" * 64,
    fitted_for="0" * 64,
    model_scale=100.00000762939453,
    scale=37.123456789012345,
    bias=None,
    floor=-1.0,
    margin=0.0125,
    threshold=0.031,
    thresholds={"cat": 0.02, "dog": -0.5},
    pictures=28,
    others=3,
    risk=0.05,
    confidence=0.95,
    before=HeldOutFigures(1.5, 0.125, 0.75),
    after=HeldOutFigures(0.5, 0.0625, 0.75),
    held_out=Answered(0.9, 0.04, 0.2, 0.6666666666666666),
    f1=F1(0.5, 0.25, 0.75, 1.0),
)
# of a model trained with sigmoids, without pictures of anything else, at its smallest
SIGMOID = Calibration(
    model="siglip",
    fingerprint="e" * 64,
    fitted_for="1" * 64,
    model_scale=117.3,
    scale=100,
    bias=-12.9,
    floor=0.0,
    margin=0.0,
    threshold=None,
    thresholds={},
    pictures=2,
    others=0,
    risk=0.0,
    confidence=None,
    before=HeldOutFigures(0.0, 0.0, 1.0),
    after=HeldOutFigures(0.0, 0.0, 1.0),
    held_out=Answered(1.0, 0.0, 1.0, None),
    f1=None,
)
LEARNED = Definition(OWN_TEMPLATES.entries, None, "", EXAMPLES, (FITTED,))
CALIBRATED = Definition(OWN_TEMPLATES.entries, "pictogram", "", (), (SIGMOID,))

# name: version, definition, whether it was built, and what served before it
STORED: dict[str, tuple[int, Definition, bool, tuple[int, Definition] | None]] = {
    "pets": (1764313200000, PLAIN, True, None),
    "own": (1764313200001, OWN_TEMPLATES, False, None),
    "learned": (1764313200002, LEARNED, True, None),
    "~shop/calibrated": (7, CALIBRATED, True, None),
    "~shop/replaced": (9, PLAIN, False, (8, LEARNED)),
}
DELETED = {"gone": 3}
PICTURE = ("learned", EXAMPLES[0].key, b"\x89PNG and what follows")
VECTOR = "k" * 64
END = "\U0010ffff"


def sqlite_store(tmp_path: Path) -> Store:
    path = tmp_path / "copy.sqlite3"
    shutil.copy(FOLDER / "store.sqlite3", path)
    return SqliteStore(path, 10, 3600, 1 << 30)


def redis_store(redis: Redis, url: str) -> Store:
    for key, kept in json.loads((FOLDER / "redis.json").read_text()).items():
        value = kept["value"]
        if kept["type"] == "zset":
            redis.zadd(key, value)
        elif kept["type"] == "hash":
            redis.hset(key, mapping={name: base64.b64decode(v) for name, v in value.items()})
        else:
            redis.set(key, base64.b64decode(value), px=3_600_000 if kept["expires"] else None)
    return RedisStore(url, 10, 3600)


@pytest.fixture(params=["sqlite", "redis"])
def written_before(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store with the bytes that 0.1.0 wrote."""
    if request.param == "sqlite":
        return sqlite_store(tmp_path)
    server = request.getfixturevalue("start_redis")()
    return redis_store(Redis.from_url(server.url), server.url)


def expect_all(store: Store) -> None:
    async def test() -> None:
        await store.open()
        try:
            registry = Registry(store.labelsets, store.pictures, 100)
            for name, (version, definition, built, previous) in STORED.items():
                stored = await registry.current(name)
                assert not stored.unreadable
                assert (stored.name, stored.version, stored.built) == (name, version, built)
                assert stored.definition == definition
                assert stored.definition.calibrations == definition.calibrations
                before = stored.previous
                assert (before and (before.version, before.definition)) == previous
                if before:
                    assert before.definition.calibrations == previous[1].calibrations
                    assert before.built
            for name, version in DELETED.items():
                assert await store.labelsets.head(name) == Head(version, deleted=True)
            assert {r.name for r in await store.labelsets.page("", END, 100)} == STORED.keys()
            assert set(await store.labelsets.recent()) == STORED.keys()
            name, key, picture = PICTURE
            assert await store.pictures.get(name, key, len(picture)) == picture
            (data,) = await store.vectors.get_many([VECTOR])
            row = vectors.decode(data, 8)
            assert row is not None
            np.testing.assert_array_equal(row, np.float32([0, 0.6, -0.8, 0, 0, 0, 0, 0]))
        finally:
            await store.close()

    asyncio.run(test())


def test_every_byte_that_0_1_0_stored_is_read_as_it_was_meant(written_before: Store) -> None:
    expect_all(written_before)


def test_definitions_are_still_written_as_0_1_0_reads_them(tmp_path: Path) -> None:
    # both releases may run side by side on one store while one replaces the other
    with closing(sqlite3.connect(FOLDER / "store.sqlite3")) as connection:
        rows = connection.execute("SELECT name, version, body FROM labelsets WHERE body NOT NULL")
        bodies = [LabelSetRecord(*row) for row in rows]
    assert len(bodies) == len(STORED)
    for record in bodies:
        again = json.loads(from_body(record.name, record.version, record.body).body())
        del again["crc32"]  # which 0.1.0 passes over
        assert again == json.loads(record.body)
