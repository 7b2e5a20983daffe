"""The routes of examples: parse, one call, return a schema."""

from contextlib import ExitStack
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response

from app import queries, uploads
from app.definitions import Stored
from app.deps import CallerDep, PatienceDep, Services, ServicesDep
from app.errors import Problem
from app.example_changes import checked_label, no_example
from app.example_inputs import read_examples
from app.example_schemas import (
    ExampleAnswer,
    ExampleList,
    ExamplesAnswer,
    blend_answer,
    example_answer,
)
from app.namespaces import inside, outside
from app.problems import document, documented
from app.schemas import BatchLine
from app.sniffing import image_type

router = APIRouter(prefix="/labelsets/{name}/examples", tags=["label sets"])

ALWAYS: Final = (401, 403, 404, 422, 429, 503, 504)
TEXT: Final = {"type": "string"}
FILE: Final = {"type": "string", "format": "binary"}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "image": {"type": "array", "items": FILE},
                        "label": {
                            "type": "array",
                            "items": TEXT,
                            "description": "One for all images, or one for each.",
                        },
                    },
                    "required": ["image"],
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "image": TEXT | {"description": "Base64 or a data URI."},
                        "label": TEXT,
                        "images": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "properties": {"image": TEXT, "label": TEXT, "name": TEXT},
                                "required": ["image"],
                            },
                        },
                    },
                }
            },
            "image/*": {"schema": FILE},
            "application/zip": {"schema": FILE},
            "application/x-tar": {"schema": FILE},
        },
    }
}
CHANGED: dict[int | str, dict[str, Any]] = {202: {"model": ExamplesAnswer}}

Wait = Annotated[bool, Query(description="Answer when the build has ended, or in time to tell.")]
Label = Annotated[str | None, Query(description="Those of this label alone.", max_length=10_000)]


async def stored_name(name: str, caller: CallerDep) -> str:
    """The name of the address as the store keeps it."""
    return inside(caller.namespace, queries.checked_name(name))


NameDep = Annotated[str, Depends(stored_name)]


@router.post(
    "",
    summary="Add pictures to labels",
    openapi_extra=BODY,
    response_model=ExamplesAnswer,
    responses={**CHANGED, **documented(400, *ALWAYS, 408, 409, 412, 413, 415)},
)
async def add(
    name: NameDep,
    request: Request,
    services: ServicesDep,
    patience: PatienceDep,
    wait: Wait = False,
) -> Response:
    place = ExitStack()
    request.state.at_end = place.close  # however the request ends
    place.enter_context(services.upload_batches.one())
    match = uploads.read_match(request)
    current = await services.few_shot.current(name, match)
    claims, items = await read_examples(request, services.upload_batches)
    done = await services.few_shot.add(current, match, items, claims.of)
    errors = [
        BatchLine(index=one.index, name=one.name, error=document(one.found))
        for one in done.failed
        if isinstance(one.found, Problem)
    ]
    return await _answer(
        services,
        done.stored,
        patience if wait else None,
        added=done.added,
        unchanged=done.unchanged,
        failed=len(errors),
        errors=errors,
    )


@router.get("", summary="List examples", responses=documented(*ALWAYS))
async def page(
    name: NameDep,
    request: Request,
    response: Response,
    services: ServicesDep,
    label: Label = None,
    after: Annotated[str, Query(description="Those after this id.", max_length=64)] = "",
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> ExampleList:
    stored = await services.labelsets.get(name)
    wanted = None if label is None else checked_label(label, stored.definition.labels)
    found = [one for one in stored.definition.examples if wanted in (None, one.label)]
    if after:
        ids = [one.sha256 for one in found]
        if after not in ids:
            raise no_example(after)
        found = found[ids.index(after) + 1 :]
    more = found[limit - 1].sha256 if len(found) > limit else None
    response.headers["ETag"] = f'"{stored.version}"'
    if more is not None:
        url = request.url.include_query_params(after=more, limit=limit)
        path = request.scope.get("root_path", "") + f"/labelsets/{outside(name)}/examples"
        response.headers["Link"] = f'<{path}?{url.query}>; rel="next"'
    answers: list[ExampleAnswer] = [example_answer(one) for one in found[:limit]]
    return ExampleList(examples=answers, next=more)


@router.get(
    "/{id}",
    summary="The picture of an example",
    response_class=Response,
    responses={200: {"content": {"image/*": {"schema": FILE}}}, **documented(*ALWAYS)},
)
async def picture(name: NameDep, id: str, services: ServicesDep) -> Response:  # noqa: A002
    data = await services.few_shot.picture(name, id)
    headers = {"Content-Disposition": "attachment", "Cache-Control": "private, no-store"}
    return Response(data, media_type=image_type(data), headers=headers)


@router.delete(
    "/{id}",
    summary="Remove an example",
    response_model=ExamplesAnswer,
    responses={**CHANGED, **documented(*ALWAYS, 412)},
)
async def remove(
    name: NameDep,
    id: str,  # noqa: A002
    request: Request,
    services: ServicesDep,
    patience: PatienceDep,
    wait: Wait = False,
) -> Response:
    match = uploads.read_match(request)
    stored, count = await services.few_shot.remove(name, match, sha256=id)
    return await _answer(services, stored, patience if wait else None, removed=count)


@router.delete(
    "",
    summary="Remove the examples of a label, or all",
    response_model=ExamplesAnswer,
    responses={**CHANGED, **documented(*ALWAYS, 412)},
)
async def remove_all(
    name: NameDep,
    request: Request,
    services: ServicesDep,
    patience: PatienceDep,
    label: Label = None,
    wait: Wait = False,
) -> Response:
    match = uploads.read_match(request)
    stored, count = await services.few_shot.remove(name, match, label=label)
    return await _answer(services, stored, patience if wait else None, removed=count)


async def _answer(
    services: Services, stored: Stored, patience: float | None, **done: Any
) -> Response:
    """What the label set has become, after `patience` seconds of waiting for its build."""
    if patience is not None:
        await services.labelsets.wait(stored, patience)
    state = services.labelsets.status(stored).state
    content = ExamplesAnswer(
        name=outside(stored.name),
        version=stored.version,
        status=state,
        examples=stored.definition.counts(),
        blend=blend_answer(services.few_shot.blended(stored)),
        **done,
    )
    return Response(
        content.model_dump_json() + "\n",
        status_code=200 if state == "ready" else 202,
        media_type="application/json",
        headers={"ETag": f'"{stored.version}"'},
    )
