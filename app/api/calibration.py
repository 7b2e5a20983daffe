"""The routes of calibrations: parse, one call, return a schema."""

import json
import re
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from app.api import openapi
from app.api.batch import BatchLine, failed_lines
from app.api.bodies import FORM, JSON, json_body
from app.api.labelled_images import read_calibration
from app.api.middleware.state import state_of
from app.api.problems import KEYED, SENT, documented
from app.api.services import (
    ONLY_DECLARED,
    CallerDep,
    ModelName,
    ModelServicesDep,
    NameDep,
    PatienceDep,
    Services,
    ServicesDep,
    etag,
    of_model,
    read_match,
    tagged,
)
from app.errors import Invalid, NotFound, excerpt, shown
from app.labelsets.calibration.calibrator import Calibrator, LabelledVectors
from app.labelsets.calibration.validity import Validity
from app.labelsets.calibration.value import Calibration
from app.labelsets.definition import Definition, Stored, without_namespace


class CalibrationSummary(BaseModel):
    """The calibration in a label set's response."""

    status: str = Field(description="`used`, or `stale`: kept, but not used.")
    model: str = Field(description="Model it was fitted for.")
    detail: str | None = Field(description="Why it is stale.")
    temperature: float = Field(description="What the model's logits are divided by.")
    floor: float = Field(description="Minimum similarity for an answer with abstain.")
    margin: float = Field(description="Minimum lead of the best similarity over the second.")
    pictures: int = Field(description="Number of pictures of its labels it was fitted to.")
    others: int = Field(description="Number of pictures that show none of its labels.")
    coverage: float = Field(description="Share of the former that are answered.")
    risk: float = Field(description="Share of the answers that are wrong.")
    risk_at_most: float = Field(
        description="Upper bound of that share, with 95 % confidence or the confidence requested."
    )


class CalibratedAnswer(BaseModel):
    """The response of POST /labelsets/{name}/calibrate."""

    labelset: str
    version: int
    count: int = Field(description="Number of images received.")
    failed: int
    errors: list[BatchLine] = Field(description="Images that could not be used.")
    warnings: list[str] = Field(description="What had to be guessed about the others.")
    calibration: dict[str, Any] = Field(
        description="The whole calibration, as in GET and PUT /labelsets/{name}/calibration."
    )


def summary(stored: Stored, validity: Validity) -> CalibrationSummary | None:
    """A summary of a label set's calibration for a model; None if it has none."""
    calibration, stale = validity.chosen(stored.definition), validity.stale(stored)
    if calibration is None:
        return None
    return CalibrationSummary(
        status="used" if stale is None else "stale",
        model=calibration.model,
        detail=stale,
        temperature=calibration.temperature,
        floor=calibration.floor,
        margin=calibration.margin,
        pictures=calibration.pictures,
        others=calibration.others,
        coverage=calibration.held_out.coverage,
        risk=calibration.held_out.risk,
        risk_at_most=calibration.held_out.risk_at_most,
    )


router = APIRouter(prefix="/labelsets/{name}", tags=["Examples and calibration"])

ALWAYS: Final = (*KEYED, 404, 409, 503)
NUMBERS: Final = {
    "risk": {
        "type": "number",
        "default": 0.05,
        "examples": [0.05],
        "description": "Target share of wrong answers with abstain=true.",
    },
    "confidence": {
        "type": "number",
        "examples": [0.9],
        "description": "Guarantee the risk with this confidence instead of estimating it.",
    },
}
LABELS: Final = {
    "type": "array",
    "items": {"type": "string"},
    "examples": [["cat", "dog"]],
    "description": "What each image shows: a label, a JSON list of labels; empty: none of them.",
}
IMAGES: Final = {
    "type": "array",
    "description": "The labelled images.",
    "items": openapi.titled(
        "LabelledImage",
        {
            "properties": {
                "image": openapi.CODED,
                "label": {
                    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
                    "description": "A label, or several; empty: none of them.",
                    "examples": ["cat"],
                },
                "name": {"type": "string", "description": "Returned with an error."},
            },
            "required": ["image", "label"],
        },
    ),
}
FORM_FIELDS: Final = {"image": openapi.FILES, "label": LABELS} | NUMBERS
BODY: Final = openapi.body(
    {
        FORM: openapi.titled("CalibrationForm", {"properties": FORM_FIELDS, "required": ["image"]}),
        JSON: openapi.titled(
            "CalibrationRequest",
            {"properties": {"images": IMAGES} | NUMBERS, "required": ["images"]},
        ),
        "application/zip": openapi.ARCHIVE,
        "application/x-tar": openapi.ARCHIVE,
    },
    [openapi.IF_MATCH, *openapi.url_fields(NUMBERS, "For an archive: ")],
)
STORED: Final = openapi.body(
    {JSON: {"type": "object", "description": "A calibration, as returned by GET."}},
    [openapi.IF_MATCH],
)


