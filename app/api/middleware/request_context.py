"""Bookkeeping of one request: its ID, access-log line and trace span.

Knows nothing of the contents of requests, nor of limits.
"""

import contextlib
import logging
import random
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.middleware import Matched, RouteTable, routed
from app.api.middleware.state import RequestState
from app.api.problems import SECURITY_HEADERS, refuse
from app.errors import failure
from app.telemetry import logs, spans
from app.telemetry.metrics import Metrics
from app.telemetry.spans import Stages

if TYPE_CHECKING:
    from app.telemetry.otel import Place, Tracing


log = logging.getLogger("openvocab.http")
access = logging.getLogger("openvocab.access")

REQUEST_ID: Final = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)

TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"}
)

# characters of a path, and labels, that a line tells
PATH: Final = 200
LABELS: Final = 100


class Exchange:
    """One request from its first byte to the last byte of its response."""

    def __init__(
        self, scope: Scope, route: Matched, tracing: "Tracing | None", *, labels: bool = False
    ) -> None:
        headers = Headers(scope=scope)
        self.state = RequestState(_request_id(headers.get("x-request-id", "")), Stages(), route)
        self.state.put_in(scope)
        self.status = 0
        self._scope = scope
        self._labels = labels
        self._begun = time.perf_counter()
        self._sent = 0
        self._probe = route.rule.probe
        self._place: Place | None = None
        if tracing is not None and not self._probe:
            method, attributes = _identify(scope, headers)
            self._place = tracing.request(headers, method, attributes)
        trace_id = _trace_id(headers) if self._place is None else self._place.trace_id
        self._about = logs.Request(self.state.request_id, trace_id)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """What happens inside happens for this request."""
        with logs.about(self._about), spans.at(self._place):
            yield

    def answers(self, message: Message) -> None:
        """Note a part of the answer; what answers say of themselves is put into the first."""
        if message["type"] == "http.response.body":
            self._sent += len(message.get("body", b""))
            return
        self.status = message["status"]
        headers = MutableHeaders(scope=message)
        headers["X-Request-ID"] = self.state.request_id
        if self._place is not None:
            headers["traceresponse"] = self._place.response
        if self.state.stages.seconds:
            self.state.stages.add("total", time.perf_counter() - self._begun)
            headers["Server-Timing"] = self.state.stages.server_timing()

    @property
    def route(self) -> str:
        """The address as it is declared, so that names in it make no new series."""
        return self.state.route.path

    def end(self, metrics: Metrics) -> None:
        """Take the time, write the access line, end the span and count what was answered."""
        seconds = time.perf_counter() - self._begun
        if self._place is not None:
            self._end_span(self._place)
        # that of a probe tells something only when it fails
        level = logging.DEBUG if self._probe and self.status < 400 else logging.INFO
        if self.status and access.isEnabledFor(level):
            self._write(level, 1000 * seconds)
        if self.status:
            state = self.state
            metrics.answered(self.route, self.status, seconds, state.stages, state.problem)

    def _write(self, level: int, ms: float) -> None:
        method, path = self._scope["method"], _path(self._scope)
        stages = {name: round(1000 * s, 2) for name, s in self.state.stages.seconds.items()}
        stages.pop("total", None)
        noted = dict(self._about.noted)
        labels = noted.pop("labels", ())
        if labels and self._labels:
            noted |= {"labels": labels[:LABELS], "label_count": len(labels)}
        caller = self._caller() or "-"
        access.log(
            level,
            "%s %s %s %d %.1f ms, request %s",
            caller, method, path, self.status, ms, self.state.request_id,
            extra=logs.fields(
                method=method, route=self.route, path=path, status=self.status, ms=round(ms, 2),
                bytes_in=self.state.received, bytes_out=self._sent, caller=caller,
                model=self._model(), stages_ms=stages or None, error_type=self.state.problem,
                **noted,
            ),
        )  # fmt: skip

    def _end_span(self, place: "Place") -> None:
        method = self._scope["method"] if self._scope["method"] in METHODS else "HTTP"
        place.span.update_name(f"{method} {self.route}" if self.route != "none" else method)
        attributes = {
            "http.route": None if self.route == "none" else self.route,
            "http.response.status_code": self.status or None,
            "http.request.body.size": self.state.received,
            "http.response.body.size": self._sent,
            "openvocab.caller": self._caller(),
            "openvocab.error_type": self.state.problem,
            "openvocab.model": self._model(),
            "openvocab.request_id": self.state.request_id,
        }
        place.span.set_attributes({k: v for k, v in attributes.items() if v is not None})
        if not self.status:
            place.end("client_left")
        else:
            place.end((self.state.problem or str(self.status)) if self.status >= 500 else None)

    def _caller(self) -> str | None:
        caller = self.state.caller
        return None if caller is None else caller.name

    def _model(self) -> str | None:
        if self.state.model is not None:
            return self.state.model
        services = getattr(self._scope["app"].state, "services", None)
        return None if services is None else str(services.encoder.info.name)


def _identify(scope: Scope, headers: Headers) -> tuple[str, dict[str, Any]]:
    """The first name of a request's span, and its attributes (HTTP semantic conventions)."""
    known = scope["method"] in METHODS
    attributes = {
        "http.request.method": scope["method"] if known else "_OTHER",
        "network.protocol.version": scope["http_version"],
        "url.path": _path(scope),
        "url.scheme": scope["scheme"],
        "user_agent.original": headers.get("user-agent", "")[:PATH],
    }
    if not known:
        attributes["http.request.method_original"] = scope["method"][:PATH]
    return scope["method"] if known else "HTTP", attributes


def _path(scope: Scope) -> str:
    """As it was sent, without the query, which may hold labels."""
    return str(scope["raw_path"].decode("ascii", "replace")[:PATH])


def _trace_id(headers: Headers) -> str:
    """That of the caller's trace, where none is made here."""
    match = TRACEPARENT.match(headers.get("traceparent", ""))
    return match[1] if match else ""


def _request_id(header: str) -> str:
    """The caller's own id where it is harmless in a header and a log line, else a new one."""
    # it tells requests apart and guards nothing: the system's own generator would take 40 us
    return header if REQUEST_ID.fullmatch(header) else f"{random.getrandbits(128):032x}"


class RequestContext:
    """Gives each request an id and a clock, answers both, and turns a crash into a 500.

    Outermost, so that every answer carries the id.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: RouteTable,
        metrics: Metrics,
        tracing: "Tracing | None" = None,
        log_labels: bool = False,
    ) -> None:
        self._app = app
        self._routes = routes
        self._metrics = metrics
        self._tracing = tracing
        self._log_labels = log_labels

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = self._routes.of(routed(scope))
        exchange = Exchange(scope, route, self._tracing, labels=self._log_labels)

        async def send_with_headers(message: Message) -> None:
            if scope["method"] == "HEAD" and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            exchange.answers(message)
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        with exchange.current():
            try:
                await self._app(routed(scope), receive, send_with_headers)
            except ClientDisconnect:
                log.debug("the client disconnected while sending")
            except Exception as error:
                log.exception("a request failed: %s %s", scope["method"], scope["path"])
                if exchange.status:
                    raise  # half an answer is out: the server must cut the connection
                await refuse(failure(error), scope)(scope, receive, send_with_headers)
            finally:
                exchange.end(self._metrics)
