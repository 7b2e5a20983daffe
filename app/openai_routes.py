"""What OpenAI's clients ask of an embedding server: parse, one call, return a schema."""

from typing import Any, Final

from fastapi import APIRouter, Request, Response

from app import embeddings, openai_inputs
from app.bodies import offload
from app.deps import ServicesDep, StagesDep
from app.embedding_schemas import (
    OpenAiAnswer,
    OpenAiBody,
    OpenAiFields,
    OpenAiModel,
    OpenAiModels,
    OpenAiUsage,
    rows_as_json,
    with_rows,
)
from app.errors import Invalid, NotFound, Problem
from app.labels import excerpt, shown
from app.openai_items import INPUT
from app.problems import documented
from app.renaming import renamed
from models import EncoderInfo

router = APIRouter(prefix="/v1", tags=["OpenAI's API"])

# the fields that ensemble and decoder complain of, as they are called here
NAMES: Final = {"labels": INPUT, "image": INPUT}

BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": OpenAiBody.model_json_schema()}},
    }
}


@router.post(
    "/embeddings",
    summary="The vectors of texts and images, for OpenAI's clients",
    openapi_extra=BODY,
    response_model=OpenAiAnswer,
    responses=documented(400, 401, 403, 404, 408, 413, 415, 422, 429, 502, 503, 504),
)
async def create(request: Request, services: ServicesDep, stages: StagesDep) -> Response:
    asked = await openai_inputs.read_items(request, services.input_limits, services.fetcher)
    _check(asked.fields, services.encoder.info)
    try:
        rows = await embeddings.of_items(services.classifier, asked.items, stages)
    except Problem as problem:
        raise renamed(problem, NAMES) from None
    # tokens are not counted: a text that is known is not tokenized at all
    usage = OpenAiUsage(prompt_tokens=len(rows), total_tokens=len(rows))
    head = {"object": "list", "model": services.encoder.info.name, "usage": usage}
    vectors = await offload(rows.nbytes, rows_as_json, rows, asked.fields.encoding_format)
    items = [
        b'{"object":"embedding","index":%d,"embedding":%b}' % (index, vector)
        for index, vector in enumerate(vectors)
    ]
    return Response(with_rows(head, "data", items), media_type="application/json")


@router.get("/models", summary="The loaded model", responses=documented(401, 403, 429))
async def models(services: ServicesDep) -> OpenAiModels:
    return OpenAiModels(data=[OpenAiModel(id=services.encoder.info.name)])


@router.get(
    "/models/{name:path}",
    summary="The loaded model by its name",
    responses=documented(401, 403, 404, 429),
)
async def model(name: str, services: ServicesDep) -> OpenAiModel:
    _check(OpenAiFields(model=name), services.encoder.info)
    return OpenAiModel(id=name)


def _check(fields: OpenAiFields, info: EncoderInfo) -> None:
    """Vectors of two models look alike and cannot be compared, so no other name is taken."""
    if fields.model not in (None, info.name):
        detail = f"the model {shown(fields.model)} is not loaded; this server has {info.name}"
        raise NotFound(detail, field="model", limit=info.name, value=excerpt(fields.model))
    width = info.embedding_width
    if fields.dimensions not in (None, width):
        detail = f"{info.name} has {width} dimensions and was not trained for fewer"
        raise Invalid(detail, field="dimensions", limit=width, value=fields.dimensions)
