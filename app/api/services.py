"""What routes receive: one frozen value with everything that the lifespan built."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import Depends, Path, Query, Request, Response
from fastapi.dependencies.models import Dependant

from app.api.bodies import JSON, check_address
from app.api.fields import MODEL_DESCRIPTION, NAME_PATTERN, InputLimits, checked_name
from app.api.json_text import JsonLimits
from app.api.labelset_body import UploadLimits
from app.api.middleware import Body
from app.api.middleware.keys import Identity
from app.api.middleware.rate_limit import RateLimiter
from app.api.middleware.state import state_of
from app.api.model_pool import ModelPool
from app.api.uploads import UploadBatches
from app.classify.canary import Canary
from app.classify.classifier import Classifier
from app.classify.embedding import ImageEmbedder
from app.classify.templates import TemplateSets
from app.errors import Invalid, PreconditionFailed, excerpt
from app.images.fetch import Fetcher
from app.labelsets.definition import Stored, in_namespace
from app.labelsets.examples import FewShot
from app.labelsets.preconditions import Match
from app.labelsets.service import LabelSetService
from app.stores.guard import Guarded
from app.stores.lru import ByteLru
from app.stores.vectors import TwoLevels
from app.telemetry.spans import Stages
from prompts import Vocabulary

if TYPE_CHECKING:
    from models.info import AnyEncoder


# what all processes of the service count, in Prometheus' text format
Exposition = Callable[[], Awaitable[bytes]]

ETAG: Final = re.compile(r'(W/)?"(\d{1,18})"')


def read_match(request: Request) -> Match:
    """The preconditions of a change (RFC 9110, section 13.1).

    Raises: Invalid; PreconditionFailed for ETags that no version can have.
    """
    match, none_match = (request.headers.get(h) for h in ("if-match", "if-none-match"))
    if none_match is not None and none_match.strip() != "*":
        raise Invalid("If-None-Match of a change can only be *", field="If-None-Match")
    exists = match is not None and match.strip() == "*"
    versions = None if match is None or exists else read_etags(match)
    if match is not None and versions == frozenset():
        weak = read_etags(match, weak=True)
        why = "is weak (a proxy that compresses adds W/)" if weak else "is the ETag of no version"
        detail = f"If-Match {excerpt(match)} {why}; send the ETag as the server sent it"
        raise PreconditionFailed(detail, field="If-Match", value=excerpt(match))
    return Match(versions, exists, absent=none_match is not None)


def read_etags(header: str, *, weak: bool = False) -> frozenset[int]:
    """The versions that a header names; weak ones count for If-None-Match alone (RFC 9110)."""
    return frozenset(int(number) for mark, number in ETAG.findall(header) if weak or not mark)


def etag(stored: Stored) -> str:
    """The tag of a version of a label set."""
    return f'"{stored.version}"'


def tagged(
    text: str, stored: Stored, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """JSON about a label set, with the tag of its version."""
    return Response(
        text + "\n",
        status_code=status,
        media_type=JSON,
        headers={"ETag": etag(stored), **(headers or {})},
    )


def next_link(request: Request, path: str, after: str, limit: int) -> str:
    """The header Link to the next page of a list: the items that follow `after`."""
    query = request.url.include_query_params(after=after, limit=limit).query
    return f'<{request.scope.get("root_path", "")}{path}?{query}>; rel="next"'


# share of its time that a request waits for the first build of its label set
PATIENCE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of the running service, as one of its `models` sees them."""

    models: "ModelPool[Services]"
    encoder: "AnyEncoder"
    classifier: Classifier
    embedder: ImageEmbedder
    labelsets: LabelSetService
    few_shot: FewShot
    templates: TemplateSets
    vocabularies: Mapping[str, Vocabulary]
    vectors: TwoLevels
    images: ByteLru
    matrices: ByteLru
    store: Guarded
    store_kind: str
    input_limits: InputLimits
    json_limits: Mapping[Body, JsonLimits]
    upload_limits: UploadLimits
    upload_batches: UploadBatches
    fetcher: Fetcher | None
    limiter: RateLimiter
    canary: Canary
    metrics_on: bool
    exposition: Exposition
    explains: bool


