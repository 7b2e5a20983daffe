"""The routes of label sets: parse, one call, return a schema."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from app import labelset_schemas, queries, uploads
from app.definitions import Stored
from app.deps import Services, ServicesDep
from app.labelset_schemas import LabelSetAnswer, LabelSetBody, LabelSetsAnswer
from app.problems import documented

router = APIRouter(prefix="/labelsets", tags=["label sets"])

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
    responses={202: {"model": LabelSetAnswer}, **documented(400, 409, 413, 422, 503)},
)
async def create(request: Request, services: ServicesDep, wait: Wait = False) -> Response:
    name, definition = await uploads.read_labelset(request, services.upload_limits)
    stored = await services.labelsets.create(name, definition)
    return await _answer(request, services, stored, 201, wait)


@router.get("", summary="List label sets by name", responses=documented(422, 503))
async def page(
    request: Request,
    services: ServicesDep,
    response: Response,
    after: Annotated[str, Query(description="Names greater than this.", max_length=64)] = "",
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> LabelSetsAnswer:
    found = await services.labelsets.page(after, limit + 1)
    more = found[limit - 1].name if len(found) > limit else None
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
        **documented(404, 422, 503),
    },
)
async def get(name: str, request: Request, services: ServicesDep) -> Response:
    stored = await services.labelsets.get(queries.checked_name(name))
    ready = services.labelsets.status(stored).state == "ready"
    wanted = request.headers.get("if-none-match", "")
    same = wanted.strip() == "*" or stored.version in uploads.read_etags(wanted, weak=True)
    if ready and same:
        return Response(status_code=304, headers={"ETag": _etag(stored)})
    return await _answer(request, services, stored, 200, wait=False, building=200)


@router.put(
    "/{name}",
    summary="Create or replace a label set",
    openapi_extra=UPLOAD,
    response_model=LabelSetAnswer,
    responses={
        201: {"model": LabelSetAnswer},
        202: {"model": LabelSetAnswer},
        **documented(400, 409, 412, 413, 422, 503),
    },
)
async def put(name: str, request: Request, services: ServicesDep, wait: Wait = False) -> Response:
    match = uploads.read_match(request)
    name, definition = await uploads.read_labelset(request, services.upload_limits, name)
    stored, created = await services.labelsets.put(name, definition, match)
    return await _answer(request, services, stored, 201 if created else 200, wait)


@router.delete(
    "/{name}",
    status_code=204,
    summary="Delete a label set",
    responses=documented(404, 412, 422, 503),
)
async def delete(name: str, request: Request, services: ServicesDep) -> Response:
    await services.labelsets.delete(queries.checked_name(name), uploads.read_match(request))
    return Response(status_code=204)


async def _answer(
    request: Request,
    services: Services,
    stored: Stored,
    status: int,
    wait: bool,
    building: int = 202,
) -> Response:
    """The set with its ETag; `building` is the status while it is not ready."""
    if wait:
        await services.labelsets.wait(stored, services.patience)
    state = services.labelsets.status(stored)
    root = request.scope.get("root_path", "")
    content = labelset_schemas.answer(
        stored, state, services.encoder.info.name, services.templates_name(stored)
    )
    return Response(
        content.model_dump_json() + "\n",
        status_code=status if state.state == "ready" else building,
        media_type="application/json",
        headers={"ETag": _etag(stored), "Location": f"{root}/labelsets/{stored.name}"},
    )


def _etag(stored: Stored) -> str:
    return f'"{stored.version}"'
