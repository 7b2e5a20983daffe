"""What is kept costs: bytes of a label vector and of a definition in each store."""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import numpy as np
from redis.asyncio import Redis

from app.labelsets.definition import Definition, Entry, new
from app.stores import vectors
from app.stores.protocols import Store
from app.stores.redis.store import RedisStore
from app.stores.sqlite.store import SqliteStore
from benchmarks.record import Cell, Result
from benchmarks.rounds import Effort
from benchmarks.servers import redis_server

VECTORS: Final = 10_000
SETS: Final = 100
LABELS: Final = 1_000

# widths of embeddings: pictogram, ViT-B, ViT-L
WIDTHS: Final = (192, 512, 768)

Fill = Callable[[Store], Awaitable[None]]


def stored(_effort: Effort) -> Result:
    """10,000 vectors of each width, and 100 definitions of 1,000 labels, in Redis and SQLite."""
    rows: list[list[Cell]] = []
    for width in WIDTHS:
        measured = asyncio.run(_vectors(width))
        rows.append([f"a vector of {width} float32", 4 * width, *measured])
    rows.append([f"a definition of {LABELS:,} labels", len(_body(0)), *asyncio.run(_definitions())])
    return Result(
        f"Bytes stored ({VECTORS:,} vectors per width, {SETS} definitions)",
        ["what", "bytes", "bytes in Redis", "bytes in SQLite"],
        rows,
        ["Redis as it reports (`used_memory`), SQLite as the size of its files."],
    )


async def _vectors(width: int) -> tuple[int, int]:
    row = np.ones(width, np.float32) / np.float32(np.sqrt(width))
    keys = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(VECTORS)]

    async def fill(store: Store) -> None:
        for start in range(0, VECTORS, 1_000):
            chunk = keys[start : start + 1_000]
            await store.vectors.put_many(dict.fromkeys(chunk, vectors.encode(row)))

    return await _measured(fill, VECTORS)


async def _definitions() -> tuple[int, int]:
    async def fill(store: Store) -> None:
        for number in range(SETS):
            await store.labelsets.write(f"set-{number}", _body(number), None, SETS)

    return await _measured(fill, SETS)


def _body(number: int) -> bytes:
    labels = (f"label {number}-{place}" for place in range(LABELS))
    definition = Definition(tuple(Entry(label, (label,)) for label in labels))
    return new(f"set-{number}", 1, definition).body()


async def _measured(fill: Fill, things: int) -> tuple[int, int]:
    """Bytes of one thing in Redis and in SQLite."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with redis_server(folder) as url:
            async with _opened(RedisStore(url, 5, 3_600)) as store, Redis.from_url(url) as redis:
                before = (await redis.info("memory"))["used_memory"]
                await fill(store)
                in_redis = (await redis.info("memory"))["used_memory"] - before
        file = folder / "sizes" / "store.sqlite3"
        async with _opened(SqliteStore(file, 30, 3_600, 10**10)) as store:
            before = _on_disk(file)
            await fill(store)
        in_sqlite = _on_disk(file) - before
    return round(in_redis / things), round(in_sqlite / things)


@asynccontextmanager
async def _opened(store: Store) -> AsyncIterator[Store]:
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def _on_disk(file: Path) -> int:
    return sum(path.stat().st_size for path in file.parent.glob(f"{file.name}*"))
