"""The way to a Redis server: bounded calls, one kind of failure, the schema check.

Knows nothing of what is stored.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar, cast
from urllib.parse import parse_qs, unquote, urlencode, urlsplit, urlunsplit

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterCrossSlotError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from app.stores.protocols import (
    StoreAway,
    StoreDamaged,
    StoreError,
    StoreRefused,
    StoreUnusable,
)

T = TypeVar("T")

SCHEMA: Final = 1

# bytes that one conversation carries in its time; more of them have it once more for each
PIECE: Final = 1_000_000

_CONNECTIONS: Final = 16
# a server that is no Redis makes the client fail in any of these ways
_FAILURES: Final = (
    RedisError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
)


# the server answers but accepts no writes: it is full, a replica, without disk or replicas,
# or our scripts met another program's keys in the place of the lists of names
_REFUSALS: Final = (OutOfMemoryError, ReadOnlyError)
_REFUSALS_BY_NAME: Final = ("MISCONF", "NOREPLICAS", "FOREIGN")


class Link:
    """Runs conversations with one server, each within `timeout` seconds, a new connection included.

    One that carries many bytes has them for every PIECE.

    Raises:
        StoreUnusable: the URL can never work.
    """

    def __init__(self, url: str, timeout: float, schema_key: str) -> None:
        self._sentinels: Sequence[Any] = ()
        if "+sentinel:" in url:
            self._pool, self._sentinels = _sentinel_pool(url, timeout)
        else:
            self._pool = _pool(url, timeout)
        self._leaving: set[asyncio.Task[None]] = set()
        self.address = _without_password(url)
        self._timeout = timeout
        self._schema_key = schema_key
        self._checked = False
        # the pool has a queue of its own, which loses its place when a waiting call is cancelled
        self._slots = asyncio.Semaphore(_CONNECTIONS)
        # its annotations leave open whether a method is to be awaited
        self.client: Any = Redis(connection_pool=self._pool)

    async def open(self, work: Callable[[], Awaitable[T]]) -> T:
        """Connect, compare the server's schema with ours, and return the conversation's result.

        Raises:
            StoreUnusable: wrong password, newer schema, a right that is missing.
            StoreAway: no answer, or none that makes sense.
        """
        self._checked = False
        await self._bounded(self._ping)
        return await self._bounded(work)

    async def ping(self) -> None:
        """Nothing if the server answers as Redis does, else StoreAway."""
        await self.call(self._ping)

    async def call(self, work: Callable[[], Awaitable[T]], size: int = 0) -> T:
        """What the conversation about `size` bytes returns; any error in it becomes StoreAway."""
        try:
            return await self._bounded(work, size)
        except StoreUnusable as error:
            raise StoreAway(str(error)) from error

    async def close(self) -> None:
        """Close all connections."""
        for leaving in list(self._leaving):
            await leaving
        for connected in (self._pool, *(client.connection_pool for client in self._sentinels)):
            with suppress(RedisError, OSError):
                await connected.disconnect()

    def _ask_again_who_serves(self) -> None:
        """Leave what is idle: after a failover another server answers at the name or sentinel."""

        async def leave() -> None:
            with suppress(RedisError, OSError):
                await self._pool.disconnect(inuse_connections=False)

        if not self._leaving:
            task = asyncio.get_running_loop().create_task(leave())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _bounded(self, work: Callable[[], Awaitable[T]], size: int = 0) -> T:
        well = False
        seconds = self._timeout * (1 + size // PIECE)
        try:
            async with asyncio.timeout(seconds), self._slots:
                if not self._checked:
                    self._checked = await self._check_schema()
                result = await work()
                well = True
                return result
        except StoreError:
            raise
        except TimeoutError as error:
            raise StoreAway(f"no response from {self.address} within {seconds} s") from error
        except _FAILURES as error:
            if isinstance(error, ReadOnlyError | RedisConnectionError):
                self._ask_again_who_serves()
            well = _refuses_writes(error) or is_damage(error)
            raise self._failure(error) from error
        finally:
            if not well:
                # what answers next may be another server, or the same with other data
                self._checked = False

    async def _ping(self) -> None:
        if await self.client.ping() is not True:
            raise ValueError("an unexpected reply to PING")

    async def _check_schema(self) -> bool:
        """Whether it is known now; a server that accepts no writes may have none, and be read."""
        try:
            version = await self.client.get(self._schema_key)
        except ResponseError as error:
            if not is_damage(error):
                raise
            raise StoreUnusable(
                f"{self.address}: another program wrote {self._schema_key}; choose another "
                "OPENVOCAB_STORE_PREFIX"
            ) from error
        if version is None:
            try:
                await self.client.set(self._schema_key, SCHEMA, nx=True)
            except RedisError as error:
                if not _refuses_writes(error):
                    raise
            version = await self.client.get(self._schema_key)
        if version is None:
            return False
        if not version.isdigit():
            raise ValueError(f"{self._schema_key} holds no version of a schema")
        if int(version) > SCHEMA:
            raise StoreUnusable(
                f"{self.address} has schema version {int(version)} and this release knows versions "
                f"up to {SCHEMA}: start the newer release, or use another server"
            )
        return True

    def _failure(self, error: Exception) -> StoreError:
        # one line, and not a page where the server sent one
        text = f"{self.address}: {' '.join(str(error).split())[:200] or type(error).__name__}"
        if _refuses_writes(error):
            return StoreRefused(text)
        if is_damage(error):
            return StoreDamaged(text)
        if isinstance(error, MovedError) and "{" in self._schema_key:
            host, port = error.node_addr
            return StoreUnusable(
                f"{self.address} is a node of a Redis Cluster, and the keys of this "
                f"OPENVOCAB_STORE_PREFIX lie on {host}:{port}: name that node"
            )
        if isinstance(error, AskError | ClusterCrossSlotError):
            return StoreUnusable(
                f"{self.address} is a node of a Redis Cluster, and all keys must lie on one node: "
                "set OPENVOCAB_STORE_PREFIX to one with a hash tag, such as {openvocab}:, and name "
                "the node that has its slot; or use a server of its own, or Sentinel"
            )
        hopeless = isinstance(error, AuthenticationError | NoPermissionError)
        # the server has fewer databases than the URL's number
        hopeless = hopeless or "DB index is out of range" in text
        return StoreUnusable(text) if hopeless else StoreAway(text)


def is_damage(error: object) -> bool:
    """Whether a key holds what another program wrote there; says nothing of other keys."""
    return isinstance(error, ResponseError) and "WRONGTYPE" in str(error)


def _refuses_writes(error: Exception) -> bool:
    return isinstance(error, _REFUSALS) or str(error).startswith(_REFUSALS_BY_NAME)


def _without_password(url: str) -> str:
    """A valid URL as it may be shown: no user, no password, no options."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _pool(url: str, timeout: float) -> ConnectionPool:
    try:
        options: dict[str, Any] = {**parse_url(url)}
        parts = urlsplit(url)
        if parts.scheme == "unix" and not hasattr(socket, "AF_UNIX"):
            raise StoreUnusable("a store at unix:// needs Unix sockets, which this system lacks")
        path = parts.path.strip("/")
        # a name in place of the database's number would be passed over
        if not path if parts.scheme == "unix" else not f"0{path}".isdecimal():
            raise ValueError
        pool: Any = ConnectionPool(**options | _promises(timeout))
        pool.make_connection()  # an unknown option shows here
    except (ValueError, TypeError, LookupError, RedisError):
        raise _wrong_url() from None
    return cast(ConnectionPool, pool)


