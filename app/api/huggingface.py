"""From what Hugging Face's clients send to an image and a query. Knows nothing of labels.

The task is zero-shot image classification. Where the clients put things, read in their sources:
huggingface_hub 0.28.1 to 2.4.0: `inputs` is base64, `parameters.candidate_labels` a list;
huggingface_hub 0.26.5: `inputs.image` is base64, `inputs.candidateLabels` a text with commas;
huggingface_hub 0.17.3 to 0.24.7: `image` is base64, `parameters.candidate_labels` has commas;
@huggingface/inference 2.8.1 to 4.13.30: `inputs.image`, `parameters.candidate_labels` a list.
`parameters.hypothesis_template` is there only if the caller gave one. A body that is not JSON is
the image itself, with the parameters in the URL.
"""

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, BeforeValidator, Field

from app import errors
from app.api import bodies, openapi
from app.api.answers import rounded
from app.api.bodies import address_fields, is_json, json_body, media_type, merge, single
from app.api.fields import (
    IMAGE,
    InputLimits,
    Labels,
    RequestFields,
    own_or_named,
    unknown_field,
)
from app.api.problems import SENT, documented
from app.api.services import ServicesDep, StagesDep, of_model
from app.classify import labels
from app.classify.query import Query
from app.errors import Invalid, Problem
from app.images.fetch import Fetcher
from app.telemetry import logs

LABELS: Final = "candidate_labels"
TEMPLATE: Final = "hypothesis_template"

# in `inputs`, as huggingface_hub 0.26 called them
OLD_LABELS: Final = "candidateLabels"

# the service's own fields, by their names here
NAMES: Final = {
    "labels": LABELS, "templates": TEMPLATE, IMAGE: "inputs", bodies.IMAGE_URL: "inputs",
}  # fmt: skip

# in a form, where people write what they know from /classify
FILES: Final = ("inputs", IMAGE)
FORM_NAMES: Final = {IMAGE: "inputs", "labels": LABELS}

# `options` is what old clients send to Hugging Face's own servers: nothing here answers to it
KNOWN: Final = ("inputs", IMAGE, "parameters", "options")


def _without_blanks(value: Any) -> Any:
    """As Hugging Face's pipelines split a text: a trailing comma makes no label."""
    if not isinstance(value, str) or value.lstrip().startswith("["):
        return value
    return ",".join(label for label in value.split(",") if label.strip())


class HfParameters(RequestFields):
    """The parameters of the request."""

    candidate_labels: Annotated[Labels, BeforeValidator(_without_blanks)] = Field(
        description="A list, or one text comma-separated.", examples=[["cat", "dog"]]
    )
    hypothesis_template: str | None = Field(
        None,
        description="One template with one `{}`; default: the service's own templates.",
        examples=["This is a photo of {}."],
    )
    truncate: bool = Field(
        False, description="Take the beginning of labels that are longer than the model reads."
    )
    model: str | None = Field(
        None,
        description="Model to use; default: the server's first. With a JSON body also in the URL.",
    )


async def read_hf(
    request: Request, limits: InputLimits, fetcher: Fetcher | None = None
) -> tuple[bytes, Query]:
    """The image file and the query; without a fetcher, URLs are refused.

    Raises:
        Unparsable, Invalid, TooLarge: what is wrong, with the field at fault.
        FetchFailed, UnsupportedImage: what stands at the image's URL.
    """
    kind = media_type(request.headers.get("content-type", ""))
    fields = address_fields(request, (LABELS,))
    if is_json(kind):
        coded, parameters = _taken_apart(await json_body(request))
        query = _query(merge(fields, parameters), limits)
        image = await _file(request, coded, fetcher)
    elif kind == bodies.FORM:
        form = await bodies.form_fields(request, FILES, limits)
        for alias, name in FORM_NAMES.items():
            _check_one(form, name, alias)
        own = {FORM_NAMES.get(k, k): single(k, v, (LABELS, "labels")) for k, v in form.items()}
        image = own.pop("inputs", b"")
        query = _query(merge(fields, own), limits)
        if isinstance(image, str):
            image = await _file(request, image, fetcher)
    else:
        query = _query(fields, limits)
        image = await bodies.raw_image(request)
    if not image:
        raise Invalid("no image was sent: inputs is empty", field="inputs")
    return image, query


