"""Deadlines and the number of requests in service; requests of disconnected clients are dropped.

Knows nothing of what the routes do.
"""

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.middleware.state import hold_nothing, state_of
from app.api.problems import refuse
from app.errors import DeadlinePassed, Invalid, Overloaded, SlowBody, TooLarge, retry_in
from app.telemetry.metrics import Metrics

# share of the newest interval in the mean time between two answers
NEWEST: Final = 0.05


class Admission:
    """Counts accepted requests; those beyond the limits are refused at once, with Retry-After.

    A request is in service from the last byte of its body to its answer, so that slow senders take
    no place; their bytes count against `most_bytes` as they arrive.
    """

    def __init__(
        self, most: int, most_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._clock = clock
        self._last: float | None = None  # when the last answer was given, if others waited then
        self._each = 0.0  # mean seconds between two answers of a busy server
        self.in_service = 0
        self.bytes = 0

    def check(self) -> None:
        """Raises Overloaded if one more would be too many."""
        if self.in_service >= self._most:
            raise Overloaded(
                f"{self.in_service} requests are already waiting (the limit, max_queue); "
                "try again later",
                limit=self._most,
                value=self.in_service,
                retry_after=self.retry_after(),
            )

    def enter(self) -> None:
        """One more in service. Raises Overloaded."""
        self.check()
        if not self.in_service:
            self._last = None
        self.in_service += 1

    def leave(self) -> None:
        """One less, answered or dropped."""
        now = self._clock()
        if self._last is not None:
            interval = now - self._last
            self._each += NEWEST * (interval - self._each) if self._each else interval
        self.in_service -= 1
        self._last = now if self.in_service else None

    def take_bytes(self, count: int, own: int = 0) -> None:
        """So many more bytes of bodies are held, by a request that has `own` already.

        Raises Overloaded, or TooLarge if they would never fit; then they are not held.
        """
        if own + count > self._most_bytes:
            detail = f"this request alone needs {own + count} bytes of memory, the limit of "
            detail += f"max_pending_bytes is {self._most_bytes}"
            raise TooLarge(detail, limit=self._most_bytes, value=own + count)
        if self.bytes + count > self._most_bytes:
            raise Overloaded(
                f"request bodies of {self.bytes} bytes are already in memory (the limit, "
                "max_pending_bytes); try again later",
                limit=self._most_bytes,
                value=self.bytes + count,
                retry_after=self.retry_after(),
            )
        self.bytes += count

    def free_bytes(self, count: int) -> None:
        """Release this many."""
        self.bytes -= count

    def retry_after(self) -> int:
        """Seconds until what is in service now will have been answered, at the present pace."""
        return retry_in(self.in_service * self._each)


HEADER: Final = "X-Request-Timeout"

# bytes a second that a body which is read bit by bit arrives with at least, on average while it is
# waited for
LEAST_PACE: Final = 1_000


class AdmissionMiddleware:
    """Each request has until its deadline, a place in service, and a client that still listens."""

    def __init__(
        self, app: ASGIApp, admission: Admission, timeout: float, metrics: Metrics
    ) -> None:
        self._app = app
        self._admission = admission
        self._timeout = timeout
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = state_of(scope)
        rule = state.route.rule
        headers = Headers(scope=scope)
        try:
            seconds = self._seconds(headers.get(HEADER))
            if rule.queued:
                self._admission.check()  # before its body is read
        except (Invalid, Overloaded) as problem:
            await refuse(problem, scope)(scope, receive, send)
            return
        now = asyncio.get_running_loop().time()
        state.deadline = now + seconds
        pace = self._timeout if rule.streams else None
        call = _Call(receive, send, self._admission, rule.queued, pace)
        state.hold = call.hold
        endless = rule.streams and HEADER not in headers
        try:
            async with asyncio.timeout_at(None if endless else now + seconds) as clock:
                await self._app(scope, call.receive, call.send)
        except TimeoutError:
            if not (clock.expired() or rule.streams):
                raise
            self._metrics.dropped("expired")
            if call.answering:
                raise  # half an answer is out
            late = _late(seconds, call.complete or _bodiless(headers))
            await refuse(late, scope)(scope, receive, send)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not call.left or task is None or task.uncancel():
                raise
            self._metrics.dropped("left")
        finally:
            call.end()
            state.hold = hold_nothing  # or the call and the state refer to each other
            self._metrics.received(call.read)
            state.closing.close()

    def _seconds(self, header: str | None) -> float:
        if header is None:
            return self._timeout
        try:
            seconds = float(header)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            detail = f"{HEADER} must be a number of seconds above 0"
            raise Invalid(detail, field=HEADER, limit=self._timeout, value=header[:60])
        return min(seconds, self._timeout)


class _Call:
    """One request as it passes: its bytes, its place, and whether its client is still there."""

    def __init__(
        self, receive: Receive, send: Send, admission: Admission, counted: bool, pace: float | None
    ) -> None:
        self._receive = receive
        self._send = send
        self._admission = admission
        self._counted = counted
        self._pace = pace  # seconds for each piece of what is read and written bit by bit
        self._task = asyncio.current_task()
        self._watch: asyncio.Task[Message] | None = None
        self._bytes = 0
        self._waited = 0.0
        self.read = 0
        self._entered = False
        self._answered = False
        self.answering = False
        self.complete = False
        self.left = False

    async def receive(self) -> Message:
        if self._watch is not None:
            return await asyncio.shield(self._watch)
        message = await self._next()
        if message["type"] != "http.request":
            return message
        self.read += len(message.get("body", b""))
        count = 0 if self._pace else len(message.get("body", b""))
        self.hold(count)
        if not message.get("more_body", False):
            self.complete = True
            if self._counted:
                self._admission.enter()
                self._entered = True
            self._watch = asyncio.get_running_loop().create_task(self._until_left())
        return message

    def hold(self, count: int) -> None:
        """So many more bytes are kept for this request until it ends.

        Raises Overloaded, TooLarge.
        """
        self._admission.take_bytes(count, self._bytes)
        self._bytes += count

    async def send(self, message: Message) -> None:
        self.answering = True
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._answered = True
        async with asyncio.timeout(self._pace):
            await self._send(message)

    async def _next(self) -> Message:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(self._pace):
                message = await self._receive()
        except TimeoutError:
            detail = f"nothing of the body arrived for {self._pace} seconds"
            raise SlowBody(detail, limit=self._pace) from None
        self._waited += clock() - began
        if self._pace and self._waited > self._pace + self.read / LEAST_PACE:
            detail = f"the body arrives at less than {LEAST_PACE} bytes a second"
            raise SlowBody(detail, limit=LEAST_PACE, value=round(self.read / self._waited))
        return message

    def end(self) -> None:
        """Give back what was taken."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None  # it refers to this call, which so ends with its request
        if self._entered:
            self._admission.leave()
        self._admission.free_bytes(self._bytes)

    async def _until_left(self) -> Message:
        """After the body the server has one thing left to tell: that the client is gone."""
        message = await self._receive()
        if not self._answered and self._task is not None:
            self.left = True
            self._task.cancel()
        return message


def _bodiless(headers: Headers) -> bool:
    """Whether no body follows (RFC 9112, section 6.3), so that its route need not wait for one."""
    return "transfer-encoding" not in headers and headers.get("content-length", "0") == "0"


def _late(seconds: float, complete: bool) -> DeadlinePassed | SlowBody:
    if complete:
        return DeadlinePassed(f"no answer within {seconds:g} seconds", limit=seconds)
    return SlowBody(f"the body did not arrive within {seconds:g} seconds", limit=seconds)
