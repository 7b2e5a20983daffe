"""The routes: parse, one call, return a schema."""

import asyncio
import contextlib
from dataclasses import replace

from fastapi import APIRouter, Request, Response

from app import examples, inputs, render
from app.deps import CallerDep, ServicesDep, StagesDep, patience
from app.errors import Draining, Invalid, NotFound
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
from app.metrics import MEDIA_TYPE
from app.problems import documented
from app.schemas import ClassifyAnswer
from app.stores.protocols import StoreAway

router = APIRouter()


@router.post(
    "/classify",
    summary="Score labels against an image",
    description=examples.CLASSIFY_DESCRIPTION,
    openapi_extra=examples.classify_body(),
    response_model=ClassifyAnswer,
    responses={
        200: {"content": {"text/plain": {}, "text/csv": {}}},
        **documented(400, 401, 403, 404, 408, 413, 415, 422, 429, 502, 503, 504),
    },
)
async def classify(
    request: Request, services: ServicesDep, stages: StagesDep, caller: CallerDep
) -> Response:
    image, query = await inputs.read_classify(request, services.input_limits, services.fetcher)
    if query.explain and not services.explains:
        raise Invalid("explain is switched off here; OPENVOCAB_EXPLAIN", field="explain")
    query = replace(query, namespace=caller.namespace, patience=await patience(request))
    found = await services.classifier.classify(image, query, stages)
    accept = request.headers.get("accept", "")
    return render.render(ClassifyAnswer.of(found), accept, says_none=query.abstain)


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
        explains=services.explains,
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
async def readyz(request: Request, services: ServicesDep) -> ReadyAnswer:
    if request.app.state.draining:
        raise Draining("the server is stopping; send requests to another one", retry_after=1)
    await services.canary.check()
    with contextlib.suppress(StoreAway):
        await services.store.ping()  # a store that is back is found out even if nobody uses it
    return ReadyAnswer(
        status="degraded" if services.store.away else "ready",
        model=services.encoder.info.name,
        store=services.store.state,
    )


@router.get("/metrics", summary="What is counted, for Prometheus", response_class=Response)
async def metrics(services: ServicesDep) -> Response:
    if not services.metrics_on:
        raise NotFound("metrics are switched off here; OPENVOCAB_METRICS")
    return Response(await asyncio.to_thread(services.metrics.text), media_type=MEDIA_TYPE)
