"""The routes of label sets: parse, one call, return a schema."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from app.api import labelset_body, openapi
from app.api.answers import TEXT
from app.api.bodies import FORM, JSON
from app.api.calibration import CalibrationSummary
from app.api.calibration import summary as calibration_summary
from app.api.examples import BlendAnswer, blend_answer
from app.api.labelset_body import LabelSetBody
from app.api.problems import KEYED, SENT, documented
from app.api.services import (
    ONLY_DECLARED,
    CallerDep,
    IgnoredModel,
    LabelsetName,
    ModelServicesDep,
    NameDep,
    PatienceDep,
    Services,
    ServicesDep,
    Wait,
    etag,
    next_link,
    read_etags,
    read_match,
    tagged,
)
from app.classify.templates import TemplateChoice
from app.labelsets.builds import Status
from app.labelsets.definition import (
    Combine,
    Stored,
    in_namespace,
    namespace_bounds,
    without_namespace,
)

Standing = Literal["ready", "building", "failed", "unbuilt"]


class LabelSetSummary(BaseModel):
    """A label set without its labels."""

    name: str
    version: int
    label_count: int
    templates: str = Field(description="Name of the template set; `custom` for own templates.")
    description: str
    model: str
    status: str = Field(description="`ready`, `building` or `failed`.")
    progress: float = Field(description="Share of the labels whose vectors are ready, 0 to 1.")
    error: str | None = Field(None, description="Why it failed.")


class LabelSetAnswer(LabelSetSummary):
    """A label set with everything its owner wrote."""

    labels: list[str]
    synonyms: dict[str, list[str]] = Field(description="Texts of the labels that have their own.")
    combine: dict[str, Combine] = Field({}, description="Labels for which the best text decides.")
    groups: dict[str, list[str]] = Field({}, description="The groups that labels are in.")
    prompts: dict[str, list[str]]
    prompts_with: Literal["templates"] | None = None
    nots: list[str] = Field(
        [], serialization_alias="not", description="Words that rule the labels out."
    )
    truncate: bool = Field(False, description="Texts that are too long for the model are cut.")
    left_out: list[str] = Field(
        [], description="Labels that are too long for the model; the others answer without them."
    )
    warnings: list[str] = Field(
        [],
        description="What of the label set the model does not read, once it is built. When it is "
        "sent, also the labels that were written in two ways and count once.",
    )
    own_templates: list[str] | None
    asked_templates: list[str] | dict[str, int] | str | None = Field(
        description="The templates chosen; null: the model's default."
    )
    serving_version: int | None = Field(
        description="The version that answers while this one is being built."
    )
    calibration: CalibrationSummary | None = None
    calibrated_models: list[str] = Field(
        [], description="Models it was calibrated for; each has its own calibration."
    )
    examples: dict[str, int] = Field(
        {}, description="Number of examples of each label that has any."
    )
    blend: BlendAnswer | None = Field(
        None, description="How the examples are used; null without examples and while building."
    )
    models: dict[str, Standing] = Field(
        {},
        description="State for each of the server's models, if there are several; "
        "`unbuilt` is built at the first request that names the model.",
    )


class LabelSetsAnswer(BaseModel):
    """A page of label sets, by name."""

    labelsets: list[LabelSetSummary]
    next: str | None = Field(description="Pass this as `after` to get the next page.")


def answer(
    services: Services, stored: Stored, status: Status, warnings: Sequence[str] = ()
) -> LabelSetAnswer:
    """The whole set, with the model's effective calibration; `warnings` come first."""
    definition, read = stored.definition, services.labelsets.read(stored)
    before = None if stored.previous is None else stored.previous.version
    return LabelSetAnswer(
        **_common(services, stored, status),
        labels=list(definition.labels),
        synonyms={e.label: list(e.texts) for e in definition.entries if e.texts != (e.label,)},
        prompts={e.label: list(e.prompts) for e in definition.entries if e.prompts},
        combine={e.label: e.combine for e in definition.entries if e.combine != "mean"},
        groups={e.label: list(e.path) for e in definition.entries if e.path},
        prompts_with="templates" if definition.joined else None,
        nots=list(definition.nots),
        truncate=definition.truncate,
        left_out=list(read.left_out),
        warnings=[*warnings, *read.unread],
        own_templates=(
            list(dict.fromkeys(definition.templates))
            if isinstance(definition.templates, tuple)
            else None
        ),
        asked_templates=_templates_json(definition.templates),
        serving_version=stored.version if status.state == "ready" else before,
        calibration=calibration_summary(read, services.labelsets.validity),
        calibrated_models=[each.model for each in definition.calibrations],
        examples=definition.counts(),
        blend=blend_answer(services.few_shot.blended(read)),
        models=_standings(services, stored),
    )