# these are coroutines because the framework calls plain functions in a thread, at 0.2 ms each
async def services_of(request: Request) -> Services:
    """The services of the application that this request reached."""
    own: Services = request.app.state.services
    return own


async def stages_of(request: Request) -> Stages:
    """The stopwatch of this request; the middleware sends it as Server-Timing."""
    return state_of(request.scope).stages


async def caller_of(request: Request) -> Identity:
    """The caller of this request."""
    identity = state_of(request.scope).caller
    assert identity is not None  # the middleware let it in
    return identity


async def of_model(request: Request, own: Services, name: str | None) -> Services:
    """The services of the model that a request names, which stays loaded until its end.

    Raises: what the pool of models raises.
    """
    if name is None:
        return own
    state = state_of(request.scope)
    state.model = own.models.known(name)
    return state.closing.enter_context(await own.models.use(name, await patience(request)))


async def patience(request: Request) -> float:
    """Seconds that this request may wait for a build and still answer before its deadline."""
    left = state_of(request.scope).deadline - asyncio.get_running_loop().time()
    return max(0.0, PATIENCE * left)


ModelName = Annotated[str | None, Query(description=MODEL_DESCRIPTION, max_length=1_000)]

# where nothing depends on a model: commands send --model with each request to a server
IgnoredModel = Annotated[
    str | None, Query(alias="model", max_length=1_000, include_in_schema=False)
]


async def _model_services(request: Request, model: ModelName = None) -> Services:
    """The services of the model that the URL names."""
    return await of_model(request, await services_of(request), model or None)


# bodies of a DELETE that say nothing
EMPTY: Final = (b"", b"{}", b"[]", b"null", b'""')


async def _only_declared(request: Request) -> None:
    """Nothing if the route reads all that was sent; for routes without fields of a body.

    Raises Unparsable, Invalid.
    """
    dependant: Dependant = request.scope["route"].dependant
    declared = sorted(_declared(dependant))
    check_address(request, declared)
    # only a body that was announced: once it is read, the request ends when its client leaves
    length, chunked = (request.headers.get(h) for h in ("content-length", "transfer-encoding"))
    if request.method == "DELETE" and (chunked or length not in (None, "0")):
        body = await request.body()
        if b"".join(body.split()) not in EMPTY:
            detail = f"a DELETE takes no body, and {len(body)} bytes were sent; what it takes is "
            detail += f"given in the URL: {', '.join(declared)}"
            raise Invalid(detail, field="body", limit=0, value=len(body))


def _declared(dependant: Dependant) -> set[str]:
    """The names of a route's parameters in the URL, those of its dependencies among them."""
    own = {field.alias for field in dependant.query_params}
    return own.union(*map(_declared, dependant.dependencies))


# of a route whose fields are parameters in the URL: what it does not read is refused
ONLY_DECLARED: Final = [Depends(_only_declared)]

ModelServicesDep = Annotated[Services, Depends(_model_services)]
ServicesDep = Annotated[Services, Depends(services_of)]
StagesDep = Annotated[Stages, Depends(stages_of)]
CallerDep = Annotated[Identity, Depends(caller_of)]
PatienceDep = Annotated[float, Depends(patience)]


# checked by `checked_name`, whose problem says what a name is
LabelsetName = Annotated[str, Path(json_schema_extra={"pattern": f"^{NAME_PATTERN}$"})]


async def _stored_name(name: LabelsetName, caller: CallerDep) -> str:
    """The name in the path as the store keeps it."""
    return in_namespace(caller.namespace, checked_name(name))


NameDep = Annotated[str, Depends(_stored_name)]
Wait = Annotated[
    bool,
    Query(
        description="Respond when the build has ended, or just before the request would time out."
    ),
]
