"""The head of a request on raw sockets: sizes, times, counts, and nothing that is read two ways."""

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from app.server import http_protocol
from app.server.http_protocol import (
    HEAD_BYTES,
    HEADERS,
    PIPELINED,
    protocol,
    unmapped,
)
from app.telemetry.metrics import Metrics
from benchmarks.scraping import Scraped
from benchmarks.servers import wait_until

HEAD_SECONDS = 0.5
TIMER = 0.001  # libuv counts whole milliseconds of its clock: a timer may be early by almost one
# in which a busy machine does what takes HEAD_SECONDS
MOST_SECONDS = 60


@dataclass
class Recorder:
    """An application that writes down what it was asked, and the port it is served on."""

    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    headers: list[list[tuple[bytes, bytes]]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    port: int = 0
    connections: set[Any] = field(default_factory=set)
    metrics: Metrics = field(default_factory=Metrics)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        if scope["path"] == "/early":
            await self._answer(send)
            return
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left.append(scope["path"])
                return
            body += message["body"]
            if not message["more_body"]:
                break
        self.seen.append((scope["method"], scope["path"], body))
        self.headers.append(list(scope["headers"]))
        if scope["path"] == "/until-left":
            assert (await receive())["type"] == "http.disconnect"
            self.left.append(scope["path"])
            return
        await self._answer(send, b"x" * 30_000_000 if scope["path"] == "/large" else b"ok")

    async def _answer(self, send: Any, body: bytes = b"ok") -> None:
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def counted(self, name: str, **labels: str) -> float:
        return Scraped(self.metrics.text().decode())(name, **labels)

    def requests(self, prefix: str) -> list[tuple[str, str, bytes]]:
        return [request for request in self.seen if request[1].startswith(prefix)]


@contextlib.contextmanager
def served(
    max_connections: int = 100,
    head_seconds: float = MOST_SECONDS,
    idle_seconds: float = 0.1,
    max_unread: int = 1_000_000_000,
) -> Iterator[Recorder]:
    recorder = Recorder()
    config = uvicorn.Config(
        recorder, port=0,
        http=protocol(head_seconds, idle_seconds, max_connections, recorder.metrics, max_unread),
        lifespan="off", log_level="info", access_log=False, timeout_keep_alive=1,
    )  # fmt: skip
    config.timeout_keep_alive = idle_seconds  # type: ignore[assignment]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        recorder.port = server.servers[0].sockets[0].getsockname()[1]
        recorder.connections = server.server_state.connections
        yield recorder
    finally:
        server.should_exit = server.force_exit = True
        thread.join(30)


@pytest.fixture(scope="module")
def server() -> Iterator[Recorder]:
    with served() as server:
        yield server


@pytest.fixture(scope="module")
def hasty() -> Iterator[Recorder]:
    """One with little time for a head."""
    with served(head_seconds=HEAD_SECONDS) as server:
        yield server


def connect(server: Recorder) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=MOST_SECONDS)


def until_closed(sock: socket.socket) -> bytes:
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := sock.recv(1 << 20):
            parts.append(part)
    return b"".join(parts)


def answered_ok(sock: socket.socket) -> bool:
    """Read one answer of the recorder, all of it: head and body may come one after the other."""
    reply = b""
    while not reply.endswith(b"\r\n\r\nok") and (part := sock.recv(65_536)):
        reply += part
    return reply.startswith(b"HTTP/1.1 200 ") and reply.endswith(b"ok")


def answer(server: Recorder, *parts: bytes, pause: float = 0.02) -> bytes:
    """All that the server says to these bytes until it closes the connection."""
    with connect(server) as sock:
        for part in parts:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(part)
            if len(parts) > 1:
                time.sleep(pause)
        return until_closed(sock)


def problem(reply: bytes, status: int) -> dict[str, Any]:
    """The one problem document that was answered before the connection closed."""
    head, _, body = reply.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    assert lines[0].startswith(f"http/1.1 {status} "), reply[:300]
    assert "connection: close" in lines
    assert "content-type: application/problem+json" in lines
    document: dict[str, Any] = json.loads(body)
    assert document["status"] == status
    assert document["type"] == f"urn:openvocab:problem:{document['error_type']}"
    assert f"x-request-id: {document['request_id']}" in lines
    return document


def head(path: str, *lines: bytes, method: bytes = b"POST", host: bytes = b"Host: x") -> bytes:
    first = method + b" " + path.encode() + b" HTTP/1.1"
    return b"\r\n".join([first, host, *lines, b"", b""])


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