def calibrator(services: Services) -> Calibrator:
    """The part that calibrates with a model."""
    return Calibrator(
        services.encoder.info, services.embedder, services.classifier.ensemble, services.labelsets
    )


@router.post(
    "/calibrate",
    operation_id="calibrateLabelset",
    summary="Fit temperature and thresholds to labelled images",
    openapi_extra=BODY,
    response_model=CalibratedAnswer,
    responses=documented(*SENT, 404, 409, 412),
)
async def calibrate(
    name: NameDep,
    request: Request,
    services: ModelServicesDep,
    caller: CallerDep,
    patience: PatienceDep,
) -> Response:
    state_of(request.scope).closing.enter_context(services.upload_batches.one(caller))
    match = read_match(request)
    fitting = calibrator(services)
    serving = await fitting.current(name, match, patience)
    definition = serving.stored.definition
    form, items = await read_calibration(request, definition.labels, services.upload_batches)
    pictures = await fitting.seen(items, form.claims.__getitem__, definition)
    fitted = await fitting.fitted(serving, pictures, form.aim)
    stored = await fitting.keep(name, fitted, match, fresh=True)
    return tagged(_answer(stored, fitted, pictures).model_dump_json(), stored)


@router.get(
    "/calibration",
    operation_id="getCalibration",
    dependencies=ONLY_DECLARED,
    summary="Get a calibration, as PUT takes it",
    responses=documented(*ALWAYS),
)
async def get(name: NameDep, services: ServicesDep, model: ModelName = None) -> Response:
    stored = await services.labelsets.get(name)
    calibration = _chosen(services, stored.definition, model)
    if calibration is None:
        others = ", ".join(each.model for each in stored.definition.calibrations)
        detail = f"the label set {without_namespace(name)} has no calibration"
        detail += f" for the model {shown(model or '')}, but for {others}" if others else ""
        raise NotFound(detail, value=excerpt(model or ""))
    return tagged(json.dumps(calibration.json(), ensure_ascii=False), stored)


@router.put(
    "/calibration",
    operation_id="putCalibration",
    dependencies=ONLY_DECLARED,
    status_code=204,
    summary="Store a calibration that was fitted elsewhere",
    openapi_extra=STORED,
    responses=documented(*SENT, 404, 409, 412),
)
async def put(
    name: NameDep, request: Request, services: ServicesDep, model: ModelName = None
) -> Response:
    content = await json_body(request)
    try:
        calibration = Calibration.from_json(content)
    except ValueError as error:
        detail = str(error)
        raise Invalid(
            f"the calibration cannot be read: {detail}",
            field=re.split(r"[ .:]", detail, maxsplit=1)[0],
        ) from None
    # by default for the model that it names, if that is served here
    named = calibration.model if calibration.model in services.models.names() else None
    of = await of_model(request, services, model or named)
    stored = await calibrator(of).keep(name, calibration, read_match(request))
    return Response(status_code=204, headers={"ETag": etag(stored)})


@router.delete(
    "/calibration",
    operation_id="deleteCalibration",
    dependencies=ONLY_DECLARED,
    status_code=204,
    summary="Delete a calibration",
    openapi_extra={"parameters": [openapi.IF_MATCH]},
    responses=documented(412, *ALWAYS),
)
async def delete(
    name: NameDep, request: Request, services: ServicesDep, model: ModelName = None
) -> Response:
    def forgotten(definition: Definition) -> Definition:
        return definition.uncalibrated(_chosen(services, definition, model))

    await services.labelsets.change(name, read_match(request), forgotten)
    return Response(status_code=204)


def _chosen(services: Services, definition: Definition, model: str | None) -> Calibration | None:
    """The calibration of a model, which need not be loaded; without a name, the effective one."""
    if not model:
        return services.labelsets.validity.chosen(definition)
    name = services.models.known(model) if model in services.models.names() else model
    return next((each for each in definition.calibrations if each.model == name), None)


def _answer(stored: Stored, fitted: Calibration, pictures: LabelledVectors) -> CalibratedAnswer:
    errors = failed_lines(pictures.failed)
    return CalibratedAnswer(
        labelset=without_namespace(stored.name),
        version=stored.version,
        count=len(pictures.shown) + len(errors),
        failed=len(errors),
        errors=errors,
        warnings=pictures.warnings,
        calibration=fitted.json(),
    )
