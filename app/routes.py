"""The routes: parse, one call, return a schema."""

import asyncio
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from fastapi import APIRouter, Request, Response

from app import examples, inputs, render
from app.deps import ServicesDep, StagesDep
from app.errors import DeadlinePassed, NotReady
from app.schemas import (
    CacheAnswer,
    ClassifyAnswer,
    HealthAnswer,
    LoadedModelAnswer,
    ModelsAnswer,
    ProblemAnswer,
    ReadyAnswer,
    TemplatesAnswer,
    TemplateSetAnswer,
)

router = APIRouter()

CANARY_SECONDS: Final = 5.0


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    schema = ProblemAnswer.model_json_schema()
    return {
        status: {
            "description": "Problem",
            "content": {"application/problem+json": {"schema": schema}},
        }
        for status in statuses
    }


@router.post(
    "/classify",
    summary="Score labels against an image",
    description=examples.CLASSIFY_DESCRIPTION,
    openapi_extra=examples.classify_body(),
    response_model=ClassifyAnswer,
    responses={
        200: {"content": {"text/plain": {}, "text/csv": {}}},
        **_problems(400, 404, 413, 415, 422, 503, 504),
    },
)
async def classify(request: Request, services: ServicesDep, stages: StagesDep) -> Response:
    try:
        async with asyncio.timeout(services.request_timeout):
            image, query = await inputs.read_classify(request, services.input_limits)
            found = await services.classifier.classify(image, query, stages)
    except TimeoutError:
        limit = services.request_timeout
        raise DeadlinePassed(f"no answer within {limit:g} seconds", limit=limit) from None
    return render.render(ClassifyAnswer.of(found), request.headers.get("accept", ""))


@router.get("/templates", summary="The template sets")
async def templates(services: ServicesDep) -> TemplatesAnswer:
    return TemplatesAnswer(
        default=services.encoder.info.provenance.templates,
        sets=[
            TemplateSetAnswer(
                name=found.name,
                description=found.description,
                language=found.language,
                templates=list(found.templates),
            )
            for found in services.template_sets.values()
        ],
    )


@router.get("/models", summary="The loaded model and where it comes from")
async def models(services: ServicesDep) -> ModelsAnswer:
    info, cache = services.encoder.info, services.vector_cache
    provenance = asdict(info.provenance)
    return ModelsAnswer(
        loaded=LoadedModelAnswer(
            **{
                key: provenance[key]
                for key in ("description", "licence", "source", "imagenet_top1")
            },
            languages=list(info.provenance.languages),
            default_templates=info.provenance.templates,
            image_width=info.image.width,
            image_height=info.image.height,
            logit_scale=info.scale,
            logit_bias=info.bias,
            **{
                key: getattr(info, key)
                for key in ("name", "fingerprint", "precision", "device", "context_length")
            },
            embedding_width=info.embedding_width,
            text_family=info.text_family,
            trims_text=info.trims_text,
        ),
        vector_cache=CacheAnswer(
            entries=len(cache),
            bytes=cache.bytes,
            max_bytes=cache.max_bytes,
            hits=cache.hits,
            misses=cache.misses,
        ),
    )


@router.get("/healthz", summary="Does the process answer?")
async def healthz() -> HealthAnswer:
    return HealthAnswer()


@router.get("/readyz", summary="Does the model answer?", responses=_problems(503))
async def readyz(services: ServicesDep) -> ReadyAnswer:
    info = services.encoder.info
    canary = np.zeros((3, info.image.height, info.image.width), np.uint8)
    try:
        async with asyncio.timeout(CANARY_SECONDS):
            rows = await asyncio.wrap_future(services.encoder.submit_images([canary]))
    except Exception as error:
        raise NotReady("the model does not answer", retry_after=1) from error
    if not np.isfinite(rows).all():
        raise NotReady("the model answers with numbers that are not finite", retry_after=1)
    return ReadyAnswer(model=info.name)
