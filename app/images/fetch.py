"""Fetch an image from the public internet, and from nowhere else. Knows nothing of images.

Every hop starts anew: the URL is checked, its name is resolved once, every address found is
checked, and the connection goes to such an address while certificate and Host stay the name's.
"""

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import httpcore2
import httpx2

from app import errors
from app.errors import Overloaded, Problem, TooLarge, UnsupportedImage
from app.images import urls
from app.images.urls import (
    FIELD,
    Address,
    AllowedHost,
    Network,
    is_public,
    joined,
    literal,
    port_of,
    refused,
)

REDIRECTS: Final = 3
REDIRECTING: Final = (301, 302, 303, 307, 308)

# media types without a picture's name that stores of files give everything
BARE_TYPES: Final = ("application/octet-stream", "binary/octet-stream")

# addresses of one name that are tried
TRIED: Final = 4

# bytes that are read from a server at once, between which other requests have their turn; and what
# it may send beside the file: heads, and a quarter of the file for the lines between its pieces
READ: Final = 16_384
BESIDE: Final = 65_536
BESIDE_SHARE: Final = 0.25

BROKEN: Final = (
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.TimeoutException,
    ssl.SSLError,
    OSError,
)

# the addresses of a host; raises OSError where it has none
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class FetchFailed(Problem):
    status, code, title = 502, "fetch_failed", "The image could not be fetched"


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """What may be fetched: `hosts` is empty for all; times in seconds.

    `also` are networks that may be reached although they are not public.
    """

    max_bytes: int
    hosts: tuple[AllowedHost, ...] = ()
    timeout: float = 10.0
    connect_timeout: float = 3.0
    at_once: int = 64
    also: tuple[Network, ...] = ()


