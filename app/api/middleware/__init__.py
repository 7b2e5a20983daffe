"""What every request passes before its route: bookkeeping, keys, rates, bounds. Knows no route.

The table of routes is here: what a request may cost and who may send it depends on the route that
the router itself matches, and on nothing else.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from app.api.middleware.keys import Scope as KeyScope


class Body(Enum):
    """The kind of a route's body, which determines its limit."""

    NONE = "none"
    IMAGE = "image"
    LABELSET = "labelset"
    UPLOAD = "upload"  # many images, read bit by bit, however large


@dataclass(frozen=True, slots=True)
class Rule:
    """The rules for the requests of one route.

    `needs`: a key with any of these scopes; None: no key. `queued`: it takes a place in the queue
    of images. `probe`: requested every few seconds, by machines. `sends`: the field with nearly all
    that its body holds.
    """

    needs: tuple[KeyScope, ...] | None
    body: Body = Body.NONE
    queued: bool = False
    probe: bool = False
    sends: str = "image"

    @property
    def streams(self) -> bool:
        """Whether the body is streamed, with a minimum rate instead of a deadline."""
        return self.body is Body.UPLOAD

    @property
    def addressed_anyhow(self) -> bool:
        """Whether it does not matter for which host: probes name the address of a pod."""
        return self.probe and self.needs is None


CLASSIFY: Final[tuple[KeyScope, ...]] = ("classify",)
WRITE: Final[tuple[KeyScope, ...]] = ("labelsets:write",)
READ: Final[tuple[KeyScope, ...]] = ("classify", "labelsets:write")
ADMIN: Final[tuple[KeyScope, ...]] = ("admin",)

METRICS: Final = "/metrics"

ROUTES: Final[Mapping[str, Rule]] = {
    "GET /": Rule(None),
    "GET /page/{name:path}": Rule(None),
    "GET /openapi.json": Rule(None),
    "GET /healthz": Rule(None, probe=True),
    "GET /readyz": Rule(None, probe=True),
    "GET /ping": Rule(None, probe=True),
    "GET /metrics": Rule(ADMIN, probe=True),  # or open, as the settings say
    "GET /models": Rule(READ),
    "GET /templates": Rule(READ),
    "GET /vocabularies": Rule(READ),
    "POST /classify": Rule(CLASSIFY, Body.IMAGE, queued=True),
    "POST /classify/batch": Rule(CLASSIFY, Body.UPLOAD, queued=True),
    "POST /embeddings/text": Rule(CLASSIFY, Body.IMAGE, queued=True, sends="texts"),
    "POST /embeddings/image": Rule(CLASSIFY, Body.IMAGE, queued=True),
    "POST /hf/zero-shot-image-classification": Rule(
        CLASSIFY, Body.IMAGE, queued=True, sends="inputs"
    ),
    "POST /predict": Rule(CLASSIFY, Body.IMAGE, queued=True),
    "POST /api/v1/vision/labels": Rule(CLASSIFY, Body.IMAGE, queued=True, sends="images"),
    "POST /v1/embeddings": Rule(CLASSIFY, Body.IMAGE, queued=True, sends="input"),
    "GET /v1/models": Rule(READ),
    "GET /v1/models/{name:path}": Rule(READ),
    "GET /labelsets": Rule(READ),
    "POST /labelsets": Rule(WRITE, Body.LABELSET),
    "GET /labelsets/{name}": Rule(READ),
    "PUT /labelsets/{name}": Rule(WRITE, Body.LABELSET),
    "DELETE /labelsets/{name}": Rule(WRITE),
    "POST /labelsets/{name}/calibrate": Rule(WRITE, Body.UPLOAD),
    "GET /labelsets/{name}/calibration": Rule(READ),
    "PUT /labelsets/{name}/calibration": Rule(WRITE, Body.LABELSET),
    "DELETE /labelsets/{name}/calibration": Rule(WRITE),
    # pictures of somebody, which are for those alone who may also remove them
    "GET /labelsets/{name}/examples": Rule(WRITE),
    "POST /labelsets/{name}/examples": Rule(WRITE, Body.UPLOAD),
    "DELETE /labelsets/{name}/examples": Rule(WRITE),
    "GET /labelsets/{name}/examples/{id}": Rule(WRITE),
    "DELETE /labelsets/{name}/examples/{id}": Rule(WRITE),
}

# for an address where there is nothing, and a method that its route does not take: whoever has a
# key learns as much
NOWHERE: Final = Rule(("classify", "labelsets:write", "admin"))


SLASHES: Final = re.compile("/+")


@dataclass(frozen=True, slots=True)
class Matched:
    """The route of a request by its address as it is declared, or "none"; and its rule.

    `meant`: the address of a route that this one, of none, differs from by slashes or by OpenAI's
    /v1. `allowed`: the methods that the address takes, where this request's is none of them.
    """

    path: str
    rule: Rule
    meant: str | None = None
    allowed: tuple[str, ...] = ()


class RouteTable:
    """Which rule holds for a request: that of the route which the router will call."""

    def __init__(self) -> None:
        self._routes: list[tuple[Route, Mapping[str, Matched]]] = []

    def add(self, routes: Iterable[BaseRoute]) -> None:
        """Routes in the order in which the router tries them. Raises LookupError for one without a
        rule: nothing is served that nobody has decided on."""
        for route in routes:
            assert isinstance(route, Route)  # no mounts, no sockets: they have no one address
            rules = {}
            for method in route.methods or ():
                declared = "GET" if method == "HEAD" else method
                if (rule := ROUTES.get(f"{declared} {route.path}")) is None:
                    raise LookupError(f"{method} {route.path} has no rule. This is a bug.")
                rules[method] = Matched(route.path, rule)
            self._routes.append((route, rules))

    def of(self, scope: Scope) -> Matched:
        """The route that the router will call for an HTTP request, with its rule."""
        paths, methods = [], []
        for route, rules in self._routes:
            match, _ = route.matches(scope)
            if match is Match.FULL:
                return rules[scope["method"]]
            if match is Match.PARTIAL:  # each method of an address is a route of its own
                paths.append(route.path)
                methods += [method for method in rules if method not in methods]
        if not paths:
            return Matched("none", NOWHERE, self._meant(scope))
        if "GET" in methods and "HEAD" not in methods:
            methods.insert(methods.index("GET") + 1, "HEAD")
        return Matched(paths[0], NOWHERE, allowed=tuple(methods))

    def _meant(self, scope: Scope) -> str | None:
        """The address of the same without slashes too many, then with or without /v1."""
        root: str = scope.get("root_path", "")
        path = SLASHES.sub("/", scope["path"].removeprefix(root)).rstrip("/")
        for meant in (path, f"/v1{path}", path.removeprefix("/v1")):
            other = {**scope, "path": root + meant}
            matches = (route.matches(other)[0] for route, _ in self._routes)
            if meant and any(match is not Match.NONE for match in matches):
                return root + meant
        return None


def routed(scope: Scope) -> Scope:
    """The scope by which a request is routed: a HEAD is answered as GET, without its body."""
    return {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
