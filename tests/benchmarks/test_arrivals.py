"""The open-loop load generator: it waits for nobody, and counts what it is told."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from benchmarks.reliability.arrivals import NO_ANSWER, Caller, moments, post, quantile

Answer = Callable[[asyncio.StreamWriter, int], Awaitable[None]]


@contextlib.asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[Caller]:
    """A server that reads a request of one byte and lets `answer` write; a caller of it."""
    number = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        try:
            while not reader.at_eof():
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(1)
                number += 1
                await answer(writer, number)
        except asyncio.IncompleteReadError:
            pass  # the caller has asked enough
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield Caller("127.0.0.1", port, post("127.0.0.1", "/", "text/plain", b"x"))


def response_bytes(status: int, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", *headers, "Content-Length: 2", "", "ok"]
    return "\r\n".join(lines).encode()


def test_requests_start_when_they_are_due_and_wait_for_no_answer() -> None:
    async def together() -> None:
        arrived, all_there = 0, asyncio.Event()

        async def answer(writer: asyncio.StreamWriter, _number: int) -> None:
            nonlocal arrived
            arrived += 1
            if arrived == 5:
                all_there.set()
            await all_there.wait()  # nobody is answered before the last has asked
            writer.write(response_bytes(200))

        async with answering(answer) as caller:
            outcome = await caller.open_loop([0.0, 0.01, 0.02, 0.03, 0.04])
            assert outcome.statuses() == {200: 5}
            assert all(request.waited > 0.0 for request in outcome.requests)

    asyncio.run(together())


def test_answers_are_counted_by_status_and_connections_that_end_too() -> None:
    async def mixed() -> None:
        async def answer(writer: asyncio.StreamWriter, number: int) -> None:
            if number == 1:
                writer.write(response_bytes(503, "Retry-After: 7", "Connection: close"))
            elif number == 2:
                writer.close()
            else:
                writer.write(response_bytes(200))

        async with answering(answer) as caller:
            outcome = await caller.closed_loop(1, most=4)
            assert outcome.statuses() == {503: 1, NO_ANSWER: 1, 200: 2}
            assert [request.retry_after for request in outcome.requests] == [7, None, None, None]
            outcome.end = 10.0
            assert outcome.rate(200) == 0.2

    asyncio.run(mixed())


def test_moments_are_the_same_for_a_seed_and_as_many_as_asked_for() -> None:
    times = moments(100, 10, seed=1)
    assert times == moments(100, 10, seed=1) != moments(100, 10, seed=2)
    assert times == sorted(times)
    assert len(times) == pytest.approx(1000, rel=0.1)


def test_a_quantile_is_one_of_the_values() -> None:
    assert [quantile([3.0, 1.0, 2.0], share) for share in (0.0, 0.5, 0.99, 1.0)] == [1, 2, 3, 3]
    assert math.isnan(quantile([], 0.5))
