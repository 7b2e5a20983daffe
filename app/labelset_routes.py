"""The routes of label sets: parse, one call, return a schema."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from app import labelset_schemas, queries, uploads
from app.definitions import Stored
from app.deps import CallerDep, PatienceDep, Services, ServicesDep
from app.identity import Identity
from app.labelset_schemas import LabelSetAnswer, LabelSetBody, LabelSetsAnswer
from app.namespaces import bounds, inside, outside
from app.problems import documented

router = APIRouter(prefix="/labelsets", tags=["label sets"])

# problems that any of these routes may answer
ALWAYS: Final = (401, 403, 422, 429, 503, 504)

Wait = Annotated[bool, Query(description="Answer when the build has ended, or in time to tell.")]
UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": LabelSetBody.model_json_schema()},
            "text/plain": {
                "schema": {"type": "string"},
                "examples": {"pets": {"summary": "One label a line", "value": "cat\ndog\n"}},
            },
        },
    }
}


@router.post(
    "",
    status_code=201,
    summary="Register a label set",
    openapi_extra=UPLOAD,
    response_model=LabelSetAnswer,
    responses={202: {"model": LabelSetAnswer}, **documented(400, *ALWAYS, 408, 409, 413)},
)
async def create(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    patience: PatienceDep,
    wait: Wait = False,
) -> Response:
    name, definition = await uploads.read_labelset(request, services.upload_limits)
    stored = await services.labelsets.create(
        inside(caller.namespace, name), definition, caller.max_labelsets
    )
    return await _answer(request, services, stored, 201, patience if wait else None)


@router.get("", summary="List label sets by name", responses=documented(*ALWAYS))
async def page(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    response: Response,
    after: Annotated[str, Query(description="Names greater than this.", max_length=64)] = "",
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> LabelSetsAnswer:
    first, last = bounds(caller.namespace)
    start = inside(caller.namespace, after) if after else first
    found = await services.labelsets.page(start, last, limit + 1)
    more = outside(found[limit - 1].name) if len(found) > limit else None
    if more is not None:
        root = request.scope.get("root_path", "")
        response.headers["Link"] = f'<{root}/labelsets?after={more}&limit={limit}>; rel="next"'
    model = services.encoder.info.name
    summaries = [
        labelset_schemas.summary(
            stored, services.labelsets.status(stored), model, services.templates_name(stored)
        )
        for stored in found[:limit]
    ]
    return LabelSetsAnswer(labelsets=summaries, next=more)


@router.get(
    "/{name}",
    summary="One label set",
    response_model=LabelSetAnswer,
    responses={
        304: {"description": "Ready, and at the version of If-None-Match"},
        **documented(404, *ALWAYS),
    },
)
async def get(name: str, request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    stored = await services.labelsets.get(_stored_name(caller, name))
    ready = services.labelsets.status(stored).state == "ready"
    wanted = request.headers.get("if-none-match", "")
    same = wanted.strip() == "*" or stored.version in uploads.read_etags(wanted, weak=True)
    if ready and same:
        return Response(status_code=304, headers={"ETag": _etag(stored)})
    return await _answer(request, services, stored, 200, building=200)


@router.put(
    "/{name}",
    summary="Create or replace a label set",
    openapi_extra=UPLOAD,
    response_model=LabelSetAnswer,
    responses={
        201: {"model": LabelSetAnswer},
        202: {"model": LabelSetAnswer},
        **documented(400, *ALWAYS, 408, 409, 412, 413),
    },
)
async def put(
    name: str,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    patience: PatienceDep,
    wait: Wait = False,
) -> Response:
    match = uploads.read_match(request)
    name, definition = await uploads.read_labelset(request, services.upload_limits, name)
    stored, created = await services.labelsets.put(
        inside(caller.namespace, name), definition, match, caller.max_labelsets
    )
    status = 201 if created else 200
    return await _answer(request, services, stored, status, patience if wait else None)


@router.delete(
    "/{name}",
    status_code=204,
    summary="Delete a label set",
    responses=documented(404, 412, *ALWAYS),
)
async def delete(name: str, request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    await services.labelsets.delete(_stored_name(caller, name), uploads.read_match(request))
    return Response(status_code=204)


async def _answer(
    request: Request,
    services: Services,
    stored: Stored,
    status: int,
    patience: float | None = None,
    building: int = 202,
) -> Response:
    """The set with its ETag, after `patience` seconds of waiting for its build.

    `building` is the status while it is not ready.
    """
    if patience is not None:
        await services.labelsets.wait(stored, patience)
    state = services.labelsets.status(stored)
    root = request.scope.get("root_path", "")
    content = labelset_schemas.answer(
        stored,
        state,
        services.encoder.info.name,
        services.templates_name(stored),
        services.classifier.calibrations.stale(stored),
        services.few_shot.blended(stored),
    )
    return Response(
        content.model_dump_json() + "\n",
        status_code=status if state.state == "ready" else building,
        media_type="application/json",
        headers={"ETag": _etag(stored), "Location": f"{root}/labelsets/{content.name}"},
    )


def _stored_name(caller: Identity, name: str) -> str:
    return inside(caller.namespace, queries.checked_name(name))


def _etag(stored: Stored) -> str:
    return f'"{stored.version}"'
