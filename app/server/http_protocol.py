"""HTTP/1.1 on one connection, with bounds on what a client may send and how long it may take.

Knows nothing of the contents: uvicorn parses, with llhttp, and runs the application.
"""

import asyncio
import contextlib
import ipaddress
import logging
import math
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

import httptools
import uvicorn
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app.api.problems import last_answer
from app.errors import BadRequest, Overloaded, Problem
from app.telemetry.metrics import Metrics

# request line and headers together; and the trailers, or one chunk's extensions
HEAD_BYTES: Final = 65_536
HEADERS: Final = 200

Headers = Sequence[tuple[bytes, bytes]]


class HeadTimeout(Problem):
    status, code, title = 408, "head_timeout", "The request did not arrive in time"


class HeadTooLarge(Problem):
    status, code, title = 431, "head_too_large", "The request's line and headers are too large"


def check_size(size: int, headers: int = 0) -> None:
    """Raises HeadTooLarge."""
    if size > HEAD_BYTES:
        detail = f"the request's line and headers have over {HEAD_BYTES} bytes"
        raise HeadTooLarge(detail, limit=HEAD_BYTES, value=size)
    if headers > HEADERS:
        detail = f"the request has over {HEADERS} headers"
        raise HeadTooLarge(detail, limit=HEADERS, value=headers)


def check(method: bytes, version: str, headers: Headers) -> None:
    """Refuse what two servers could read in two ways (RFC 9112, section 11.2).

    Raises BadRequest.
    """
    if version not in ("1.0", "1.1"):
        raise BadRequest(f"HTTP/{version} is not supported; use HTTP/1.1")
    if method == b"CONNECT":
        raise BadRequest("CONNECT is not supported; this is not a proxy")
    hosts = _values(headers, b"host")
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        raise BadRequest(f"one Host header is needed, not {len(hosts)}", field="Host")
    lengths, codings = _values(headers, b"content-length"), _values(headers, b"transfer-encoding")
    if codings and (codings != [b"chunked"] or version == "1.0"):
        detail = "Transfer-Encoding can only be chunked, once, and in HTTP/1.1"
        raise BadRequest(detail, field="Transfer-Encoding")
    if lengths and (codings or len(lengths) > 1 or not lengths[0].isdigit()):
        detail = "Content-Length can only be one number, and not beside Transfer-Encoding"
        raise BadRequest(detail, field="Content-Length")


def without_upgrade(method: bytes, target: bytes, version: str, headers: Headers) -> bytes:
    """The head as its client would have sent it without the offer to switch protocols."""
    lines = [b" ".join([method, target, b"HTTP/" + version.encode()])]
    lines += [name + b": " + value for name, value in headers if name != b"upgrade"]
    return b"\r\n".join([*lines, b"", b""])


def _values(headers: Headers, header: bytes) -> list[bytes]:
    return [value.strip(b" \t").lower() for name, value in headers if name == header]


def unmapped(client: tuple[str, int] | None) -> tuple[str, int] | None:
    """The IPv4 address of a client on a socket of both families, where it is `::ffff:1.2.3.4`."""
    if client is None or not client[0].lower().startswith("::ffff:"):
        return client
    mapped = ipaddress.IPv6Address(client[0]).ipv4_mapped
    return client if mapped is None else (str(mapped), client[1])


class Timer:
    """A single-shot timer; starting it twice does not postpone it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float, call: Callable[[], object]) -> None:
        """Call it in so many seconds, unless it is already scheduled."""
        if self._handle is None:
            self._handle = self._loop.call_later(seconds, self._fire, call)

    def stop(self) -> None:
        """Call nothing."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _fire(self, call: Callable[[], object]) -> None:
        self._handle = None
        call()


log = logging.getLogger("openvocab.http")

# requests that wait on one connection for the answer to the one before
PIPELINED: Final = 8

# an answer of which the client reads fewer bytes a second is dropped with its connection
SEND_SECONDS: Final = 30.0
SEND_PACE: Final = 1_000

# a refused client is still sending: closing at once would reset the response before it is read
LINGER_SECONDS: Final = 1.0
LINGERING: Final = 64
TOO_MANY: Final = "too many open connections (the limit, max_connections)"

# seconds between two lines which say that connections are refused
WARN_EVERY: Final = 60.0


