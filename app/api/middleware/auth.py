"""Who may come in: keys, scopes, origins and rates, before a body is read.

Knows nothing of what the routes do.
"""

import math
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.middleware import METRICS, keys
from app.api.middleware.keys import Identity, KeyRing
from app.api.middleware.keys import Scope as KeyScope
from app.api.middleware.rate_limit import RateLimiter
from app.api.middleware.state import RequestState, state_of
from app.api.problems import refuse
from app.classify.tenancy import working_for
from app.errors import (
    BadRequest,
    CrossOrigin,
    Forbidden,
    Misdirected,
    Problem,
    TooManyRequests,
    Unauthenticated,
)

ANY: Final = "*"
READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

# no address of ours holds any, and two readers of one could see two addresses
CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """Defaults for callers without rules of their own.

    `rate_limit` in requests a second, 0: none; `origins` are those whose pages may write,
    `hosts` the names that requests may be addressed to.
    """

    rate_limit: float = 0.0
    rate_burst: int = 1
    origins: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset({ANY})
    open_metrics: bool = True


class Gate:
    """Identifies the caller, and admits callers that may use the matched route."""

    def __init__(self, app: ASGIApp, keys: KeyRing, policy: GatePolicy) -> None:
        self._app = app
        self._keys = keys
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        state = state_of(scope)
        client = scope.get("client")
        state.caller = keys.anyone(client[0] if client else "local")
        try:
            _check_address(scope["path"])
            if not state.route.rule.addressed_anyhow:
                self._check_host(headers.get("host", ""))
            needs = self._needs(state)
            if needs is not None:
                state.caller = self._caller(headers, state.caller, scope["method"], needs)
                await self._pay(scope, state.caller)
        except Problem as problem:
            await refuse(problem, scope)(scope, receive, send)
            return
        with working_for(state.caller.namespace):
            await self._app(scope, receive, send)

    def _needs(self, state: RequestState) -> tuple[KeyScope, ...] | None:
        """Scopes of which the caller needs any; None: no key."""
        if state.route.path == METRICS and self._policy.open_metrics:
            return None
        return state.route.rule.needs

    def _caller(
        self, headers: Headers, stranger: Identity, method: str, needs: tuple[KeyScope, ...]
    ) -> Identity:
        if not self._keys.required:
            if method not in READS:
                self._check_origin(headers)
            return stranger
        kind, _, secret = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not secret.strip():
            detail = "no API key was sent; send it as `Authorization: Bearer KEY`"
            raise Unauthenticated(detail, field="Authorization")
        caller = self._keys.identify(secret.strip())
        if caller is None:
            raise Unauthenticated("unknown API key", field="Authorization")
        if not caller.may(*needs):
            detail = f"the key {caller.name} lacks the scope {needs[0]}, which this request needs"
            raise Forbidden(detail, field="Authorization", limit=needs[0])
        return caller

    def _check_host(self, host: str) -> None:
        if ANY in self._policy.hosts:
            return
        address = _address(f"//{host}")
        name = (address and address.hostname) or ""
        # with a dot at its end it is the absolute name of the same host
        if name.removesuffix(".") not in self._policy.hosts:
            detail = "this server does not answer for this host (OPENVOCAB_ALLOWED_HOSTS)"
            raise Misdirected(detail, field="Host", value=host[:200])

    def _check_origin(self, headers: Headers) -> None:
        """A page of another site may not write to a server that its reader's browser can reach."""
        origin = headers.get("origin")
        if origin is None or ANY in self._policy.origins or origin in self._policy.origins:
            return
        page = _address(origin)
        if page is None or page.netloc.lower() != headers.get("host", "").lower():
            detail = "cross-origin requests are not allowed from here (OPENVOCAB_CORS_ORIGINS)"
            raise CrossOrigin(detail, field="Origin", value=origin[:200])

    async def _pay(self, scope: Scope, caller: Identity) -> None:
        rate = self._policy.rate_limit if caller.rate_limit is None else caller.rate_limit
        if not rate:
            return
        burst = caller.rate_burst or max(self._policy.rate_burst, math.ceil(rate))
        limiter: RateLimiter = scope["app"].state.services.limiter
        name = caller.network or caller.name
        wait = await limiter.wait_for(name, rate, burst)
        if wait:
            detail = f"{name} is limited to {rate:g} requests a second, {burst} at once"
            raise TooManyRequests(detail, limit=rate, retry_after=max(1, math.ceil(wait)))


def _check_address(path: str) -> None:
    control = CONTROLS.search(path)
    if control is not None:
        detail = f"the path contains the control character U+{ord(control[0]):04X}"
        raise BadRequest(detail, field="path", value=f"U+{ord(control[0]):04X}")


def _address(text: str) -> SplitResult | None:
    try:
        return urlsplit(text)
    except ValueError:
        return None
