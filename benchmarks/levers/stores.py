"""Redis: reading many vectors at once, with and without the parser in C. Knows no service."""

import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from redis import Redis
from redis.connection import ConnectionPool

from benchmarks.levers.tables import COLUMNS, beside_the_first
from benchmarks.record import Cell, Result
from benchmarks.rounds import Effort, in_turns, median_seconds
from benchmarks.servers import redis_server

VECTORS: Final = 1_000
WIDTH: Final = 512
ROWS: Final = 100


def redis(effort: Effort) -> Result:
    """MGET of 1,000 vectors of 512 numbers, and of 100."""
    parsers, notes = _parsers()
    row = np.zeros(WIDTH, np.float32).tobytes()
    keys = [f"vector:{number}" for number in range(VECTORS)]
    rows: list[list[Cell]] = []
    with tempfile.TemporaryDirectory() as name, redis_server(Path(name)) as url:
        clients = {
            parser: Redis(connection_pool=ConnectionPool.from_url(url, parser_class=kind))
            for parser, kind in parsers.items()
        }
        next(iter(clients.values())).mset(dict.fromkeys(keys, row))
        for count in (VECTORS, ROWS):
            sides = {
                f"{parser}, {count:,} vectors": _reading(client, keys[:count], effort)
                for parser, client in clients.items()
            }
            rows += beside_the_first(in_turns(sides, effort.rounds))
        for client in clients.values():
            client.close()
    return Result("Redis: MGET of vectors (512 float32)", COLUMNS, rows, notes)


def _reading(client: "Redis", keys: list[str], effort: Effort) -> Any:
    return lambda: median_seconds(lambda: client.mget(keys), max(0.2, effort.seconds / 6))


def _parsers() -> tuple[dict[str, Any], list[str]]:
    """The parsers that are there, by name; a line for the one that is not."""
    from redis._parsers import _RESP2Parser

    classes: dict[str, Any] = {"parser in Python": _RESP2Parser}
    try:
        import hiredis  # noqa: F401
    except ImportError:
        return classes, ["hiredis: not installed."]
    from redis._parsers import _HiredisParser

    return {**classes, "hiredis": _HiredisParser}, []