def _promises(timeout: float, answer: float | None = None) -> dict[str, Any]:
    """What an option in the URL must not undo; the link itself bounds an `answer` without limit."""
    return {
        "max_connections": _CONNECTIONS,
        "socket_timeout": answer,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "health_check_interval": 0,
        "protocol": 2,
        "decode_responses": False,
    }


def _wrong_url() -> StoreUnusable:
    # neither the error's text nor the URL: in a wrong one any part may be of the password
    return StoreUnusable(
        "invalid store URL; use redis://[user:password@]host[:port][/number], with "
        "special characters in the password percent-encoded, or rediss:// or unix:// alike, or "
        "redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/number]"
    )


# the port of a sentinel where none is written, and its own options in the URL's query
_SENTINEL_PORT: Final = 26379
_SENTINEL_OPTIONS: Final = {"sentinel_username": "username", "sentinel_password": "password"}


def _sentinel_pool(url: str, timeout: float) -> tuple[ConnectionPool, Sequence[Any]]:
    """Connections to whichever server the sentinels name as the master, and their clients."""
    try:
        parts = urlsplit(url)
        login, _, hosts = parts.netloc.rpartition("@")
        service, _, number = parts.path.strip("/").partition("/")
        addresses = [_address(host) for host in hosts.split(",")]
        if not service or not f"0{number}".isdecimal():
            raise ValueError
        query = parse_qs(parts.query, strict_parsing=bool(parts.query))
        own: dict[str, Any] = {
            name: query.pop(key)[0] for key, name in _SENTINEL_OPTIONS.items() if key in query
        }
        secure = parts.scheme.startswith("rediss")
        plain = f"{login}@localhost" if login else "localhost"
        options: dict[str, Any] = {
            **parse_url(
                urlunsplit(("redis", plain, f"/{number}", urlencode(query, doseq=True), ""))
            )
        }
        for name in ("host", "port", "connection_class"):
            options.pop(name, None)
        own |= {name: value for name, value in options.items() if name.startswith("ssl_")}
        # one that does not answer leaves time to ask the others
        share = timeout / (len(addresses) + 1)
        make: Any = _Sentinels
        promises = _promises(share, answer=share)
        sentinel: Any = make(addresses, sentinel_kwargs={**promises, **own, "ssl": secure})
        make = SentinelConnectionPool
        pool: Any = make(unquote(service), sentinel, **options | _promises(timeout), ssl=secure)
        pool.make_connection()
    except (ValueError, TypeError, LookupError, RedisError):
        raise _wrong_url() from None
    return cast(ConnectionPool, pool), sentinel.sentinels


