"""What the server is: models, template sets, vocabularies, health and metrics."""

import contextlib
from dataclasses import asdict
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from app.api.model_pool import ModelState
from app.api.problems import KEYED, documented
from app.api.services import (
    ONLY_DECLARED,
    CallerDep,
    IgnoredModel,
    ModelServicesDep,
    Services,
    ServicesDep,
)
from app.errors import Draining, NotFound, NotReady
from app.labelsets.presets import PREFIX
from app.stores.lru import ByteLru
from app.stores.protocols import StoreAway
from app.telemetry.metrics import MEDIA_TYPE
from models import EncoderInfo
from models.info import Timing


class TemplateSetAnswer(BaseModel):
    """One template set."""

    name: str
    description: str
    language: str
    templates: list[str]


class TemplatesAnswer(BaseModel):
    """All template sets, and the default of requests that name none."""

    default: str
    sets: list[TemplateSetAnswer]


class VocabularyAnswer(BaseModel):
    """A list of labels that ships with the service."""

    name: str
    labelset: str
    description: str
    source: str
    label_count: int


class VocabulariesAnswer(BaseModel):
    """All vocabularies that ship with the service, by name."""

    vocabularies: list[VocabularyAnswer]


class TimingAnswer(BaseModel):
    """A way to run the image tower, timed once on this machine."""

    backend: str
    precision: str
    threads: int | None = Field(
        description="CPU threads of a forward pass; null: as many as the backend takes by itself."
    )
    cpu_ms: dict[int, float] = Field(
        description="Milliseconds of CPU per image in batches of so many images."
    )
    ms: dict[int, float] = Field(
        description="Milliseconds by the clock per image in batches of so many images."
    )

    @classmethod
    def of(cls, timing: Timing) -> "TimingAnswer":
        """What was measured."""
        return cls(**asdict(timing) | {"threads": timing.threads or None})


class LoadedModelAnswer(BaseModel):
    """The model, its origin and what it is good for."""

    name: str
    description: str
    licence: str
    source: str
    imagenet_top1: float | None = Field(description="Published zero-shot accuracy in percent.")
    figures: str | None = Field(description="Where that was published.")
    languages: list[str]
    default_templates: str
    fingerprint: str
    precision: str
    device: str
    backend: str
    image_width: int
    image_height: int
    context_length: int
    embedding_width: int
    logit_scale: float
    logit_bias: float | None
    text_family: str
    trims_text: bool
    images_at_once: int | None
    threads: int | None = Field(
        description="CPU threads of a forward pass; null: as many as the backend takes by itself, "
        "or not on a CPU."
    )
    measured: list[TimingAnswer] = Field(
        description="What backend, precision and threads were chosen by, timed once when the model "
        "was exported; empty where there was nothing to choose."
    )
    weights_bytes: int

    @classmethod
    def of(cls, info: EncoderInfo) -> "LoadedModelAnswer":
        """A description of an encoder."""
        origin = info.provenance
        return cls(
            name=info.name,
            description=origin.description,
            licence=origin.licence,
            source=origin.source,
            imagenet_top1=origin.imagenet_top1,
            figures=origin.figures,
            languages=list(origin.languages),
            default_templates=origin.templates,
            fingerprint=info.fingerprint,
            precision=info.precision,
            device=info.device,
            backend=info.backend,
            image_width=info.image.width,
            image_height=info.image.height,
            context_length=info.context_length,
            embedding_width=info.embedding_width,
            logit_scale=info.scale,
            logit_bias=info.bias,
            text_family=info.text_family,
            trims_text=info.trims_text,
            images_at_once=info.images_at_once,
            threads=info.threads or None,
            measured=[TimingAnswer.of(timing) for timing in info.measured],
            weights_bytes=info.weights_bytes,
        )


class ModelAnswer(BaseModel):
    """One of the server's models: its name in requests, and its state."""

    name: str
    state: Literal["loaded", "loading", "idle", "failed"]
    default: bool
    aliases: list[str]
    reason: str | None = Field(description="Why it failed.")
    info: LoadedModelAnswer | None = Field(description="What it is, while it is loaded.")
    labelsets: int | None = Field(description="Label sets in memory, while it is loaded.")

    @classmethod
    def of(cls, state: ModelState[Services], *, default: bool) -> "ModelAnswer":
        """The pool's view of a model."""
        parts = state.parts
        return cls(
            name=state.name,
            state=state.state,
            default=default,
            aliases=list(state.aliases),
            reason=state.reason,
            info=None if parts is None else LoadedModelAnswer.of(parts.encoder.info),
            labelsets=None if parts is None else len(parts.matrices),
        )


class CacheAnswer(BaseModel):
    """The contents of one memory cache."""

    entries: int
    bytes: int
    max_bytes: int
    hits: int
    misses: int

    @classmethod
    def of(cls, cache: ByteLru) -> "CacheAnswer":
        """The figures of a cache."""
        return cls(
            entries=len(cache),
            bytes=cache.bytes,
            max_bytes=cache.max_bytes,
            hits=cache.hits,
            misses=cache.misses,
        )