def _check_known(fields: Collection[str], known: Sequence[str]) -> None:
    """Nothing if all are `known`. Raises Invalid."""
    for name in fields:
        if name not in known:
            raise unknown_field(name, ", ".join(known))


def _check_one(fields: Collection[str], name: str, alias: str) -> None:
    """Nothing unless a field is there under both of its names. Raises Invalid."""
    if name in fields and alias in fields:
        raise Invalid(f"{alias} is another name of {name}; send one of them", field=alias)


async def _file(request: Request, coded: str, fetcher: Fetcher | None) -> bytes:
    try:
        return await bodies.image_file(request, coded, fetcher)
    except Problem as problem:
        raise problem.renamed(NAMES) from None


def _taken_apart(body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The image in base64, and the parameters, from wherever this client puts them."""
    _check_known(body, KNOWN)
    parameters = body.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise Invalid("parameters is not an object", field="parameters")
    options = {name: value for name, value in parameters.items() if value is not None}
    images = [name for name in FILES if body.get(name) is not None]
    _check_one(images, "inputs", IMAGE)
    picture = body[images[0]] if images else None
    if isinstance(picture, dict):
        _check_known(picture, (IMAGE, OLD_LABELS))
        if picture.get(OLD_LABELS) is not None:
            _check_one((*options, OLD_LABELS), LABELS, OLD_LABELS)
            options[LABELS] = picture[OLD_LABELS]
        picture = picture.get(IMAGE)
    if not isinstance(picture, str):
        raise Invalid("inputs holds no image; send base64 or a data URI", field="inputs")
    return picture, options


def _query(parameters: dict[str, Any], limits: InputLimits) -> Query:
    checked = HfParameters.checked(parameters)
    merged, _ = labels.merged(checked.candidate_labels)
    cleaned = labels.clean(merged, limits.labels, LABELS)
    if len(cleaned) == 1:
        detail = f"one label alone, {errors.shown(cleaned[0])}, always scores 1; give two or more"
        raise Invalid(f"{LABELS}: {detail}", field=LABELS, limit=2, value=1)
    template = checked.hypothesis_template
    logs.note(labels=cleaned)
    return Query(
        labels=cleaned,
        templates=None if template is None else _template([template]),
        model=checked.model,
        truncate=checked.truncate,
        top_k=len(cleaned),
    )


def _template(templates: Sequence[str]) -> tuple[str, ...]:
    try:
        chosen = own_or_named(list(templates), 1)
    except Problem as problem:
        raise problem.renamed(NAMES) from None
    if isinstance(chosen, tuple):
        return chosen
    detail = f"{TEMPLATE} has no {{}} for the label to stand in"
    raise Invalid(detail, field=TEMPLATE, value=errors.excerpt(templates[0]))


router = APIRouter(prefix="/hf", tags=["Hugging Face's API"])

PARAMETERS: Final = HfParameters.model_json_schema()
INPUTS: Final = openapi.CODED | {"description": "The image file in base64, or its URL."}
RED: Final = {
    "inputs": openapi.TINY_PNG,
    "parameters": {"candidate_labels": ["red square", "cat"]},
}
BODY: Final = openapi.body(
    {
        bodies.JSON: openapi.titled(
            "HfRequest",
            {
                "properties": {"inputs": INPUTS, "parameters": PARAMETERS},
                "required": ["inputs", "parameters"],
            },
        ),
        "application/octet-stream": openapi.FILE,
    },
    openapi.url_fields(PARAMETERS["properties"], "For the raw body: "),
    {bodies.JSON: {"example": RED}},
)


class HfPrediction(BaseModel):
    """One label with its score."""

    label: str
    score: float


@router.post(
    "/zero-shot-image-classification",
    operation_id="hfZeroShotImageClassification",
    summary="Score labels against an image, for Hugging Face's clients",
    openapi_extra=BODY,
    responses=documented(*SENT, 404, 502),
)
async def zero_shot_image_classification(
    request: Request, services: ServicesDep, stages: StagesDep
) -> list[HfPrediction]:
    image, query = await read_hf(request, services.input_limits, services.fetcher)
    services = await of_model(request, services, query.model)
    try:
        classification = await services.classifier.classify(image, query, stages)
    except Problem as problem:
        raise problem.renamed(NAMES) from None
    return [
        HfPrediction(label=prediction.label, score=rounded(prediction.score))
        for prediction in classification.parts[0].results[0].predictions
    ]
