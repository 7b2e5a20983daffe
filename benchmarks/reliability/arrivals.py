"""Ask a server over HTTP at moments that were fixed before, whether or not it has answered.

A loop that waits for its answers (wrk, ab, hey) slows down with the server and so never overloads
it; this one starts every request when its time has come, on a connection that is free or on a new
one, and counts its waiting from that time on. Knows nothing of what is asked.
"""

import asyncio
import contextlib
import math
import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

PATIENCE: Final = 120.0
NO_ANSWER: Final = 0

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Request:
    """One request: when it was due and answered (seconds from the first), and how.

    `status` is NO_ANSWER where the connection ended; `late` is by how much it was begun too late.
    """

    due: float
    answered: float
    status: int
    retry_after: int | None
    late: float

    @property
    def waited(self) -> float:
        """Seconds from when it was due."""
        return self.answered - self.due


@dataclass(slots=True)
class Outcome:
    """All requests of one run; figures of those that were answered between `begin` and `end`."""

    requests: list[Request] = field(default_factory=list)
    begin: float = 0.0
    end: float = math.inf

    def of(self, status: int) -> list[Request]:
        """Those with this status, in the window."""
        inside = (request for request in self.requests if self.begin <= request.answered < self.end)
        return [request for request in inside if request.status == status]

    def rate(self, status: int) -> float:
        """So many a second."""
        return len(self.of(status)) / (self.end - self.begin)

    def waited(self, status: int, share: float) -> float:
        """The seconds that this share of them waited at most, not a number if there is none."""
        return quantile([request.waited for request in self.of(status)], share)

    def statuses(self) -> Counter[int]:
        """How many of each, from the first to the last."""
        return Counter(request.status for request in self.requests)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that this share of them does not pass."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def moments(rate: float, seconds: float, seed: int) -> list[float]:
    """When requests arrive that know nothing of one another, `rate` a second (Poisson)."""
    dice, times, now = random.Random(seed), [], 0.0
    while (now := now + dice.expovariate(rate)) < seconds:
        times.append(now)
    return times


def post(host: str, path: str, kind: str, body: bytes) -> bytes:
    """A request as it goes over the wire."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Type: {kind}"]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


class Caller:
    """Sends one message again and again, on as many connections as it takes."""

    def __init__(self, host: str, port: int, message: bytes) -> None:
        self._host = host
        self._port = port
        self._message = message
        self._idle: deque[Connection] = deque()

    async def open_loop(self, due: Sequence[float]) -> Outcome:
        """Start a request at each of these moments, then wait until all are answered."""
        outcome, start = Outcome(), time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for moment in due:
                pause = start + moment - time.perf_counter()
                if pause > 0:
                    await asyncio.sleep(pause)
                group.create_task(self._ask(outcome, start, moment))
        await self._close()
        return outcome

    async def closed_loop(
        self, callers: int, seconds: float = math.inf, most: float = math.inf
    ) -> Outcome:
        """Keep so many requests under way, for so long or until so many were begun."""
        outcome, start, remaining = Outcome(), time.perf_counter(), most

        async def caller() -> None:
            nonlocal remaining
            while remaining > 0 and (now := time.perf_counter() - start) < seconds:
                remaining -= 1
                await self._ask(outcome, start, now)

        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(caller())
        await self._close()
        return outcome

    async def _ask(self, outcome: Outcome, start: float, due: float) -> None:
        late = time.perf_counter() - start - due
        try:
            async with asyncio.timeout(PATIENCE):
                status, retry_after = await self._exchange()
        except (OSError, EOFError, TimeoutError):
            status, retry_after = NO_ANSWER, None
        end = time.perf_counter() - start
        outcome.requests.append(Request(due, end, status, retry_after, late))

    async def _exchange(self) -> tuple[int, int | None]:
        reader, writer = await self._free() or await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(self._message)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            status, *lines = head.rstrip().split("\r\n")
            fields = dict(line.split(": ", 1) for line in lines)
            await reader.readexactly(int(fields["content-length"]))
        except BaseException:
            await _closed(writer)
            raise
        if fields.get("connection") == "close":
            await _closed(writer)
        else:
            self._idle.append((reader, writer))
        retry_after = fields.get("retry-after")
        return int(status.split()[1]), None if retry_after is None else int(retry_after)

    async def _free(self) -> Connection | None:
        """One that the server has not closed meanwhile, for having been idle."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            await _closed(writer)
        return None

    async def _close(self) -> None:
        while self._idle:
            _, writer = self._idle.pop()
            await _closed(writer)


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):  # the server was first
        await writer.wait_closed()