class StoreAnswer(BaseModel):
    """The store behind the label vectors in memory."""

    kind: str = Field(description="`sqlite`, `redis` or `memory`.")
    away: bool
    hits: int | None
    misses: int | None


class ModelsAnswer(BaseModel):
    """The response of GET /models: the models, and the size of the caches.

    Caches are shared by all namespaces: their figures are for keys with the scope `admin`.
    """

    models: list[ModelAnswer] = Field(description="The default model first.")
    loaded: LoadedModelAnswer = Field(
        description="The default model, or the one given by the parameter `model`."
    )
    explains: bool = Field(description="Whether `explain=true` is answered.")
    vector_cache: CacheAnswer | None
    store: StoreAnswer
    image_cache: CacheAnswer | None
    labelset_cache: CacheAnswer | None


class HealthAnswer(BaseModel):
    """GET /healthz: the process responds."""

    status: str = "ok"


class ReadyAnswer(BaseModel):
    """GET /readyz: the default model works; `degraded` while the store or another does not."""

    status: Literal["ready", "degraded"]
    model: str
    models: dict[str, Literal["ready", "loading", "idle", "failed"]] = Field(
        description="Each model; `failed` where it cannot be loaded or does not answer as it did."
    )
    store: Literal["ok", "read-only", "away"]


router = APIRouter(tags=["Server"])


@router.get(
    "/templates",
    operation_id="listTemplates",
    dependencies=ONLY_DECLARED,
    summary="List template sets",
    responses=documented(*KEYED, 404, 503),
)
async def templates(services: ModelServicesDep) -> TemplatesAnswer:
    return TemplatesAnswer(
        default=services.templates.default,
        sets=[
            TemplateSetAnswer.model_validate(template_set, from_attributes=True)
            for template_set in services.templates.sets.values()
        ],
    )


@router.get(
    "/vocabularies",
    operation_id="listVocabularies",
    dependencies=ONLY_DECLARED,
    summary="List shipped vocabularies",
    responses=documented(*KEYED),
)
async def vocabularies(services: ServicesDep, _model: IgnoredModel = None) -> VocabulariesAnswer:
    return VocabulariesAnswer(
        vocabularies=[
            VocabularyAnswer(
                name=vocabulary.name,
                labelset=PREFIX + vocabulary.name,
                description=vocabulary.description,
                source=vocabulary.source,
                label_count=len(vocabulary.labels),
            )
            for vocabulary in services.vocabularies.values()
        ]
    )


@router.get(
    "/models",
    operation_id="getModels",
    dependencies=ONLY_DECLARED,
    summary="List models, with what the caches hold",
    responses=documented(*KEYED, 404, 503),
)
async def models(services: ModelServicesDep, caller: CallerDep) -> ModelsAnswer:
    vectors, sees_all = services.vectors, caller.may("admin")
    return ModelsAnswer(
        models=[
            ModelAnswer.of(state, default=place == 0)
            for place, state in enumerate(services.models.states())
        ],
        loaded=LoadedModelAnswer.of(services.encoder.info),
        explains=services.explains,
        vector_cache=CacheAnswer.of(vectors.memory) if sees_all else None,
        store=StoreAnswer(
            kind=services.store_kind,
            away=services.store.away,
            hits=vectors.store_hits if sees_all else None,
            misses=vectors.store_misses if sees_all else None,
        ),
        image_cache=CacheAnswer.of(services.images) if sees_all else None,
        labelset_cache=CacheAnswer.of(services.matrices) if sees_all else None,
    )


@router.get("/healthz", operation_id="getHealth", summary="Liveness check")
async def healthz() -> HealthAnswer:
    return HealthAnswer()


@router.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Readiness check",
    responses=documented(503, 504),
)
async def readyz(request: Request, services: ServicesDep) -> ReadyAnswer:
    if request.app.state.draining:
        raise Draining("the server is shutting down; send requests to another one", retry_after=1)
    await services.canary.check()
    with contextlib.suppress(StoreAway):
        await services.store.ping()  # as it is now, not as the last call found it
    models: dict[str, Literal["ready", "loading", "idle", "failed"]] = {}
    for state in services.models.states():
        if state.parts is not None:
            models[state.name] = "ready" if await _answers(state.parts) else "failed"
        elif state.state != "loaded":
            models[state.name] = state.state
    degraded = services.store.away or "failed" in models.values()
    return ReadyAnswer(
        status="degraded" if degraded else "ready",
        model=services.encoder.info.name,
        models=models,
        store=services.store.state,
    )


async def _answers(services: Services) -> bool:
    try:
        await services.canary.check()
    except NotReady:
        return False
    return True


@router.get(
    "/metrics",
    operation_id="getMetrics",
    summary="Metrics, for Prometheus",
    response_class=Response,
    responses=documented(*KEYED, 404),
)
async def metrics(services: ServicesDep) -> Response:
    if not services.metrics_on:
        raise NotFound("metrics are disabled on this server (OPENVOCAB_METRICS)")
    return Response(await services.exposition(), media_type=MEDIA_TYPE)