# not public in uvicorn, but overridden or called here
OVERRIDDEN: Final = (
    "_start_asgi_task", "_unset_keepalive_if_required", "on_body", "on_header",
    "on_headers_complete", "on_message_begin", "on_message_complete", "on_response_complete",
    "on_url", "pause_writing", "resume_writing",
)  # fmt: skip


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits; `protocol` sets them."""

    head_seconds: ClassVar[float] = 10.0
    idle_seconds: ClassVar[float] = 75.0
    max_connections: ClassVar[int] = 1_000
    metrics: ClassVar[Metrics]
    accepted: ClassVar[set["BoundedProtocol"]] = set()
    turned_away: ClassVar[set["BoundedProtocol"]] = set()
    max_unread: ClassVar[int] = 1_000_000_000
    unread: ClassVar[dict["BoundedProtocol", None]] = {}  # who waits for a reader, longest first
    warn_at: ClassVar[float] = -math.inf

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._clock = Timer(self.loop)  # for what the client owes
        self._ending = Timer(self.loop)  # for an answer to be read
        self._running: RequestResponseCycle | None = None
        self._in_head = self._in_body = self._got_body = self._upgrading = False
        self._idle = False  # an answer is out, and nothing of a next request is here
        self._deaf = False  # whatever still comes is thrown away
        self._refusal: Problem | None = None  # to be answered after the requests before it
        self._head_bytes = self._header_count = self._loose_bytes = 0
        self._unread = 0  # bytes of answers when it was last looked whether the client reads

    # what the event loop calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.client = unmapped(self.client)
        if len(self.connections) <= self.max_connections:
            self.accepted.add(self)
            self._watch()
            return
        self.connections.discard(self)
        self.turned_away.add(self)
        self._warn()
        self._answer(Overloaded(TOO_MANY, limit=self.max_connections, retry_after=1))
        if len(self.turned_away) > LINGERING:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deaf = True
        self.accepted.discard(self)
        self.turned_away.discard(self)
        self.unread.pop(self, None)
        self._clock.stop()
        self._ending.stop()
        for cycle in (self._running, *(waiting for waiting, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                _disconnect(cycle)
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._deaf:
            return
        try:
            self._feed(data)
            self._watch()
        except Problem as problem:
            self._refuse(problem)
        except httptools.HttpParserError as error:
            cause = error.__context__  # what a callback raised
            if not isinstance(cause, Problem):
                cause = BadRequest(f"the request cannot be parsed: {error}")
            if not self._deaf:
                self._refuse(cause)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reader()
        self.unread[self] = None
        sizes = {waiting: waiting.transport.get_write_buffer_size() for waiting in self.unread}
        total = sum(sizes.values())
        # one alone may be as large as an answer can be
        while len(self.unread) > 1 and total > self.max_unread:
            oldest = next(iter(self.unread))
            del self.unread[oldest]
            total -= sizes[oldest]
            self.metrics.refused(Overloaded.code)
            self.loop.call_soon(oldest.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.unread.pop(self, None)
        if not (self._deaf or self.transport.is_closing()):
            self._ending.stop()

    # what the parser calls

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._idle:
            self._idle = False
            self._clock.stop()  # from here on the head has its own time
        self._in_head, self._upgrading = True, False
        self._head_bytes = self._header_count = 0

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)
        check_size(self._head_bytes)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # not a trailer: the application has read the headers by then
            self._header_count += 1
            self._head_bytes += len(name) + len(value) + len(": \r\n")
            check_size(self._head_bytes, self._header_count)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        method = self.parser.get_method()
        if self.parser.should_upgrade() and method != b"CONNECT":
            self._upgrading = True
            return
        check(method, self.parser.get_http_version(), self.headers)
        if self._busy() and len(self.pipeline) >= PIPELINED:
            self._deaf = True
            self.pipeline[0][0].keep_alive = False  # the last that is answered says so
            raise BadRequest("too many pipelined requests")
        super().on_headers_complete()
        self._in_body = True

    def on_body(self, body: bytes) -> None:
        self._got_body = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._upgrading:
            self._in_body = False
            super().on_message_complete()

    # what uvicorn calls

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._idle = not (self._in_head or self._in_body or self._busy())
        if self.transport.is_closing():
            self._expect_reader()
        elif self._busy():
            return
        elif self._refusal is not None:
            self._answer(self._refusal)
        else:
            if self._in_head or self._in_body:
                self._unset_keepalive_if_required()
            self._watch()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    # limits

    def _feed(self, data: bytes) -> None:
        begun, self._got_body = self._in_head, False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # llhttp takes what follows for another protocol; nothing is switched, so it is not
            parser, self.parser = self.parser, httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            version = parser.get_http_version()
            head = without_upgrade(parser.get_method(), self.url, version, self.headers)
            self._feed(head + data[upgrade.args[0] :])
            return
        goes_on = begun if self._in_head else self._in_body and not self._got_body
        self._loose_bytes = self._loose_bytes + len(data) if goes_on else 0
        check_size(self._loose_bytes)

    # time

    def _busy(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _watch(self) -> None:
        """Start the clock when the client owes us bytes; more bytes do not restart it."""
        if self._busy() or self._deaf or self.transport.is_closing():
            self._clock.stop()
        else:
            seconds = self.idle_seconds if self._idle else self.head_seconds
            self._clock.start(seconds, self._too_slow)

    def _too_slow(self) -> None:
        if self._in_head:
            detail = f"the request's head did not arrive within {self.head_seconds:g} seconds"
            self._refuse(HeadTimeout(detail, limit=self.head_seconds))
        else:
            self.transport.close()

    def _expect_reader(self) -> None:
        """Drop the connection unless the client goes on reading what was written."""
        self._unread = self._bytes_unread()
        self._ending.start(SEND_SECONDS, self._check_reader)

    def _check_reader(self) -> None:
        before = self._unread
        self._expect_reader()
        if before - self._unread < SEND_PACE * SEND_SECONDS:
            self.transport.abort()

    def _bytes_unread(self) -> int:
        """Bytes that were written and that the client has not taken."""
        size = int(self.transport.get_write_buffer_size())
        socket = self.transport.get_extra_info("socket")
        if socket is not None:
            # neither every kind of socket can tell, nor Windows
            with contextlib.suppress(OSError, ImportError):
                from fcntl import ioctl
                from termios import TIOCOUTQ

                # the system takes more only once a third of its megabytes is free
                answer = ioctl(socket.fileno(), TIOCOUTQ, bytes(4))
                size += struct.unpack("i", answer)[0]
        return size

    # refusals

    def _refuse(self, problem: Problem) -> None:
        """Send a problem once the earlier requests are answered, and read no more."""
        self._deaf = True
        if self._in_body and self.pipeline:
            self.pipeline.popleft()  # it broke before its turn came
        elif self._in_body:
            _disconnect(self.cycle)
            if self.cycle.response_started:
                self.transport.close()
            else:
                self._answer(problem)
            return
        if self._busy():
            self._refusal = problem
        else:
            self._answer(problem)

    def _warn(self) -> None:
        now = self.loop.time()
        if now >= self.warn_at:
            type(self).warn_at = now + WARN_EVERY
            limit = self.max_connections
            log.warning("connections are refused: %d are open (the limit, max_connections)", limit)

    def _answer(self, problem: Problem) -> None:
        """Write the response ourselves, and close once the client had a moment to read it."""
        self.metrics.refused(problem.code)
        self._deaf = True
        self._clock.stop()
        self._ending.stop()
        self._unset_keepalive_if_required()
        request_id = f"{random.getrandbits(128):032x}"
        log.debug("request %s refused: %s", request_id, problem.detail)
        self.transport.write(last_answer(problem, request_id, self.server_state.default_headers))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._ending.start(LINGER_SECONDS, self.transport.abort)


def protocol(
    head_seconds: float,
    idle_seconds: float,
    max_connections: int,
    metrics: Metrics,
    max_unread: int = BoundedProtocol.max_unread,
) -> type[BoundedProtocol]:
    """A class for `uvicorn.Config(http=...)`; the limits are per process, as is what it counts.

    Of answers that clients are slow to read there may be `max_unread` bytes.

    Raises RuntimeError if this release of uvicorn has a protocol that cannot be limited.
    """
    missing = sorted(name for name in OVERRIDDEN if not hasattr(HttpToolsProtocol, name))
    if missing:
        names = ", ".join(missing)
        raise RuntimeError(f"uvicorn {uvicorn.__version__} has no {names}; install 0.54")
    accepted: set[BoundedProtocol] = set()
    own = {
        "head_seconds": head_seconds,
        "idle_seconds": idle_seconds,
        "max_connections": max_connections,
        "metrics": metrics,
        "accepted": accepted,
        "turned_away": set(),
        "max_unread": max_unread,
        "unread": {},
    }
    metrics.watch("openvocab_connections", "Open connections.", lambda: len(accepted))
    metrics.watch(
        "openvocab_max_connections", "Maximum number of open connections.", lambda: max_connections
    )
    return type("Bounded", (BoundedProtocol,), own)


def _disconnect(cycle: RequestResponseCycle) -> None:
    cycle.disconnected = True
    cycle.message_event.set()
