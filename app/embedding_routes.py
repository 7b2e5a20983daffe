"""The routes of embeddings: parse, one call, return rows."""

from typing import Any, Final

from fastapi import APIRouter, Request, Response

from app import embedding_inputs, embeddings
from app.bodies import offload
from app.deps import ServicesDep, StagesDep
from app.embedding_inputs import TEXTS
from app.embedding_schemas import (
    EmbeddedImageAnswer,
    Encoding,
    Floats,
    ImageEmbeddingsAnswer,
    ImagesBody,
    ImagesFields,
    TextEmbeddingsAnswer,
    TextsFields,
    rows_as_json,
    with_rows,
)
from app.errors import Problem
from app.problems import documented
from app.renaming import renamed
from models import EncoderInfo

router = APIRouter(prefix="/embeddings", tags=["embeddings"])

# problems that either route may answer
ALWAYS: Final = (400, 401, 403, 408, 413, 422, 429, 503, 504)

# the field that the ensemble complains of, as it is called here
NAMES: Final = {"labels": TEXTS}

TEXTS_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": TextsFields.model_json_schema()}},
    }
}
FORM: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "image": {"type": "array", "items": {"type": "string", "format": "binary"}},
        **ImagesFields.model_json_schema()["properties"],
    },
    "required": ["image"],
}
IMAGES_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": FORM},
            "application/json": {"schema": ImagesBody.model_json_schema()},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post(
    "/text",
    summary="The vectors of texts",
    description="Each text as it is; with `templates`, as a label is embedded.",
    openapi_extra=TEXTS_BODY,
    response_model=TextEmbeddingsAnswer,
    responses=documented(404, *ALWAYS),
)
async def text(request: Request, services: ServicesDep, stages: StagesDep) -> Response:
    asked = await embedding_inputs.read_texts(request, services.input_limits)
    name, templates = None, embeddings.BARE
    if asked.templates is not None:
        name, templates = services.templates.resolve(asked.templates)
    try:
        found = await embeddings.of_texts(services.classifier, asked.texts, stages, templates)
    except Problem as problem:
        raise renamed(problem, NAMES) from None
    head = {**_model(services.encoder.info), "templates": name, "cached": found.cached}
    return await _answer(head, found.rows, asked.encoding)


@router.post(
    "/image",
    summary="The vectors of images",
    description="One image or several: form fields `image`, a JSON list of base64, or a raw body.",
    openapi_extra=IMAGES_BODY,
    response_model=ImageEmbeddingsAnswer,
    responses=documented(415, *ALWAYS),
)
async def image(request: Request, services: ServicesDep, stages: StagesDep) -> Response:
    asked = await embedding_inputs.read_images(request)
    found = await embeddings.of_images(services.classifier, asked.files, stages)
    images = [
        EmbeddedImageAnswer(
            width=seen.width, height=seen.height, sha256=seen.sha256, cached=seen.cached
        )
        for seen, _ in found
    ]
    cached = sum(seen.cached for seen, _ in found)
    head = {**_model(services.encoder.info), "images": images, "cached": cached}
    return await _answer(head, embeddings.rows_of(found), asked.encoding)


def _model(info: EncoderInfo) -> dict[str, Any]:
    return {
        "model": info.name,
        "fingerprint": info.fingerprint,
        "width": info.embedding_width,
    }


async def _answer(head: dict[str, Any], rows: Floats, encoding: Encoding) -> Response:
    items = await offload(rows.nbytes, rows_as_json, rows, encoding)
    return Response(with_rows(head, "embeddings", items), media_type="application/json")