def _templates_json(templates: TemplateChoice) -> list[str] | dict[str, int] | str | None:
    """Templates as their owner wrote them: with their weights, where they have some."""
    if not isinstance(templates, tuple):
        return templates
    times = Counter(templates)
    return dict(times) if max(times.values()) > 1 else list(templates)


def _common(services: Services, stored: Stored, status: Status) -> dict[str, Any]:
    return {
        "name": without_namespace(stored.name),
        "version": stored.version,
        "label_count": len(stored.definition.entries),
        "templates": services.templates.name_of(stored.definition.templates),
        "description": stored.definition.description,
        "model": services.encoder.info.name,
        "status": status.state,
        "progress": round(status.progress, 4),
        "error": status.error,
    }


router = APIRouter(prefix="/labelsets", tags=["Label sets"])

# problems that any of these routes without a body may answer
ALWAYS: Final = (*KEYED, 404, 503)

# in a form labels are a text, and what is an object is JSON
FORM_FIELDS: Final = openapi.form_properties(LabelSetBody.model_json_schema()["properties"]) | {
    "labels": {
        "type": "array",
        "items": {"type": "string"},
        "description": "Repeated; or once, comma-separated, one a line, or JSON.",
        "examples": [["cat", "dog"]],
    },
    "templates": {
        "type": "array",
        "items": {"type": "string"},
        "description": "A template set's name or own templates; default: the model's.",
        "examples": [["a photo of a {}."]],
    },
    "combine": {
        "type": "string",
        "description": "For labels with several texts: `mean` or `best`; or JSON, by label.",
        "examples": ["best"],
    },
    "prompts": {
        "type": "string",
        "description": "Whole prompts for labels, as a JSON object.",
        "examples": ['{"cat": ["a cat asleep"]}'],
    },
    "prompts_with": {
        "type": "string",
        "enum": ["templates"],
        "description": "Read the prompts of labels beside the templates.",
    },
}
PETS: Final = {"pets": {"summary": "One label a line", "value": "cat\ndog\n"}}


def _upload(*without: str) -> dict[str, Any]:
    """A body, and the fields that text has in the URL."""
    in_url = {name: schema for name, schema in FORM_FIELDS.items() if name not in without}
    return openapi.body(
        {
            JSON: openapi.titled("LabelSetRequest", LabelSetBody.model_json_schema()),
            FORM: openapi.titled(
                "LabelSetForm",
                {"description": "A label set as fields of a form.", "properties": FORM_FIELDS},
            ),
            TEXT: {"type": "string", "description": "One label a line."},
        },
        [openapi.IF_MATCH, openapi.IF_ABSENT, *openapi.url_fields(in_url, "For text: ")],
        {TEXT: {"examples": PETS}},
    )


@router.post(
    "",
    operation_id="createLabelset",
    status_code=201,
    summary="Register a label set",
    openapi_extra=_upload("labels"),
    response_model=LabelSetAnswer,
    responses={202: {"model": LabelSetAnswer}, **documented(*SENT, 404, 409, 412)},
)
async def create(
    request: Request,
    services: ModelServicesDep,
    caller: CallerDep,
    patience: PatienceDep,
    wait: Wait = False,
) -> Response:
    match = read_match(request)
    upload = await labelset_body.read_labelset(request, services.upload_limits)
    stored = await services.labelsets.create(
        in_namespace(caller.namespace, upload.name), upload.definition, match, caller.max_labelsets
    )
    within = patience if wait else None
    return await _answer(request, services, stored, 201, within, warnings=upload.warnings)


