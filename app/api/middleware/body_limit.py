"""A limit on the body of a request, while it arrives, packed or not."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.bodies import FORM, is_json, media_type
from app.api.middleware import Body
from app.api.middleware.content_encoding import ACCEPTED, Unpacked, coding_of
from app.api.middleware.state import RequestState, state_of
from app.api.problems import refuse
from app.errors import SlowBody, TooLarge, UnsupportedEncoding

log = logging.getLogger("openvocab.http")

# bytes of a body that its route does not read
SPARE: Final = 1_000_000

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

    def of(self, body: Body, content_type: str) -> int:
        """The limit for a body of this media type; fields beside the image have a megabyte."""
        kind = media_type(content_type)
        if body is Body.NONE:
            return SPARE
        if body is Body.LABELSET:
            return self.labelset
        if body is Body.UPLOAD and not is_json(kind):
            return self.upload
        if is_json(kind):
            return self.image * 4 // 3 + 1_000_000
        if kind == FORM:
            return self.image + 1_000_000
        return self.image


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
        state = state_of(scope)
        kind = state.route.rule.body
        limit = self._limits.of(kind, headers.get("content-type", ""))
        field = state.route.rule.sends if kind in (Body.IMAGE, Body.UPLOAD) else None
        waits = headers.get("expect", "").lower() == "100-continue"
        body = _Body(receive, state, limit, field, waits)

        async def send_after_body(message: Message) -> None:
            if message["type"] == "http.response.start" and not state.duplex:
                await body.drain()
            await send(message)

        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            refusal = refuse(_too_large(int(declared), limit, field), scope)
            await refusal(scope, receive, send_after_body)
            return
        try:
            coding = coding_of(",".join(headers.getlist("content-encoding")))
        except UnsupportedEncoding as problem:
            refusal = refuse(problem, scope)
            refusal.headers["Accept-Encoding"] = ACCEPTED
            await refusal(scope, receive, send_after_body)
            return
        arriving: _Body | Unpacked = body
        if coding is not None:
            arriving = Unpacked(body.receive, coding, limit, field)
        await self._app(scope, arriving.receive, send_after_body)


class _Body:
    """A request's body as it arrives."""

    def __init__(
        self, receive: Receive, state: RequestState, limit: int, field: str | None, waits: bool
    ) -> None:
        self._receive = receive
        self._state = state
        self._limit = limit
        self._field = field
        self._waits = waits  # for "100 Continue", which the first read sends
        self._complete = False

    async def receive(self) -> Message:
        message = await self._next()
        if self._state.received > self._limit:
            raise _too_large(self._state.received, self._limit, self._field)
        return message

    async def drain(self) -> None:
        """Read on until the end or a bound, if the client is sending at all."""
        if self._complete or (self._waits and not self._state.received):
            return
        if self._state.problem == SlowBody.code:
            return  # nobody waits for it a second time
        most = self._state.received + DRAIN_BYTES
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._complete and self._state.received < most:
                    async with asyncio.timeout(QUIET_SECONDS):
                        await self._next()
        except TimeoutError:
            log.info("a refused body did not end in time")

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._state.received += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
        else:
            self._complete = True
        return message


def _too_large(size: int, limit: int, field: str | None) -> TooLarge:
    detail = f"the body has {size} bytes or more, the limit is {limit}"
    return TooLarge(detail, field=field, limit=limit, value=size)
