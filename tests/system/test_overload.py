"""A live server that gets more than it can do, from clients that are slow, leave, or hurry it."""

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from benchmarks.reliability.misbehaving import Fault, Faults, misbehaving
from benchmarks.servers import Server, wait_until

QUEUE, BATCH = 4, 1
PLACES = QUEUE + BATCH
PENDING_BYTES = 400_000
ADDRESS = "/classify?labels=cat&labels=dog&labels=rocket&templates=pictogram"


@pytest.fixture(scope="module")
def live(module_data_dir: Path) -> Iterator[tuple[Server, Faults]]:
    with misbehaving(
        module_data_dir,
        max_queue=QUEUE,
        max_batch=BATCH,
        max_pending_bytes=PENDING_BYTES,
        # what waits here waits for the test
        request_timeout=3000,
        head_timeout=3000,
    ) as live:
        yield live


@pytest.fixture
def server(live: tuple[Server, Faults]) -> Iterator[Server]:
    """The server, idle before and after the test."""
    server, faults = live
    try:
        yield server
    finally:
        faults.set(Fault())
        wait_until(lambda: figure(server, "in_service") == figure(server, "pending_bytes") == 0)


@pytest.fixture
def faults(live: tuple[Server, Faults]) -> Faults:
    return live[1]


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def figure(server: Server, name: str) -> float:
    """What /metrics says of openvocab_NAME, 0 if nothing."""
    text = server.client.get("/metrics").text
    match = re.search(rf"^openvocab_{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(match[1]) if match else 0.0


def dropped(server: Server, reason: str) -> float:
    return figure(server, f'dropped_total{{reason="{reason}"}}')


def ask(server: Server, picture: Path, **headers: str) -> httpx.Response:
    """Classify on a connection of its own."""
    return httpx.post(
        f"{server.url}{ADDRESS}", content=picture.read_bytes(), headers=headers, timeout=300
    )


def dial(server: Server) -> socket.socket:
    url = httpx.URL(server.url)
    return socket.create_connection((url.host, url.port), timeout=300)


def head(length: int, *more: str) -> bytes:
    lines = [f"POST {ADDRESS} HTTP/1.1", "Host: here", "Content-Type: image/png"]
    return "\r\n".join([*lines, f"Content-Length: {length}", *more, "", ""]).encode()


def answer(connection: socket.socket) -> httpx.Response:
    """Read one answer off the wire."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += (more := connection.recv(65_536))
        assert more, "the server hung up"
    lines, _, body = received.partition(b"\r\n\r\n")
    status, *fields = lines.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in fields)
    while len(body) < int(headers["content-length"]):
        body += (more := connection.recv(65_536))
        assert more, "the server hung up"
    return httpx.Response(int(status.split()[1]), headers=headers, content=body)


@contextlib.contextmanager
def full(
    server: Server, faults: Faults, callers: ThreadPoolExecutor, picture: Path, places: int
) -> Iterator[list[Future[httpx.Response]]]:
    """So many requests are in service and wait for a model that does nothing until the end."""
    faults.set(Fault(blocked=True))
    waiting = [callers.submit(ask, server, picture) for _ in range(places)]
    try:
        wait_until(lambda: figure(server, "in_service") == places)
        yield waiting
    finally:
        faults.set(Fault())


def test_past_capacity_a_request_is_refused_before_its_body_is_sent(
    server: Server, faults: Faults, callers: ThreadPoolExecutor, samples: dict[str, Path]
) -> None:
    with full(server, faults, callers, samples["cat"], PLACES) as waiting:
        for _ in range(3):
            with dial(server) as connection:
                connection.sendall(head(100_000, "Expect: 100-continue"))
                refused = answer(connection)  # the body is never sent, nor asked for
            assert refused.status_code == 503
            assert refused.json()["error_type"] == "overloaded"
            assert refused.json()["limit"] == PLACES
            assert 1 <= int(refused.headers["retry-after"]) <= 60
        # who sends all of it at once reads the answer too, and may go on with the connection
        with httpx.Client(base_url=server.url, timeout=300) as client:
            for _ in range(2):
                refused = client.post(ADDRESS, content=bytes(100_000))
                assert refused.json()["error_type"] == "overloaded"
        held = PLACES * samples["cat"].stat().st_size
        # those of what was refused are let go just after its answer
        wait_until(lambda: figure(server, "pending_bytes") == held)
        # what takes no place is answered
        assert server.client.get("/healthz").status_code == 200
        assert server.client.get("/templates").status_code == 200
    assert [future.result().status_code for future in waiting] == [200] * PLACES


def test_a_client_that_waits_for_the_answer_before_its_body_gets_it(
    server: Server, faults: Faults, callers: ThreadPoolExecutor, samples: dict[str, Path]
) -> None:
    with full(server, faults, callers, samples["cat"], PLACES), dial(server) as connection:
        connection.sendall(head(100_000))
        assert answer(connection).json()["error_type"] == "overloaded"


def test_slow_senders_take_no_place(server: Server, samples: dict[str, Path]) -> None:
    data = samples["cat"].read_bytes()
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(dial(server)) for _ in range(3 * PLACES)]
        for connection in slow:
            connection.sendall(head(len(data)) + data[:1000])
        wait_until(lambda: figure(server, "pending_bytes") == 3 * PLACES * 1000)
        assert figure(server, "in_service") == 0
        assert ask(server, samples["cat"]).status_code == 200
        slow[0].sendall(data[1000:])
        assert answer(slow[0]).json()["predictions"][0]["label"] == "cat"


def test_bytes_that_are_held_have_a_bound_and_are_let_go_with_their_client(
    server: Server, samples: dict[str, Path]
) -> None:
    pending = PENDING_BYTES - 1000
    with dial(server) as slow:
        slow.sendall(head(PENDING_BYTES) + bytes(pending))
        wait_until(lambda: figure(server, "pending_bytes") == pending)
        refused = ask(server, samples["cat"])
        assert (refused.status_code, refused.json()["error_type"]) == (503, "overloaded")
        assert refused.json()["limit"] == PENDING_BYTES
        assert "retry-after" in refused.headers
        wait_until(lambda: figure(server, "pending_bytes") == pending)
    wait_until(lambda: figure(server, "pending_bytes") == 0)
    assert ask(server, samples["cat"]).status_code == 200


@pytest.mark.parametrize(
    ("path", "content", "kind", "status"),
    [
        (ADDRESS, b"no picture", "image/png", 415),
        ("/classify", b"{", "application/json", 400),
        ("/classify", b"--x\r\nbroken", "multipart/form-data; boundary=x", 400),
        ("/nowhere", b"anything", "image/png", 404),
    ],
)
def test_bytes_are_let_go_after_an_error(
    path: str, content: bytes, kind: str, status: int, server: Server
) -> None:
    response = server.client.post(path, content=content, headers={"Content-Type": kind})
    assert response.status_code == status
    wait_until(lambda: figure(server, "pending_bytes") == figure(server, "in_service") == 0)


def test_who_leaves_while_waiting_is_never_encoded(
    server: Server, faults: Faults, callers: ThreadPoolExecutor, samples: dict[str, Path]
) -> None:
    data = samples["dog"].read_bytes()
    before, dropped_before = faults.encoded(), dropped(server, "left")
    with full(server, faults, callers, samples["cat"], 2) as waiting:
        for _ in range(3):
            with dial(server) as leaver:
                leaver.sendall(head(len(data)) + data)
                wait_until(lambda: figure(server, "in_service") == 3)
            wait_until(lambda: figure(server, "in_service") == 2)
        wait_until(lambda: dropped(server, "left") == dropped_before + 3)
    assert [future.result().status_code for future in waiting] == [200, 200]
    assert ask(server, samples["cat"]).status_code == 200
    assert faults.encoded() == before + 3


def test_who_has_no_time_left_is_told_so_and_never_encoded(
    server: Server, faults: Faults, callers: ThreadPoolExecutor, samples: dict[str, Path]
) -> None:
    before, expired = faults.encoded(), dropped(server, "expired")
    with full(server, faults, callers, samples["cat"], 2) as waiting:
        start = time.monotonic()
        # enough for its body to arrive
        late = ask(server, samples["cat"], **{"X-Request-Timeout": "2.5"})
        assert time.monotonic() - start < 60
        assert (late.status_code, late.json()["error_type"]) == (504, "deadline_passed")
        assert late.json()["limit"] == 2.5
        wait_until(lambda: figure(server, "in_service") == 2)
        wait_until(lambda: dropped(server, "expired") == expired + 1)
    assert [future.result().status_code for future in waiting] == [200, 200]
    assert faults.encoded() == before + 2


def test_a_body_that_does_not_come_in_time_is_said_to_be_slow(server: Server) -> None:
    expired = dropped(server, "expired")
    with dial(server) as slow:
        slow.sendall(head(100_000, "X-Request-Timeout: 0.3") + bytes(1000))
        late = answer(slow)
    assert (late.status_code, late.json()["error_type"]) == (408, "slow_body")
    wait_until(lambda: dropped(server, "expired") == expired + 1)


@pytest.mark.parametrize("value", ["", "soon", "0", "-1", "nan", "inf", "1e999"])
def test_a_time_that_is_none_is_refused(
    value: str, server: Server, samples: dict[str, Path]
) -> None:
    response = ask(server, samples["cat"], **{"X-Request-Timeout": value})
    assert response.status_code == 422
    assert response.json()["field"] == "X-Request-Timeout"
    assert json.dumps(response.json()["value"]) == json.dumps(value)


def test_a_client_cannot_ask_for_more_time_than_there_is(
    server: Server, samples: dict[str, Path]
) -> None:
    assert ask(server, samples["cat"], **{"X-Request-Timeout": "1e300"}).status_code == 200