class Fetcher:
    """Fetches what the policy allows; `user_agent` says to other servers who asks."""

    def __init__(
        self,
        policy: FetchPolicy,
        user_agent: str = "openvocab",
        *,
        resolve: Resolve | None = None,
        certificates: ssl.SSLContext | None = None,
    ) -> None:
        self._policy = policy
        # the system's resolver holds a thread for each name, also when nobody waits for it any more
        self._lookups = ThreadPoolExecutor(policy.at_once, thread_name_prefix="openvocab-lookup")
        self._network = _Pinned(policy, resolve or self._system_resolve)
        self._certificates = certificates or httpcore2.default_ssl_context()
        self._places = asyncio.Semaphore(policy.at_once)
        self._headers: dict[bytes | str, bytes | str] = {
            "User-Agent": user_agent,
            "Accept": "image/*, application/octet-stream;q=0.5",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }

    async def fetch(self, url: str, count: Callable[[int], None] = lambda _: None) -> bytes:
        """The bytes at a URL; `count` hears of each piece before it is kept, and may raise.

        Raises:
            Invalid: the URL, or where it leads, is none that may be fetched.
            TooLarge, UnsupportedImage: what is there is too large, or says that it is no image.
            FetchFailed: the other server did not answer, or not with a file.
            Overloaded: as many as may be fetched at once take all of the time.
        """
        target = urls.checked(url, self._policy.hosts)
        async with self._place():
            try:
                async with asyncio.timeout(self._policy.timeout) as clock:
                    return await self._follow(target, count)
            except TimeoutError:
                if not clock.expired():
                    raise
                limit = self._policy.timeout
                detail = f"image_url was not fetched within {limit:g} seconds"
                raise FetchFailed(detail, field=FIELD, limit=limit) from None

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """One of the places of those that are fetched at once. Raises Overloaded."""
        try:
            async with asyncio.timeout(self._policy.timeout) as clock:
                await self._places.acquire()
        except TimeoutError:
            if not clock.expired():
                raise
            limit = self._policy.at_once
            detail = f"{limit} images are being fetched (the limit), and none of them was done "
            detail += f"within {self._policy.timeout:g} seconds; try again later"
            raise Overloaded(detail, field=FIELD, limit=limit, retry_after=1) from None
        try:
            yield
        finally:
            self._places.release()

    def close(self) -> None:
        """Wait for no name any more."""
        self._lookups.shutdown(wait=False, cancel_futures=True)

    async def _follow(self, target: httpx2.URL, count: Callable[[int], None]) -> bytes:
        for _ in range(REDIRECTS + 1):
            reply = await self._get(target, count)
            if isinstance(reply, bytes):
                return reply
            target = urls.checked(reply, self._policy.hosts)
        raise FetchFailed(
            f"image_url redirects more than {REDIRECTS} times", field=FIELD, limit=REDIRECTS
        )

    async def _get(self, target: httpx2.URL, count: Callable[[int], None]) -> bytes | str:
        """The body, or the URL that the answer leads to."""
        url = httpcore2.URL(
            scheme=target.raw_scheme, host=target.raw_host, port=port_of(target),
            target=target.raw_path,
        )  # fmt: skip
        headers = {"Host": target.netloc.decode("ascii"), **self._headers}
        limits = {"timeout": {"connect": self._policy.connect_timeout}}
        meter = _Meter(target.host)
        # a pool of its own: no connection is ever used again without its name being looked up
        try:
            async with (
                httpcore2.AsyncConnectionPool(
                    ssl_context=self._certificates, network_backend=_Metering(self._network, meter)
                ) as pool,
                pool.stream("GET", url, headers=headers, extensions=limits) as response,
            ):
                answer = httpx2.Headers(response.headers)
                if response.status in REDIRECTING and "location" in answer:
                    return joined(target, answer["location"])
                _check_head(response.status, answer)
                return await self._read(response, answer, count, meter)
        except BROKEN:
            detail = "the server of image_url did not respond, or closed the connection"
            raise FetchFailed(detail, field=FIELD, value=target.host) from None

    async def _read(
        self,
        response: httpcore2.Response,
        headers: httpx2.Headers,
        count: Callable[[int], None],
        meter: "_Meter",
    ) -> bytes:
        limit = self._policy.max_bytes
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise _too_large(int(declared), limit)
        pieces, size = [], 0
        async for piece in response.aiter_stream():
            size += len(piece)
            if size > limit:
                raise _too_large(size, limit)
            count(len(piece))
            meter.kept += len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    async def _system_resolve(self, host: str, port: int) -> Sequence[str]:
        entries = await asyncio.get_running_loop().run_in_executor(
            self._lookups, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [str(entry[4][0]) for entry in entries]


class _Meter:
    """Counts the bytes a server sends besides the file: each piece, however small, costs time."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._received = 0
        self.kept = 0

    def received(self, count: int) -> None:
        """So many bytes more. Raises FetchFailed."""
        self._received += count
        if self._received > BESIDE + (1 + BESIDE_SHARE) * self.kept + READ:
            detail = f"the server of image_url sends over {BESIDE} bytes beside the file: as "
            detail += "headers, or between pieces of a few bytes"
            raise FetchFailed(detail, field=FIELD, limit=BESIDE, value=self._host)


class _MeteredStream(httpcore2.AsyncNetworkStream):
    def __init__(self, stream: httpcore2.AsyncNetworkStream, meter: _Meter) -> None:
        self._stream = stream
        self._meter = meter

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        data = await self._stream.read(min(max_bytes, READ), timeout)
        self._meter.received(len(data))
        await asyncio.sleep(0)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore2.AsyncNetworkStream:
        inner = await self._stream.start_tls(ssl_context, server_hostname, timeout)
        return _MeteredStream(inner, self._meter)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Metering(httpcore2.AsyncNetworkBackend):
    """The same connections, whose bytes are counted."""

    def __init__(self, network: httpcore2.AsyncNetworkBackend, meter: _Meter) -> None:
        self._network = network
        self._meter = meter

    async def connect_tcp(self, *args: Any, **options: Any) -> httpcore2.AsyncNetworkStream:
        return _MeteredStream(await self._network.connect_tcp(*args, **options), self._meter)


class _Pinned(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that were checked, so that a name cannot mean another one later."""

    def __init__(self, policy: FetchPolicy, resolve: Resolve) -> None:
        self._policy = policy
        self._resolve = resolve
        self._sockets = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to the first address of the host that takes one. Raises Invalid."""
        broken: Exception = httpcore2.ConnectError()
        for address in (await self._addresses(host, port))[:TRIED]:
            try:
                return await self._sockets.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                broken = error
        raise broken

    async def _addresses(self, host: str, port: int) -> list[Address]:
        """All of the host's; one that is not public refuses the host. Raises Invalid."""
        try:
            itself = literal(host)
            texts = [str(itself)] if itself else await self._resolve(host, port)
            addresses = [ipaddress.ip_address(text) for text in dict.fromkeys(texts)]
        except (OSError, ValueError):
            addresses = []
        if addresses and all(is_public(address, self._policy.also) for address in addresses):
            return addresses
        # the same for a name that does not exist: internal names are not revealed
        raise refused("its host has no public address", host)


def _check_head(status: int, headers: httpx2.Headers) -> None:
    if status != 200:
        detail = f"the server of image_url answered with status {status}"
        raise FetchFailed(detail, field=FIELD, value=status)
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        detail = f"image_url is answered compressed ({errors.shown(coding)}), though not asked for"
        raise UnsupportedImage(detail, field=FIELD, value=errors.excerpt(coding))
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not kind.startswith("image/") and kind not in BARE_TYPES:
        sent_type = errors.shown(kind) if kind else "nothing"
        detail = f"image_url answers {sent_type}, which is not image/… or application/octet-stream"
        raise UnsupportedImage(detail, field=FIELD, value=errors.excerpt(kind))


def _too_large(size: int, limit: int) -> TooLarge:
    detail = f"the file at image_url has {size} bytes or more, the limit is {limit}"
    return TooLarge(detail, field=FIELD, limit=limit, value=size)
