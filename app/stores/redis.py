"""The store that machines share: a Redis server.

Knows nothing of what a definition says, what a vector stands for or who makes requests.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from app.stores import scripts
from app.stores.chunks import chunks
from app.stores.gcra import SLACK, Grant
from app.stores.link import Link, answers
from app.stores.protocols import LabelSets, Pictures, RateLimits, VectorCache
from app.stores.redis_labelsets import RedisLabelSets
from app.stores.redis_pictures import RedisPictures

# milliseconds that a probe is kept
_PROBE: Final = 1_000


class RedisVectors:
    """Vectors as strings that expire, so that the server may also drop them when it is full."""

    def __init__(self, link: Link, prefix: str, ttl: float) -> None:
        self._link = link
        self._prefix = prefix
        self._ttl = max(1, int(ttl * 1000))

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        found: list[bytes | None] = []
        for some in chunks(keys):
            found += await self._link.call(partial(self._get, some))
        return found

    async def put_many(self, values: Mapping[str, bytes]) -> None:
        for some in chunks(list(values.items())):
            await self._link.call(partial(self._put, some))

    async def _get(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        names = [self._key(key) for key in keys]
        return answers(await self._link.client.execute_command("MGET", *names), len(keys))

    async def _put(self, items: Sequence[tuple[str, bytes]]) -> None:
        async with self._link.client.pipeline(transaction=False) as pipe:
            for key, value in items:
                pipe.execute_command("SET", self._key(key), value, "PX", self._ttl)
            for answer in await pipe.execute(raise_on_error=False):
                if isinstance(answer, Exception):
                    raise answer
                if answer is not True:
                    raise ValueError("an answer to SET that is not OK")

    def _key(self, key: str) -> str:
        return f"{self._prefix}vector:{key}"


class RedisRates:
    """Buckets as strings that expire when they are full again; all go by the server's clock."""

    def __init__(self, link: Link, prefix: str) -> None:
        self._link = link
        self._prefix = prefix
        self._take = link.client.register_script(scripts.TAKE)

    async def take(self, key: str, wanted: int, rate: float, burst: int) -> Grant:
        arguments = [repr(float(rate)), burst, wanted, SLACK]

        async def take() -> Grant:
            granted, wait = await self._take(keys=[f"{self._prefix}rate:{key}"], args=arguments)
            return Grant(int(granted), float(wait))

        return await self._link.call(take)


class RedisStore:
    """All of it on one server.

    `timeout` in seconds bounds every call, and every 256 of its vectors; `vector_ttl` is in
    seconds. While the server is away every method raises StoreAway, and the same object works
    again when it is back.

    Raises:
        StoreUnusable: the URL can never work.
    """

    def __init__(
        self,
        url: str,
        timeout: float,
        vector_ttl: float,
        prefix: str = "openvocab:",
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._link = Link(url, timeout, f"{prefix}schema")
        self._probe = f"{prefix}probe"
        self.labelsets: LabelSets = RedisLabelSets(self._link, prefix, clock)
        self.pictures: Pictures = RedisPictures(self._link, prefix)
        self.vectors: VectorCache = RedisVectors(self._link, prefix, vector_ttl)
        self.rates: RateLimits = RedisRates(self._link, prefix)

    async def open(self) -> None:
        """Connect and check the schema.

        Raises:
            StoreUnusable: wrong password, newer schema.
            StoreAway: no answer; the schema is checked with the first one.
        """
        await self._link.open()

    async def ping(self) -> None:
        """Nothing if the server answers, else StoreAway."""
        await self._link.ping()

    async def probe(self) -> None:
        """Write something that nobody misses; StoreAway if that cannot be done now."""

        async def probe() -> None:
            if await self._link.client.set(self._probe, 1, px=_PROBE) is not True:
                raise ValueError("an answer to SET that is not OK")

        await self._link.call(probe)

    async def close(self) -> None:
        """Let go of all connections."""
        await self._link.close()
