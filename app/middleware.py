"""What happens to a request before anything is parsed: an id, a clock, a limit on its body."""

import asyncio
import logging
import random
import re
import time
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import TooLarge
from app.media_types import is_json, media_type
from app.metrics import Metrics, Stages
from app.problems import SECURITY_HEADERS, internal, refuse

log = logging.getLogger("openvocab.http")
access = logging.getLogger("openvocab.access")

REQUEST_ID: Final = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)

LABELSETS: Final = "/labelsets"

# read and answered bit by bit, however large
UPLOADS: Final = "/classify/batch"

# a client that is still sending reads no answer; so much is read and thrown away for its sake
DRAIN_BYTES: Final = 64_000_000
DRAIN_SECONDS: Final = 5.0

# one that sends nothing for so long may be waiting for the answer
QUIET_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Bytes a body may have: an image, as it is or in a form; a label set; many images."""

    image: int
    labelset: int
    upload: int

    def of(self, path: str, content_type: str) -> int:
        """The limit for a body of this media type; fields beside the image have a megabyte."""
        if path.startswith(LABELSETS):
            return self.labelset
        kind = media_type(content_type)
        if path == UPLOADS and not is_json(kind):
            return self.upload
        if is_json(kind):
            return self.image * 4 // 3 + 1_000_000
        if kind == "multipart/form-data":
            return self.image + 1_000_000
        return self.image


class RequestContext:
    """Gives each request an id and a clock, answers both, and turns a crash into a 500.

    Outermost, so that every answer carries the id.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope).get("x-request-id", ""))
        stages = Stages()
        scope.setdefault("state", {}).update(request_id=request_id, stages=stages)
        begun = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                if stages.seconds:
                    stages.add("total", time.perf_counter() - begun)
                    headers["Server-Timing"] = stages.server_timing()
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            log.debug("request %s: the client left while it was sending", request_id)
        except Exception:
            log.exception("request %s failed: %s %s", request_id, scope["method"], scope["path"])
            if status:
                raise  # half an answer is out: the server must cut the connection
            await internal(scope)(scope, receive, send_with_headers)
        finally:
            if status:
                problem = scope["state"].get("problem")
                spent = time.perf_counter() - begun
                self._metrics.answered(_route(scope), status, spent, stages, problem)
                _note(scope, status, spent)


class BodyLimit:
    """Stops a body at its limit while it streams in, and lets the client read the answer."""

    def __init__(self, app: ASGIApp, limits: BodyLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        limit = self._limits.of(path, headers.get("content-type", ""))
        field = None if path.startswith(LABELSETS) else "image"
        waits = headers.get("expect", "").lower() == "100-continue"
        body = _Body(receive, limit, field, waits)

        async def send_after_body(message: Message) -> None:
            if message["type"] == "http.response.start" and not scope["state"].get("streams"):
                await body.drain()
            await send(message)

        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            refusal = refuse(_too_large(int(declared), limit, field), scope)
            await refusal(scope, receive, send_after_body)
            return
        await self._app(scope, body.receive, send_after_body)


class _Body:
    """A request's body as it arrives, counted."""

    def __init__(self, receive: Receive, limit: int, field: str | None, waits: bool) -> None:
        self._receive = receive
        self._limit = limit
        self._field = field
        self._waits = waits  # for "100 Continue", which the first read sends
        self._read = 0
        self._complete = False

    async def receive(self) -> Message:
        message = await self._next()
        if self._read > self._limit:
            raise _too_large(self._read, self._limit, self._field)
        return message

    async def drain(self) -> None:
        """Read on until the end or a bound, if the client is sending at all."""
        if self._complete or (self._waits and not self._read):
            return
        most = self._read + DRAIN_BYTES
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._complete and self._read < most:
                    async with asyncio.timeout(QUIET_SECONDS):
                        await self._next()
        except TimeoutError:
            log.info("a refused body did not end in time")

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
        else:
            self._complete = True
        return message


def _route(scope: Scope) -> str:
    """The address as it is declared, so that names in it make no new series."""
    route = scope.get("route")
    return str(getattr(route, "path", "none"))


def _note(scope: Scope, status: int, seconds: float) -> None:
    """A line for each request: neither its query, which may hold labels, nor any secret."""
    if access.isEnabledFor(logging.INFO):
        state = scope["state"]
        caller = state["identity"].name if "identity" in state else "-"
        path = scope["raw_path"].decode("ascii", "replace")[:200]
        access.info(
            "%s %s %s %d %.1f ms, request %s",
            caller, scope["method"], path, status, 1000 * seconds, state["request_id"],
        )  # fmt: skip


def _request_id(sent: str) -> str:
    """The caller's own id where it is harmless in a header and a log line, else a new one."""
    # it tells requests apart and guards nothing: the system's own generator would take 40 us
    return sent if REQUEST_ID.fullmatch(sent) else f"{random.getrandbits(128):032x}"


def _too_large(size: int, limit: int, field: str | None) -> TooLarge:
    detail = f"the body has {size} bytes or more, the limit is {limit}"
    return TooLarge(detail, field=field, limit=limit, value=size)
