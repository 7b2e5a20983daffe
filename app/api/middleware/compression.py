"""Responses are compressed for clients that accept it (RFC 9110, section 12.5.3).

Knows nothing of the contents. Other clients pay for one look at their headers.
"""

import asyncio
import functools
import zlib
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.accept import weighted

# bytes that are worth it; a packet holds as many
LEAST: Final = 1_000

# a large answer is compressed in a thread, and for speed
LARGE: Final = 100_000
WELL: Final = 4
FAST: Final = 1

GZIP: Final = "gzip"
GZIP_BITS: Final = zlib.MAX_WBITS | 16
NAMES: Final = (GZIP, "x-gzip", "*")

KINDS: Final = ("text/", "application/json", "application/problem+json", "application/x-ndjson",
                "application/javascript", "image/svg+xml")  # fmt: skip

# a strong tag names bytes, so compressed ones have another; a client sends that back
MARK: Final = "-gzip"
CONDITIONS: Final = (b"if-match", b"if-none-match")


class Compression:
    """Innermost: all other middleware sees responses as they are sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        accepted, marked = b"", False
        for name, value in scope["headers"]:
            if name == b"accept-encoding":
                accepted += b"," + value
            elif name in CONDITIONS and b'-gzip"' in value:
                marked = True
        if marked:
            scope = {**scope, "headers": [_plain(*header) for header in scope["headers"]]}
        if accepted and wants_gzip(accepted):
            send = _Answer(send, marked=marked).send
        await self._app(scope, receive, send)


@functools.lru_cache(maxsize=256)
def wants_gzip(accepted: bytes) -> bool:
    """Whether an Accept-Encoding header likes gzip at least as well as no compression."""
    weights = dict(weighted(accepted.decode("latin-1")))
    gzip = next((weights[name] for name in NAMES if name in weights), 0.0)
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


def _plain(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """A condition with the tags that the route knows."""
    return name, value.replace(b'-gzip"', b'"') if name in CONDITIONS else value


class _Answer:
    """One answer on its way to a client that takes gzip."""

    def __init__(self, send: Send, *, marked: bool) -> None:
        self._send = send
        self._marked = marked
        self._start: Message | None = None  # held until its length is known
        self._stream: zlib._Compress | None = None

    async def send(self, message: Message) -> None:
        """The next message of the answer."""
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif self._start is not None:
            await self._whole(self._start, message)
        elif self._stream is not None:
            await self._piece(self._stream, message)
        else:
            await self._send(message)

    async def _begin(self, message: Message) -> None:
        # most answers are small, and cost no more than this
        length = next((v for name, v in message["headers"] if name == b"content-length"), None)
        if length is not None and int(length) < LEAST:
            await self._send(message)
            return
        headers = MutableHeaders(scope=message)
        if message["status"] == 304 and self._marked:
            _mark(headers)
        if not _compressible(message["status"], headers):
            await self._send(message)
            return
        headers.add_vary_header("Accept-Encoding")
        headers["Content-Encoding"] = GZIP
        _mark(headers)
        if length is not None:
            self._start = message
            return
        self._stream = zlib.compressobj(WELL, wbits=GZIP_BITS)
        await self._send(message)

    async def _whole(self, start: Message, message: Message) -> None:
        body = message.get("body", b"")
        if message.get("more_body"):  # a length was declared, and the pieces come one by one
            self._start, self._stream = None, zlib.compressobj(WELL, wbits=GZIP_BITS)
            del MutableHeaders(scope=start)["content-length"]
            await self._send(start)
            await self._piece(self._stream, message)
            return
        if len(body) >= LARGE:
            packed = await asyncio.to_thread(zlib.compress, body, FAST, GZIP_BITS)
        else:
            packed = zlib.compress(body, WELL, GZIP_BITS)
        MutableHeaders(scope=start)["Content-Length"] = str(len(packed))
        self._start = None
        await self._send(start)
        await self._send({**message, "body": packed})

    async def _piece(self, stream: "zlib._Compress", message: Message) -> None:
        """A piece of a stream, flushed: lines arrive one by one, as they do without compression."""
        body, more = message.get("body", b""), message.get("more_body", False)
        piece = stream.compress(body) if body else b""
        if body or not more:
            piece += stream.flush(zlib.Z_SYNC_FLUSH if more else zlib.Z_FINISH)
        await self._send({**message, "body": piece})


def _compressible(status: int, headers: MutableHeaders) -> bool:
    if status in (204, 206, 304) or "content-encoding" in headers or "content-range" in headers:
        return False
    if "no-transform" in headers.get("cache-control", ""):
        return False
    return headers.get("content-type", "").startswith(KINDS)


def _mark(headers: MutableHeaders) -> None:
    """Tell the tag of compressed bytes from that of plain ones; a weak one is the same for both."""
    tag = headers.get("etag", "")
    if tag.startswith('"') and tag.endswith('"') and not tag.endswith(f'{MARK}"'):
        headers["ETag"] = f'{tag[:-1]}{MARK}"'