class _Sentinels(Sentinel):
    """Sentinels that say why none of them named a primary: the library's error has no reasons."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Host and port of the primary.

        Raises: MasterNotFoundError, with one reason for each sentinel.
        """
        reasons: list[str] = []
        for place, client in enumerate(self.sentinels):
            asked: Any = client  # its annotations allow for another version of the protocol
            try:
                state = (await asked.sentinel_masters()).get(service_name)
            except (RedisConnectionError, RedisTimeoutError) as error:
                reasons.append(str(error))
                continue
            if state and self.check_master_state(state, service_name):
                # the one that answers is asked first from now on
                self.sentinels[0], self.sentinels[place] = client, self.sentinels[0]
                return state["ip"], state["port"]
            address = "{host}:{port}".format(**client.connection_pool.connection_kwargs)
            reasons.append(f"{address} knows no primary of that name that is up")
        raise MasterNotFoundError(f"no primary found for {service_name!r}: {'; '.join(reasons)}")


def _address(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.username or parts.path:
        raise ValueError
    return parts.hostname, parts.port or _SENTINEL_PORT


def texts(values: Sequence[bytes]) -> Sequence[str]:
    """Names from Redis as text, without invalid ones that other programs wrote."""
    return [value.decode() for value in values if _is_text(value)]


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def answers(values: Sequence[Any], count: int) -> Sequence[Any]:
    """The answers to so many questions; ValueError if they are not as many."""
    if len(values) != count:
        raise ValueError(f"{len(values)} replies to {count} commands")
    return values
