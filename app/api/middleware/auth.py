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

from app.api.middleware import keys
from app.api.middleware.keys import Identity, KeyRing
from app.api.middleware.rate_limit import RateLimiter
from app.api.problems import refuse
from app.errors import (
    CrossOrigin,
    Forbidden,
    Misdirected,
    Problem,
    TooManyRequests,
    Unauthenticated,
)

OPEN: Final = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
PUBLIC: Final = ("/page",)
METRICS: Final = "/metrics"
ANY: Final = "*"
READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

# what the scope `classify` may send; whatever is in neither list needs `admin`
CLASSIFYING: Final = ("/classify", "/embeddings", "/v1", "/hf")
WRITING: Final = ("/labelsets",)

# pictures of somebody, which are for those alone who may also remove them
PRIVATE: Final = re.compile(r"/labelsets/[^/]+/examples(/.*)?")


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """What holds for callers that have no rule of their own.

    `rate_limit` in requests a second, 0: none; `origins` are those whose pages may write,
    `hosts` the names that requests may be addressed to.
    """

    rate_limit: float = 0.0
    rate_burst: int = 1
    origins: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset({ANY})
    open_metrics: bool = True


class Gate:
    """Finds out who calls, and lets in who may do what the request asks for."""

    def __init__(self, app: ASGIApp, keys: KeyRing, policy: GatePolicy) -> None:
        self._app = app
        self._keys = keys
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        headers = Headers(scope=scope)
        client = scope.get("client")
        stranger = keys.anyone(client[0] if client else "local")
        scope["state"]["identity"] = stranger
        is_open = (
            path in OPEN or _under(path, PUBLIC) or (path == METRICS and self._policy.open_metrics)
        )
        try:
            self._check_host(headers.get("host", ""))
            if not is_open:
                caller = self._caller(headers, stranger, scope["method"], path)
                scope["state"]["identity"] = caller
                await self._pay(scope, caller)
        except Problem as problem:
            await refuse(problem, scope)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _caller(self, headers: Headers, stranger: Identity, method: str, path: str) -> Identity:
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
            raise Unauthenticated("the API key is not known here", field="Authorization")
        self._check_scope(caller, method, path)
        return caller

    def _check_scope(self, caller: Identity, method: str, path: str) -> None:
        if path != METRICS and method in READS and not PRIVATE.fullmatch(path):
            allowed, wanted = caller.may("classify", "labelsets:write"), "classify"
        elif _under(path, CLASSIFYING):
            allowed, wanted = caller.may("classify"), "classify"
        elif _under(path, WRITING):
            allowed, wanted = caller.may("labelsets:write"), "labelsets:write"
        else:
            allowed, wanted = caller.may("admin"), "admin"
        if not allowed:
            detail = f"the key {caller.name} has not the scope {wanted} that this needs"
            raise Forbidden(detail, field="Authorization", limit=wanted)

    def _check_host(self, host: str) -> None:
        if ANY in self._policy.hosts:
            return
        asked = _address(f"//{host}")
        if asked is None or asked.hostname not in self._policy.hosts:
            detail = "requests for this host are not answered; OPENVOCAB_ALLOWED_HOSTS has those"
            raise Misdirected(f"{detail} that are", field="Host", value=host[:200])

    def _check_origin(self, headers: Headers) -> None:
        """A page somewhere may not write to a server that its reader's browser happens to reach."""
        origin = headers.get("origin")
        if origin is None or ANY in self._policy.origins or origin in self._policy.origins:
            return
        page = _address(origin)
        if page is None or page.netloc.lower() != headers.get("host", "").lower():
            detail = "the request comes from a page of another origin; OPENVOCAB_CORS_ORIGINS lists"
            raise CrossOrigin(f"{detail} those that may", field="Origin", value=origin[:200])

    async def _pay(self, scope: Scope, caller: Identity) -> None:
        rate = self._policy.rate_limit if caller.rate_limit is None else caller.rate_limit
        if not rate:
            return
        burst = caller.rate_burst or max(self._policy.rate_burst, math.ceil(rate))
        limiter: RateLimiter = scope["app"].state.services.limiter
        wait = await limiter.wait_for(caller.name, rate, burst)
        if wait:
            detail = f"{caller.name} may make {rate:g} requests a second, {burst} at once"
            raise TooManyRequests(detail, limit=rate, retry_after=max(1, math.ceil(wait)))


def _address(text: str) -> SplitResult | None:
    try:
        return urlsplit(text)
    except ValueError:
        return None


def _under(path: str, roots: tuple[str, ...]) -> bool:
    return any(path == root or path.startswith(f"{root}/") for root in roots)
