"""The routes of examples: parse, one call, return a schema."""

from collections.abc import Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from app.api import openapi
from app.api.batch import BatchLine, failed_lines
from app.api.bodies import FORM, JSON
from app.api.labelled_images import read_examples
from app.api.middleware.state import state_of
from app.api.problems import KEYED, SENT, documented
from app.api.services import (
    ONLY_DECLARED,
    CallerDep,
    IgnoredModel,
    ModelServicesDep,
    NameDep,
    PatienceDep,
    Services,
    ServicesDep,
    Wait,
    etag,
    next_link,
    read_match,
    tagged,
)
from app.images.formats import image_type
from app.labelsets.blending import Blended
from app.labelsets.definition import KEY, Example, Stored, without_namespace
from app.labelsets.examples import checked_label, no_example
from app.labelsets.prototypes import ExampleFigures

WHY: Final = {
    "one_label": "examples of a single label cannot tell it from the others; add examples of "
    "another label",
    "too_few": "at least two labels need two or more examples each",
    "no_gain": "the examples do not improve the answers (tested by leaving out one at a time)",
}


class FiguresAnswer(BaseModel):
    """Leave-one-out figures of the examples: means over their labels."""

    accuracy: float = Field(description="Share classified correctly.")
    log_loss: float


class BlendAnswer(BaseModel):
    """How much the examples count in the label set's vectors."""

    weight: float = Field(description="0: text alone; 1: pictures alone.")
    reason: str | None = Field(description="Why the weight is 0.")
    tried: int = Field(description="Number of examples left out in turn to choose the weight.")
    text: FiguresAnswer | None = Field(description="With the text alone.")
    blend: FiguresAnswer | None = Field(description="With the weight.")
    lost: int = Field(description="Examples whose picture the store has lost: send them again.")


class ExamplesAnswer(BaseModel):
    """The result of a change of examples."""

    name: str
    version: int
    status: str = Field(description="`ready`, `building` or `failed`.")
    added: int = 0
    unchanged: int = Field(0, description="Sent, but already present.")
    removed: int = 0
    failed: int = 0
    errors: list[BatchLine] = Field([], description="Pictures that were rejected.")
    warnings: list[str] = Field([], description="What had to be guessed about the others.")
    examples: dict[str, int] = Field(description="Number of examples of each label that has any.")
    blend: BlendAnswer | None = Field(description="null without examples and while building.")


class ExampleAnswer(BaseModel):
    """One example."""

    id: str = Field(description="SHA-256 of the file.")
    label: str
    width: int
    height: int
    bytes: int
    added: datetime


class ExampleList(BaseModel):
    """A page of examples, in the order in which they were added."""

    examples: list[ExampleAnswer]
    next: str | None = Field(description="Pass this as `after` to get the next page.")


def blend_answer(blended: Blended | None) -> BlendAnswer | None:
    """How examples are used, for a person."""
    if blended is None:
        return None
    choice = blended.choice
    return BlendAnswer(
        weight=choice.weight,
        reason=None if choice.reason is None else WHY[choice.reason],
        tried=choice.tried,
        text=_figures(choice.text),
        blend=_figures(choice.blend),
        lost=blended.lost,
    )


def example_answer(example: Example) -> ExampleAnswer:
    """One example, without its picture."""
    return ExampleAnswer(
        id=example.sha256,
        label=example.label,
        width=example.width,
        height=example.height,
        bytes=example.size,
        added=datetime.fromtimestamp(example.added, UTC),
    )


def _figures(figures: ExampleFigures | None) -> FiguresAnswer | None:
    if figures is None:
        return None
    return FiguresAnswer(accuracy=round(figures.accuracy, 4), log_loss=round(figures.log_loss, 4))


router = APIRouter(prefix="/labelsets/{name}/examples", tags=["Examples and calibration"])

ALWAYS: Final = (*KEYED, 404, 409, 503)
LABEL: Final = {"type": "string", "description": "What the image shows.", "examples": ["cat"]}
LABELS: Final = {
    "type": "array",
    "items": {"type": "string"},
    "description": "One for all images, or one for each.",
    "examples": [["cat"]],
}
IMAGES: Final = {
    "type": "array",
    "description": "Several images instead of one.",
    "items": openapi.titled(
        "ExampleImage",
        {
            "properties": {
                "image": openapi.CODED,
                "label": LABEL,
                "name": {"type": "string", "description": "Returned with an error."},
            },
            "required": ["image"],
        },
    ),
}
BODY: Final = openapi.body(
    {
        FORM: openapi.titled(
            "ExamplesForm",
            {"properties": {"image": openapi.FILES, "label": LABELS}, "required": ["image"]},
        ),
        JSON: openapi.titled(
            "ExamplesRequest",
            {"properties": {"image": openapi.CODED, "label": LABEL, "images": IMAGES}},
        ),
        "image/*": openapi.FILE,
        "application/zip": openapi.ARCHIVE,
        "application/x-tar": openapi.ARCHIVE,
    },
    [openapi.IF_MATCH, *openapi.url_fields({"label": LABEL}, "For the raw body: ")],
)
CHANGED: dict[int | str, dict[str, Any]] = {202: {"model": ExamplesAnswer}}

