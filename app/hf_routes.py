"""What Hugging Face's clients ask of an endpoint: parse, one call, return a schema."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from app.deps import ServicesDep, StagesDep
from app.errors import Problem
from app.hf_inputs import NAMES, HfParameters, read_hf
from app.problems import documented
from app.renaming import renamed

router = APIRouter(prefix="/hf", tags=["Hugging Face's clients"])

BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "inputs": {
                            "type": "string",
                            "description": "The image file in base64, or its URL.",
                        },
                        "parameters": HfParameters.model_json_schema(),
                    },
                    "required": ["inputs", "parameters"],
                }
            },
        },
    }
}


class HfPrediction(BaseModel):
    """One label with its score."""

    label: str
    score: float


@router.post(
    "/zero-shot-image-classification",
    summary="Score labels against an image, for Hugging Face's clients",
    openapi_extra=BODY,
    responses=documented(400, 401, 403, 408, 413, 415, 422, 429, 502, 503, 504),
)
async def zero_shot_image_classification(
    request: Request, services: ServicesDep, stages: StagesDep
) -> list[HfPrediction]:
    image, query = await read_hf(request, services.input_limits, services.fetcher)
    try:
        found = await services.classifier.classify(image, query, stages)
    except Problem as problem:
        raise renamed(problem, NAMES) from None
    return [
        HfPrediction(label=prediction.label, score=float(f"{prediction.score:.7g}"))
        for prediction in found.predictions
    ]