def smuggled(name: str) -> bytes:
    """A second request that tells which attack it came in by."""
    return SMUGGLED.replace(b"/smuggled", b"/smuggled/" + name.encode().hex().encode() + b"/")


CHUNKED = b"Transfer-Encoding: chunked"
LENGTH = b"Content-Length: %d" % len(SMUGGLED)
EMPTY = b"0\r\n\r\n"


def chunked(size: bytes, body: bytes = b"hello") -> bytes:
    return head("/c", CHUNKED) + size + b"\r\n" + body + b"\r\n" + EMPTY


# what follows each of these as a second request would be one that a strict proxy did not see
REFUSED = {
    "CL and TE": head("/c", b"Content-Length: 5", CHUNKED) + EMPTY,
    "TE and CL": head("/c", CHUNKED, b"Content-Length: 5") + EMPTY,
    "two lengths": head("/c", b"Content-Length: 0", LENGTH),
    "the same length twice": head("/c", b"Content-Length: 0", b"Content-Length: 0"),
    "a list of lengths": head("/c", b"Content-Length: 0, 36"),
    "a list of one length": head("/c", b"Content-Length: 0, 0"),
    "a length with a sign": head("/c", b"Content-Length: +0"),
    "a negative length": head("/c", b"Content-Length: -1"),
    "a length in hexadecimal": head("/c", b"Content-Length: 0x0"),
    "a length with a space inside": head("/c", b"Content-Length: 0 0"),
    "a length with an underscore": head("/c", b"Content-Length: 0_0"),
    "an empty length": head("/c", b"Content-Length: "),
    "a length of letters": head("/c", b"Content-Length: zero"),
    "a length in Arabic digits": head("/c", "Content-Length: ٠".encode()),
    "a length over 64 bits": head("/c", b"Content-Length: 18446744073709551616"),
    "a space before the colon": head("/c", b"Content-Length : 0"),
    "TE and a space before the colon": head("/c", b"Transfer-Encoding : chunked") + EMPTY,
    "TE and a tab before the colon": head("/c", b"Transfer-Encoding\t: chunked") + EMPTY,
    "TE identity": head("/c", b"Transfer-Encoding: identity"),
    "TE chunked, identity": head("/c", b"Transfer-Encoding: chunked, identity") + EMPTY,
    "TE identity, chunked": head("/c", b"Transfer-Encoding: identity, chunked") + EMPTY,
    "TE gzip, chunked": head("/c", b"Transfer-Encoding: gzip, chunked") + EMPTY,
    "TE chunked, chunked": head("/c", b"Transfer-Encoding: chunked, chunked") + EMPTY,
    "TE twice": head("/c", CHUNKED, CHUNKED) + EMPTY,
    "TE identity and TE": head("/c", b"Transfer-Encoding: identity", CHUNKED) + EMPTY,
    "TE xchunked": head("/c", b"Transfer-Encoding: xchunked") + EMPTY,
    "TE in quotes": head("/c", b'Transfer-Encoding: "chunked"') + EMPTY,
    "TE with a vertical tab": head("/c", b"Transfer-Encoding: \x0bchunked") + EMPTY,
    "TE with a parameter": head("/c", b"Transfer-Encoding: chunked;q=1") + EMPTY,
    "an empty TE": head("/c", b"Transfer-Encoding:"),
    "TE in a folded line": head("/c", b"Transfer-Encoding:\r\n chunked", LENGTH) + EMPTY,
    "TE in a header of its own kind": head("/c", b"X: y\r\n\tTransfer-Encoding: chunked", LENGTH)
    + b"\x01",
    "TE in HTTP/1.0": head("/c", CHUNKED).replace(b"/1.1", b"/1.0") + EMPTY,
    "TE in a kept HTTP/1.0": head("/c", CHUNKED, b"Connection: keep-alive").replace(
        b"/1.1", b"/1.0"
    )
    + EMPTY,
    "bare LF": head("/c", b"Content-Length: 0").replace(b"\r\n", b"\n"),
    "bare LF after a header": head("/c", b"X: y\nContent-Length: 36"),
    "bare CR in a value": head("/c", b"X: y\rContent-Length: 36"),
    "bare CR in a name": head("/c", b"X\r: y"),
    "a space in a name": head("/c", b"X Y: z"),
    "no name": head("/c", b": z"),
    "no colon": head("/c", b"nothing"),
    "NUL in a value": head("/c", b"X: a\0b"),
    "NUL in a name": head("/c", b"X\0: b"),
    "a first header that is folded": b"POST /c HTTP/1.1\r\n Host: x\r\n\r\n",
    "no Host": head("/c", host=b"X: y"),
    "two Hosts": head("/c", b"Host: y"),
    "a chunk size with a plus": chunked(b"+5"),
    "a chunk size with a minus": chunked(b"-5"),
    "a chunk size with 0x": chunked(b"0x5"),
    "a chunk size after a space": chunked(b" 5"),
    "a chunk size before a space": chunked(b"5 "),
    "a chunk size with an underscore": chunked(b"0_5"),
    "a chunk size over 64 bits": chunked(b"10000000000000005"),
    "no chunk size": chunked(b""),
    "a chunk size that ends in LF": head("/c", CHUNKED) + b"5\nhello\r\n" + EMPTY,
    "a chunk without its end": head("/c", CHUNKED) + b"5\r\nhello0\r\n\r\n",
    "a chunk that ends in LF": head("/c", CHUNKED) + b"5\r\nhello\n" + EMPTY,
    "a chunk longer than its size": chunked(b"4"),
    "LF in a chunk's extension": head("/c", CHUNKED) + b"5;a\nb\r\nhello\r\n" + EMPTY,
    "CR in a chunk's extension": head("/c", CHUNKED) + b"5;a\rb\r\nhello\r\n" + EMPTY,
    "a length in the trailers": head("/c", CHUNKED) + b"0\r\nContent-Length: 5\r\n\r\n",
    "a coding in the trailers": head("/c", CHUNKED) + b"0\r\nTransfer-Encoding: x\r\n\r\n",
    "HTTP/0.9": b"GET /c\r\n\r\n",
    "HTTP/2.0": head("/c").replace(b"/1.1", b"/2.0"),
    "HTTP/1.2": head("/c").replace(b"/1.1", b"/1.2"),
    "HTTP/1.10": head("/c").replace(b"/1.1", b"/1.10"),
    "http in small letters": head("/c").replace(b"HTTP", b"http"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a method of small letters": head("/c", method=b"post"),
    "a method that is none": head("/c", method=b"G\x01T"),
    "a tab in the line": head("/c").replace(b" /c", b"\t/c"),
    "NUL in the address": head("/c\0d"),
    "a space in the address": head("/c d"),
    "another scheme": head("urn:c"),
    "CONNECT": b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n",
    "an authority for an address": b"POST x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n",
    "only a query": b"POST ?c HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.fixture(scope="module")
def refusals(server: Recorder) -> dict[str, bytes]:
    def request_for(name: str) -> bytes:
        return answer(server, REFUSED[name] + smuggled(name))

    with ThreadPoolExecutor(16) as pool:
        return dict(zip(REFUSED, pool.map(request_for, REFUSED), strict=True))


@pytest.mark.parametrize("name", REFUSED)
def test_what_two_servers_could_read_in_two_ways_is_refused(
    server: Recorder, refusals: dict[str, bytes], name: str
) -> None:
    problem(refusals[name], 400)
    assert server.requests(smuggled(name).split()[1].decode()) == []


# what is sent, and the one request that it is
ONE_REQUEST = {
    "a length": (head("/1", LENGTH) + SMUGGLED, SMUGGLED),
    "zeros before a length": (head("/2", LENGTH.replace(b": ", b": 00")) + SMUGGLED, SMUGGLED),
    "chunks": (head("/3", CHUNKED) + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX: y\r\n\r\n", b"abcde"),
    "TE in capitals": (head("/4", b"TRANSFER-ENCODING: CHUNKED") + EMPTY, b""),
    "an offer of HTTP/2": (
        head("/5", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c",
             b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA", LENGTH) + SMUGGLED,
        SMUGGLED,
    ),
    "an offer of HTTP/2 with chunks": (
        head("/6", b"Connection: upgrade", b"Upgrade: h2c", CHUNKED) + b"1\r\na\r\n" + EMPTY, b"a"
    ),
    "an offer of WebSocket": (
        head("/7", b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13",
             b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", method=b"GET"),
        b"",
    ),
    "an absolute address": (head("http://other/8"), b""),
    "empty lines before it": (b"\r\n\r\n" + head("/9"), b""),
    "a kept HTTP/1.0": (
        head("/10", b"Connection: keep-alive").replace(b"/1.1", b"/1.0") + SMUGGLED, b""
    ),
    "a connection that is to close": (head("/11", b"Connection: close") + SMUGGLED, b""),
    "a body with GET": (head("/12", LENGTH, method=b"GET") + SMUGGLED, SMUGGLED),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_REQUEST)
@pytest.mark.parametrize("cut", [0, 1, 2], ids=["at once", "cut after the head", "in two halves"])
def test_one_request_stays_one(server: Recorder, name: str, cut: int) -> None:
    raw, body = ONE_REQUEST[name]
    place = [len(raw), raw.index(b"\r\n\r\n", 4) + 4, len(raw) // 2][cut]
    server.seen.clear()
    reply = answer(server, raw[:place], raw[place:])
    assert reply.startswith(b"HTTP/1.1 200 OK\r\n")
    assert reply.count(b"HTTP/1.1 ") == 1
    assert [request[2] for request in server.seen] == [body]


def test_what_trailers_say_is_never_heard(server: Recorder) -> None:
    server.headers.clear()
    raw = head("/trailers", CHUNKED, b"X: y") + b"0\r\nX: z\r\nAuthorization: Bearer stolen\r\n\r\n"
    assert answer(server, raw).startswith(b"HTTP/1.1 200 ")
    (headers,) = server.headers
    assert headers == [(b"host", b"x"), (b"transfer-encoding", b"chunked"), (b"x", b"y")]


def test_a_head_may_be_large_but_not_too_large(server: Recorder) -> None:
    room = HEAD_BYTES - len(b"/large-head") - len(b"Host: x\r\n") - len(b"X: \r\n")
    assert answer(server, head("/large-head", b"X: " + b"y" * room)).startswith(b"HTTP/1.1 200 ")
    many = [b"X: y"] * (HEADERS - 1)
    assert answer(server, head("/headers", *many)).startswith(b"HTTP/1.1 200 ")
    over = [
        head("/over", b"X: " + b"y" * (room + 7)),
        head("/over", *[b"X: " + b"y" * 900] * 100),
        head("/" + "x" * HEAD_BYTES),
        head("/over", *many, b"X: y"),
    ]
    for raw in over:
        document = problem(answer(server, raw), 431)
        assert document["limit"] in (HEAD_BYTES, HEADERS)
        assert document["value"] > document["limit"]
    assert server.requests("/over") == []


@pytest.mark.parametrize(
    "begin",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: ",
        b"GET / HTTP/1.1\r\nHost: x\r\nX",
        head("/flood", CHUNKED) + b"5;",
        head("/flood", CHUNKED) + b"5\r\nhello\r\n0\r\nX: ",
    ],
    ids=["address", "value", "name", "chunk extension", "trailer"],
)
def test_a_flood_without_end_is_cut_off(server: Recorder, begin: bytes) -> None:
    end = time.monotonic() + MOST_SECONDS
    with connect(server) as sock:
        sock.sendall(begin)
        sock.settimeout(0.001)
        with contextlib.suppress(ConnectionError):
            while True:
                assert time.monotonic() < end
                with contextlib.suppress(TimeoutError):
                    sock.sendall(b"y" * 10_000)
        sock.settimeout(MOST_SECONDS)
        # what came before the connection ended is there still
        problem(until_closed(sock), 431)


def test_a_head_that_trickles_is_cut_off_in_time(hasty: Recorder) -> None:
    start = time.monotonic()
    with connect(hasty) as sock:
        sock.settimeout(0.02)
        for letter in head("/trickle", b"X: " + b"y" * 500):
            with contextlib.suppress(ConnectionError):
                sock.sendall(bytes([letter]))
            with contextlib.suppress(TimeoutError):
                reply = sock.recv(65_536)
                break
        else:
            pytest.fail("all of it was taken, one byte after the other")
        sock.settimeout(MOST_SECONDS)
        document = problem(reply + until_closed(sock), 408)
    assert document["limit"] == HEAD_SECONDS
    assert time.monotonic() - start >= HEAD_SECONDS - TIMER


def test_a_head_byte_by_byte_is_fine_within_the_time() -> None:
    raw = head("/bytes", LENGTH) + SMUGGLED
    with served() as server:
        reply = answer(server, *[bytes([letter]) for letter in raw], pause=0.001)
        assert reply.startswith(b"HTTP/1.1 200 ")
        assert server.seen == [("POST", "/bytes", SMUGGLED)]


@pytest.mark.parametrize("raw", [b"", b"\r\n"])
def test_a_connection_that_says_nothing_is_closed(hasty: Recorder, raw: bytes) -> None:
    assert answer(hasty, raw) == b""


@pytest.mark.parametrize(("second", "idle_seconds"), [(b"GET /sec", MOST_SECONDS), (b"\r\n", 1)])
def test_the_second_head_of_a_connection_has_a_time_too(second: bytes, idle_seconds: float) -> None:
    with (
        served(head_seconds=2 * HEAD_SECONDS, idle_seconds=idle_seconds) as server,
        connect(server) as sock,
    ):
        sock.sendall(head("/first", method=b"GET"))
        assert answered_ok(sock)
        with contextlib.suppress(ConnectionError):
            sock.sendall(second)
        reply = until_closed(sock)
    # an empty line before a request is no part of it
    assert reply == b"" if second == b"\r\n" else problem(reply, 408)


def test_a_body_that_goes_on_after_its_answer_ends_the_connection(hasty: Recorder) -> None:
    end = time.monotonic() + MOST_SECONDS
    with connect(hasty) as sock:
        sock.sendall(head("/early", CHUNKED))
        with contextlib.suppress(ConnectionError):
            while True:
                assert time.monotonic() < end
                sock.sendall(b"1\r\nx\r\n")
                time.sleep(0.02)


def test_too_many_connections_are_told_so_and_disturb_nobody() -> None:
    with served(max_connections=3, head_seconds=300) as server, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(connect(server)) for _ in range(3)]
        wait_until(lambda: len(server.connections) == 3)
        for _ in range(200):  # more than may linger
            with connect(server) as sock:
                reply = until_closed(sock)
        document = problem(reply, 503)
        assert (document["error_type"], document["limit"]) == ("overloaded", 3)
        assert b"retry-after: 1\r\n" in reply
        # who sends at once may read the answer, too
        assert problem(answer(server, head("/refused", LENGTH) + SMUGGLED), 503)
        for sock in sockets:
            sock.sendall(head("/held", b"Connection: close", method=b"GET"))
            assert until_closed(sock).startswith(b"HTTP/1.1 200 ")
        wait_until(lambda: not server.connections)
        assert answer(server, head("/again", method=b"GET")).startswith(b"HTTP/1.1 200 ")
        assert len(server.seen) == 4


def test_refused_connections_are_counted_and_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        served(max_connections=1, head_seconds=300) as server,
        connect(server),
        caplog.at_level(logging.WARNING, "openvocab"),
    ):
        wait_until(lambda: server.counted("openvocab_connections") == 1)
        for _ in range(3):
            assert problem(answer(server, b""), 503)
        refused = server.counted("openvocab_problems_total", error_type="overloaded")
        assert (refused, server.counted("openvocab_connections")) == (3, 1)
        assert server.counted("openvocab_max_connections") == 1
        messages = [record.getMessage() for record in caplog.records]
        assert messages == ["connections are refused: 1 are open (the limit, max_connections)"]


def test_a_head_that_is_refused_is_counted_by_why(server: Recorder) -> None:
    def counts() -> list[float]:
        codes = ("bad_request", "head_too_large")
        return [server.counted("openvocab_problems_total", error_type=code) for code in codes]

    before = counts()
    answer(server, b"broken\r\n\r\n")
    answer(server, head("/" + HEAD_BYTES * "x"))
    assert counts() == [count + 1 for count in before]


def test_pipelined_requests_are_answered_in_order_up_to_a_bound(server: Recorder) -> None:
    requests = [head(f"/pipe/{n}", method=b"GET") for n in range(10 * PIPELINED)]
    reply = answer(server, b"".join(requests))
    assert reply.count(b"HTTP/1.1 200 ") == PIPELINED + 1
    assert reply.count(b"connection: close") == 1
    paths = [path for _, path, _ in server.requests("/pipe/")]
    assert paths == [f"/pipe/{n}" for n in range(PIPELINED + 1)]


@pytest.mark.parametrize(
    "second", [b"broken\r\n\r\n", head("/broken", CHUNKED) + b"zz\r\n"], ids=["head", "body"]
)
def test_a_bad_request_is_answered_after_the_good_ones_before_it(
    server: Recorder, second: bytes
) -> None:
    reply = answer(server, head("/good", method=b"GET") + second)
    end = reply.rindex(b"HTTP/1.1 4")
    first, second = reply[:end], reply[end:]
    assert first.startswith(b"HTTP/1.1 200 ")
    problem(second, 400)
    assert server.requests("/broken") == []


def test_who_leaves_behind_a_pipelined_request_is_missed_by_both(server: Recorder) -> None:
    server.left.clear()
    with connect(server) as sock:
        sock.sendall(head("/until-left", method=b"GET") + head("/never", method=b"GET"))
        wait_until(lambda: bool(server.requests("/until-left")))
    wait_until(lambda: bool(server.left))
    assert server.left == ["/until-left"]
    assert server.requests("/never") == []


def test_a_broken_body_lets_its_request_go(server: Recorder) -> None:
    server.left.clear()
    problem(answer(server, head("/broken-body", CHUNKED), b"5\r\nhello", b"zz\r\n"), 400)
    wait_until(lambda: bool(server.left))
    assert server.left == ["/broken-body"]


def test_an_answer_that_nobody_reads_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.server.http_protocol.SEND_SECONDS", 0.5)
    with served() as server, connect(server) as sock:
        sock.sendall(head("/large", method=b"GET"))
        wait_until(lambda: bool(server.seen))
        wait_until(lambda: not server.connections)
        assert len(until_closed(sock)) < 30_000_000


def test_an_answer_that_is_read_slowly_is_sent_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.server.http_protocol.SEND_SECONDS", 2.0)
    with served() as server, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        sock.settimeout(MOST_SECONDS)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(head("/large", b"Connection: close", method=b"GET"))
        size, slow_until = 0, time.monotonic() + 5
        while part := sock.recv(65_536):
            size += len(part)
            if time.monotonic() < slow_until:
                time.sleep(0.25)  # the system takes its megabytes more rarely than anybody looks
        assert size > 30_000_000


def test_one_answer_may_be_larger_than_what_may_wait() -> None:
    with served(max_unread=2_000_000) as server, connect(server) as sock:
        sock.sendall(head("/large", b"Connection: close", method=b"GET"))
        assert len(until_closed(sock)) > 30_000_000


def test_answers_that_nobody_reads_have_a_bound_and_the_oldest_is_dropped() -> None:
    with served(max_unread=45_000_000) as server:
        unread = connect(server)
        unread.sendall(head("/large", method=b"GET"))
        wait_until(lambda: len(server.seen) == 1)
        with unread, connect(server) as reader:
            reader.sendall(head("/large", b"Connection: close", method=b"GET"))
            assert len(until_closed(reader)) > 30_000_000
            assert len(until_closed(unread)) < 30_000_000
        assert server.counted("openvocab_problems_total", error_type="overloaded") == 1


def test_bad_requests_write_no_log(server: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for raw in (b"broken\r\n\r\n", head("/", b"Connection: upgrade", b"Upgrade: x")):
            answer(server, raw)
    records = [record for record in caplog.records if record.name != "uvicorn.access"]
    assert [record.getMessage() for record in records] == []


def test_a_connection_that_idles_after_an_answer_outlives_the_time_for_a_head() -> None:
    with (
        served(head_seconds=1.0, idle_seconds=MOST_SECONDS) as recorder,
        connect(recorder) as sock,
    ):
        for _ in range(2):
            sock.sendall(head("/again"))
            assert answered_ok(sock)
            # past the time for a head, which begins with the first byte of the next request
            sock.settimeout(1.5)
            with pytest.raises(TimeoutError):
                sock.recv(1)
            sock.settimeout(MOST_SECONDS)
        # and then holds
        sock.sendall(b"GET /slow HTTP/1.1\r\nHost")
        assert b" 408 " in until_closed(sock)


def test_a_release_of_uvicorn_without_what_is_overridden_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_protocol, "OVERRIDDEN", ("on_url", "_gone"))
    with pytest.raises(RuntimeError, match=r"uvicorn [\d.]+ has no _gone; install 0\.54"):
        protocol(1.0, 1.0, 1, Metrics())


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (("::ffff:192.0.2.1", 5), ("192.0.2.1", 5)),
        (("::FFFF:c000:201", 5), ("192.0.2.1", 5)),
        (("2001:db8::1", 5), ("2001:db8::1", 5)),
        (("192.0.2.1", 5), ("192.0.2.1", 5)),
        (None, None),
    ],
)
def test_a_client_of_ipv4_has_its_own_address_on_a_socket_of_both_families(
    client: tuple[str, int] | None, expected: tuple[str, int] | None
) -> None:
    assert unmapped(client) == expected