ExampleId = Annotated[
    str,
    Path(
        description="The SHA-256 of its file.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    ),
]
Label = Annotated[str | None, Query(description="Only examples of this label.", max_length=10_000)]


@router.post(
    "",
    operation_id="addExamples",
    summary="Add pictures to labels",
    openapi_extra=BODY,
    response_model=ExamplesAnswer,
    responses={**CHANGED, **documented(*SENT, 404, 409, 412)},
)
async def add(
    name: NameDep,
    request: Request,
    services: ModelServicesDep,
    caller: CallerDep,
    patience: PatienceDep,
    wait: Wait = False,
) -> Response:
    state_of(request.scope).closing.enter_context(services.upload_batches.one(caller))
    match = read_match(request)
    current = await services.few_shot.current(name, match)
    claims, items = await read_examples(request, services.upload_batches)
    added = await services.few_shot.add(current, match, items, claims.of)
    errors = failed_lines(added.failed)
    return await _answer(
        services,
        added.stored,
        patience if wait else None,
        added=added.added,
        unchanged=added.unchanged,
        failed=len(errors),
        errors=errors,
        warnings=added.warnings,
    )


@router.get(
    "",
    operation_id="listExamples",
    dependencies=ONLY_DECLARED,
    summary="List examples",
    responses=documented(*ALWAYS),
)
async def page(
    name: NameDep,
    request: Request,
    response: Response,
    services: ServicesDep,
    label: Label = None,
    after: Annotated[
        str, Query(description="`next` of the page before, or an example's id.", max_length=64)
    ] = "",
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    _model: IgnoredModel = None,
) -> ExampleList:
    stored = await services.labelsets.get(name)
    wanted_label = None if label is None else checked_label(label, stored.definition.labels)
    first = _cursor(stored.definition.examples, after)
    examples = sorted(
        (
            example
            for example in stored.definition.examples
            if example.key > first and wanted_label in (None, example.label)
        ),
        key=attrgetter("key"),
    )
    more = examples[limit - 1].key if len(examples) > limit else None
    response.headers["ETag"] = etag(stored)
    if more is not None:
        path = f"/labelsets/{without_namespace(name)}/examples"
        response.headers["Link"] = next_link(request, path, more, limit)
    return ExampleList(examples=[example_answer(each) for each in examples[:limit]], next=more)


def _cursor(examples: Sequence[Example], after: str) -> str:
    """The key behind which a page begins. Raises NotFound.

    A key says where to go on even if its example was deleted meanwhile; an id does not.
    """
    if KEY.fullmatch(after):
        return after
    if not after:
        return ""
    for example in examples:
        if example.sha256 == after:
            return example.key
    raise no_example(after).renamed({"id": "after"})


@router.get(
    "/{id}",
    operation_id="getExamplePicture",
    dependencies=ONLY_DECLARED,
    summary="Get the picture of an example",
    response_class=Response,
    responses={200: {"content": {"image/*": {"schema": openapi.FILE}}}, **documented(*ALWAYS)},
)
async def picture(
    name: NameDep,
    id: ExampleId,  # noqa: A002
    services: ServicesDep,
    _model: IgnoredModel = None,
) -> Response:
    data = await services.few_shot.picture(name, id)
    headers = {"Content-Disposition": "attachment", "Cache-Control": "private, no-store"}
    return Response(data, media_type=image_type(data), headers=headers)


@router.delete(
    "/{id}",
    operation_id="deleteExample",
    dependencies=ONLY_DECLARED,
    summary="Remove an example",
    openapi_extra={"parameters": [openapi.IF_MATCH]},
    response_model=ExamplesAnswer,
    responses={**CHANGED, **documented(*ALWAYS, 412)},
)
async def remove(
    name: NameDep,
    id: ExampleId,  # noqa: A002
    request: Request,
    services: ModelServicesDep,
    patience: PatienceDep,
    wait: Wait = False,
) -> Response:
    match = read_match(request)
    stored, count = await services.few_shot.remove(name, match, sha256=id)
    return await _answer(services, stored, patience if wait else None, removed=count)


@router.delete(
    "",
    operation_id="deleteExamples",
    dependencies=ONLY_DECLARED,
    summary="Remove the examples of a label, or all",
    openapi_extra={"parameters": [openapi.IF_MATCH]},
    response_model=ExamplesAnswer,
    responses={**CHANGED, **documented(*ALWAYS, 412)},
)
async def remove_all(
    name: NameDep,
    request: Request,
    services: ModelServicesDep,
    patience: PatienceDep,
    label: Label = None,
    wait: Wait = False,
) -> Response:
    match = read_match(request)
    stored, count = await services.few_shot.remove(name, match, label=label)
    return await _answer(services, stored, patience if wait else None, removed=count)


async def _answer(
    services: Services, stored: Stored, patience: float | None, **fields: Any
) -> Response:
    """The label set after waiting up to `patience` seconds for its build."""
    if patience is not None:
        await services.labelsets.wait(stored, patience)
    state = services.labelsets.status(stored).state
    content = ExamplesAnswer(
        name=without_namespace(stored.name),
        version=stored.version,
        status=state,
        examples=stored.definition.counts(),
        blend=blend_answer(services.few_shot.blended(services.labelsets.read(stored))),
        **fields,
    )
    return tagged(content.model_dump_json(), stored, 200 if state == "ready" else 202)
