"""PhotoPrism's requests to a vision service: labels of a photo.

Where it puts things, read in its source (internal/ai/vision, api_request.go, api_response.go and
labels.go): JSON with `images`, data URIs or URLs, or `url`, and fields that language models read,
which are passed over; the labels come back under `result.labels`. Knows nothing of captions, faces
or other tasks.
"""

from dataclasses import replace
from typing import Any, Final, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from app.api import bodies, openapi
from app.api.answers import rounded
from app.api.bodies import address_fields, json_body
from app.api.embeddings import MOST_IMAGES, too_many_images
from app.api.fields import IMAGE, ClassifyFields, build_query
from app.api.problems import SENT, documented
from app.api.services import CallerDep, ServicesDep, StagesDep, of_model, patience
from app.classify.query import Prediction
from app.errors import Invalid, Problem

IMAGES: Final = "images"
URL: Final = "url"

# fields of the decoder's and fetcher's problems, by their names here
NAMES: Final = {IMAGE: IMAGES, bodies.IMAGE_URL: IMAGES}


class VisionRequest(BaseModel):
    """PhotoPrism's request; fields for language models are ignored."""

    id: str = Field("", description="Returned in the answer.", examples=["b5a4…"])
    images: list[str] = Field(
        [],
        description="Photos as data URIs; of several the best counts.",
        examples=[["data:image/jpeg;base64,/9j/4AAQ…"]],
    )
    url: str = Field(
        "",
        description="Instead of `images`, if the operator allows URLs.",
        examples=["https://example.org/cat.jpg"],
    )


class VisionLabel(BaseModel):
    """One label of a photo."""

    name: str = Field(description="The label.", examples=["cat"])
    source: Literal["image"] = Field("image", description="`image`.", examples=["image"])
    confidence: float = Field(description="Its score, from 0 to 1.", examples=[0.93])
    categories: list[str] = Field([], description="The groups that it is in.", examples=[["pets"]])


class VisionModel(BaseModel):
    """The model used."""

    type: Literal["labels"] = Field("labels", description="`labels`.", examples=["labels"])
    name: str
    version: str = Field(description="Fingerprint of the weights.", examples=["9f2c41d0"])


class VisionResult(BaseModel):
    """The labels, best first; empty if nothing fits."""

    labels: list[VisionLabel]


class VisionAnswer(BaseModel):
    """The response of POST /api/v1/vision/labels."""

    id: str = Field(description="That of the request.", examples=["b5a4…"])
    code: int = Field(200, description="The HTTP status.", examples=[200])
    model: VisionModel
    result: VisionResult


# fields of /classify for which the answer has no room
WITHOUT: Final = ("boxes", "explain")

IN_URL: Final = {
    name: schema
    for name, schema in ClassifyFields.model_json_schema()["properties"].items()
    if name not in WITHOUT
}
BODY: Final = openapi.body(
    {bodies.JSON: openapi.titled("VisionRequest", VisionRequest.model_json_schema())},
    openapi.url_fields(IN_URL),
    {bodies.JSON: {"example": {"images": [f"data:image/png;base64,{openapi.TINY_PNG}"]}}},
)

router = APIRouter(prefix="/api/v1/vision", tags=["PhotoPrism's API"])


@router.post(
    "/labels",
    operation_id="photoprismLabels",
    summary="Labels of a photo, for PhotoPrism",
    description="Fields of `POST /classify` go into the URL: `labelset`, `threshold`, `top_k` "
    "and so on. Without labels the photo is tagged with nouns of everyday things.",
    openapi_extra=BODY,
    responses=documented(*SENT, 404, 409, 502),
)
async def labels(
    request: Request, services: ServicesDep, stages: StagesDep, caller: CallerDep
) -> VisionAnswer:
    fields = address_fields(request, bodies.LISTS)
    query = build_query(fields, services.input_limits)
    if query.look.boxes or query.explain or len(query.labelsets) > 1:
        field = "boxes" if query.look.boxes else "explain" if query.explain else "labelset"
        raise Invalid(f"{field}: the answer has one list of labels and no room for it", field=field)
    body = await json_body(request)
    coded_images = _images(body)
    query = replace(query, namespace=caller.namespace, patience=await patience(request))
    fetcher = services.fetcher
    services = await of_model(request, services, query.model)
    best: dict[str, Prediction] = {}
    for coded in coded_images:
        try:
            image = await bodies.image_file(request, coded, fetcher)
            classification = await services.classifier.classify(image, query, stages)
        except Problem as problem:
            raise problem.renamed(NAMES) from None
        for prediction in classification.parts[0].results[0].predictions:
            known = best.setdefault(prediction.label, prediction)
            if prediction.score > known.score:
                best[prediction.label] = prediction
    ranked = sorted(best.values(), key=lambda prediction: -prediction.score)[: query.top_k]
    info = services.encoder.info
    name = body.get("id")
    return VisionAnswer(
        id=name if isinstance(name, str) else "",
        model=VisionModel(name=info.name, version=info.fingerprint),
        result=VisionResult(
            labels=[
                VisionLabel(
                    name=prediction.label,
                    confidence=rounded(prediction.score),
                    categories=list(prediction.path),
                )
                for prediction in ranked
            ]
        ),
    )


def _images(body: dict[str, Any]) -> list[str]:
    """The photos in base64, or their URLs. Raises Invalid, TooLarge."""
    images = body.get(IMAGES) or ([body[URL]] if body.get(URL) else [])
    if not isinstance(images, list) or not images:
        raise Invalid("no image was sent: images is a list of data URIs", field=IMAGES)
    if len(images) > MOST_IMAGES:
        raise too_many_images(len(images), IMAGES)
    for coded in images:
        if not isinstance(coded, str) or not coded:
            raise Invalid("images must be a list of strings, data URIs", field=IMAGES)
    return images