@router.get(
    "",
    operation_id="listLabelsets",
    dependencies=ONLY_DECLARED,
    summary="List label sets by name",
    responses=documented(*ALWAYS),
)
async def page(
    request: Request,
    services: ModelServicesDep,
    caller: CallerDep,
    response: Response,
    after: Annotated[str, Query(description="Names greater than this.", max_length=64)] = "",
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> LabelSetsAnswer:
    first, last = namespace_bounds(caller.namespace)
    start = in_namespace(caller.namespace, after) if after else first
    stored_sets = await services.labelsets.page(start, last, limit + 1)
    more = without_namespace(stored_sets[limit - 1].name) if len(stored_sets) > limit else None
    if more is not None:
        response.headers["Link"] = next_link(request, "/labelsets", more, limit)
    summaries = [
        LabelSetSummary(**_common(services, stored, services.labelsets.status(stored)))
        for stored in stored_sets[:limit]
    ]
    return LabelSetsAnswer(labelsets=summaries, next=more)


@router.get(
    "/{name}",
    operation_id="getLabelset",
    dependencies=ONLY_DECLARED,
    summary="One label set",
    openapi_extra={"parameters": [openapi.IF_CHANGED]},
    response_model=LabelSetAnswer,
    responses={
        304: {"description": "Ready, and at the version of If-None-Match"},
        **documented(*ALWAYS, 409),
    },
)
async def get(name: NameDep, request: Request, services: ModelServicesDep) -> Response:
    stored = await services.labelsets.get(name)
    ready = services.labelsets.status(stored).state == "ready"
    tags = request.headers.get("if-none-match", "")
    same = tags.strip() == "*" or stored.version in read_etags(tags, weak=True)
    if ready and same:
        return Response(status_code=304, headers={"ETag": etag(stored)})
    return await _answer(request, services, stored, 200, building=200)


@router.put(
    "/{name}",
    operation_id="putLabelset",
    summary="Create or replace a label set",
    openapi_extra=_upload("labels", "name"),
    response_model=LabelSetAnswer,
    responses={
        201: {"model": LabelSetAnswer},
        202: {"model": LabelSetAnswer},
        **documented(*SENT, 404, 409, 412),
    },
)
async def put(
    name: LabelsetName,
    request: Request,
    services: ModelServicesDep,
    caller: CallerDep,
    patience: PatienceDep,
    wait: Wait = False,
) -> Response:
    match = read_match(request)
    upload = await labelset_body.read_labelset(request, services.upload_limits, name)
    stored, created = await services.labelsets.put(
        in_namespace(caller.namespace, name), upload.definition, match, caller.max_labelsets
    )
    status, within = 201 if created else 200, patience if wait else None
    return await _answer(request, services, stored, status, within, warnings=upload.warnings)


@router.delete(
    "/{name}",
    operation_id="deleteLabelset",
    dependencies=ONLY_DECLARED,
    status_code=204,
    summary="Delete a label set",
    openapi_extra={"parameters": [openapi.IF_MATCH]},
    responses=documented(*ALWAYS, 412),
)
async def delete(
    name: NameDep, request: Request, services: ServicesDep, _model: IgnoredModel = None
) -> Response:
    await services.labelsets.delete(name, read_match(request))
    return Response(status_code=204)


async def _answer(
    request: Request,
    services: Services,
    stored: Stored,
    status: int,
    patience: float | None = None,
    building: int = 202,
    warnings: Sequence[str] = (),
) -> Response:
    """The set with its ETag, after waiting up to `patience` seconds for its build.

    `building` is the status while it is not ready; `warnings` come before those of the build.
    """
    if patience is not None:
        await services.labelsets.wait(stored, patience)
    state = services.labelsets.status(stored)
    content = answer(services, stored, state, warnings)
    location = f"{request.scope.get('root_path', '')}/labelsets/{content.name}"
    return tagged(
        content.model_dump_json(by_alias=True),
        stored,
        status if state.state == "ready" else building,
        {"Location": location},
    )


def _standings(services: Services, stored: Stored) -> dict[str, Standing]:
    """The state of a set for each model; empty if there is only one model."""
    standings: dict[str, Standing] = {}
    for model in services.models.states():
        begun = model.parts is not None and model.parts.labelsets.begun(stored)
        standings[model.name] = (
            model.parts.labelsets.status(stored).state if begun and model.parts else "unbuilt"
        )
    return standings if len(standings) > 1 else {}
