"""The routes: parse, one call, return a schema."""

import asyncio
import contextlib
from typing import Final

import numpy as np
from fastapi import APIRouter, Request, Response

from app import examples, inputs, render
from app.deps import ServicesDep, StagesDep
from app.errors import DeadlinePassed, NotReady
from app.info_schemas import (
    CacheAnswer,
    HealthAnswer,
    LoadedModelAnswer,
    ModelsAnswer,
    ReadyAnswer,
    StoreAnswer,
    TemplatesAnswer,
    TemplateSetAnswer,
)
from app.problems import documented
from app.schemas import ClassifyAnswer
from app.stores.protocols import StoreAway

router = APIRouter()

CANARY_SECONDS: Final = 5.0


@router.post(
    "/classify",
    summary="Score labels against an image",
    description=examples.CLASSIFY_DESCRIPTION,
    openapi_extra=examples.classify_body(),
    response_model=ClassifyAnswer,
    responses={
        200: {"content": {"text/plain": {}, "text/csv": {}}},
        **documented(400, 404, 413, 415, 422, 503, 504),
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
        default=services.templates.default,
        sets=[
            TemplateSetAnswer(
                name=found.name,
                description=found.description,
                language=found.language,
                templates=list(found.templates),
            )
            for found in services.templates.sets.values()
        ],
    )


@router.get("/models", summary="The loaded model, and how much its caches hold")
async def models(services: ServicesDep) -> ModelsAnswer:
    vectors = services.vectors
    return ModelsAnswer(
        loaded=LoadedModelAnswer.of(services.encoder.info),
        vector_cache=CacheAnswer.of(vectors.memory),
        store=StoreAnswer(
            kind=services.store_kind,
            away=services.store.away,
            hits=vectors.store_hits,
            misses=vectors.store_misses,
        ),
        image_cache=CacheAnswer.of(services.images),
        labelset_cache=CacheAnswer.of(services.matrices),
    )


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", summary="Does the process answer?")
async def healthz() -> HealthAnswer:
    return HealthAnswer()


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", summary="Does the model answer?", responses=documented(503))
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
    with contextlib.suppress(StoreAway):
        await services.store.ping()  # a store that is back is found out even if nobody uses it
    away = services.store.away
    return ReadyAnswer(
        status="degraded" if away else "ready", model=info.name, store="away" if away else "ok"
    )
