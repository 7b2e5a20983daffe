"""The composition root: settings in, application out. Everything is built here and nowhere else."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI
from starlette.middleware import Middleware

from app import labelset_routes, routes
from app.batching import Batcher, BatchPolicy
from app.builds import Builds
from app.classifier import Classifier, Floats, Pixels
from app.deps import Services
from app.ensemble import Ensemble
from app.image_cache import ImageCache
from app.images import Decoder, ImageLimits
from app.labels import LabelLimits
from app.labelsets import LabelSetService
from app.middleware import BodyLimit, BodyLimits, RequestContext
from app.problems import add_handlers
from app.queries import InputLimits
from app.registry import Registry
from app.settings import Settings
from app.stores import open_store
from app.stores.guard import Guarded
from app.stores.levels import TwoLevels
from app.stores.lru import ByteLru
from app.stores.protocols import StoreAway
from app.templates import TemplateSets
from app.uploads import UploadLimits
from prompts import TemplateSet, load_sets, load_vocabularies

if TYPE_CHECKING:
    from models.encoder import Encoder

log = logging.getLogger("openvocab")

VERSION: Final = "0.1.0"

# share of the request timeout that a request waits for the first build of its label set
PATIENCE: Final = 0.9

# seconds that a write to the SQLite file may take
SQLITE_WRITE_SECONDS: Final = 5.0

# seconds at the end for batches that were accepted
DRAIN_SECONDS: Final = 10.0


def create_app(settings: Settings, encoder: "Encoder | None" = None) -> FastAPI:
    """The application; without an encoder it loads its own at start and closes it at the end.

    Raises, at start: models.ModelError, app.stores.protocols.StoreUnusable.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            own = encoder
            if own is None:
                own = await asyncio.to_thread(load_encoder, settings)
                stack.callback(own.close)
            app.state.services = await _build(settings, own, stack)
            yield

    app = FastAPI(
        title="openvocab",
        version=VERSION,
        summary="Send an image and any words; it answers which words fit.",
        lifespan=lifespan,
        middleware=[
            Middleware(RequestContext),
            Middleware(
                BodyLimit,
                limits=BodyLimits(settings.max_image_bytes, settings.max_labelset_bytes),
            ),
        ],
    )
    app.include_router(routes.router)
    app.include_router(labelset_routes.router)
    add_handlers(app)
    return app


def load_encoder(settings: Settings) -> "Encoder":
    """The encoder that the settings name; raises models.ModelError."""
    from models.loader import load  # torch takes seconds to import: only who serves pays for it

    return load(
        settings.model,
        device=settings.device,
        precision=settings.precision,
        threads=settings.torch_threads,
        max_batch=settings.max_batch,
        backend=settings.backend,
    )


def template_sets() -> Mapping[str, TemplateSet]:
    """The shipped sets, and `imagenet` as open_clip has it."""
    from models.templates import imagenet_templates

    about = "The 80 templates of the CLIP paper, for photographs."
    imagenet = TemplateSet("imagenet", about, "en", imagenet_templates())
    return dict(sorted({**load_sets(), "imagenet": imagenet}.items()))


def presets() -> Mapping[str, Sequence[str]]:
    """The shipped vocabularies, and `imagenet-1k` as open_clip has it."""
    from models.templates import imagenet_classes

    shipped = {name: found.labels for name, found in load_vocabularies().items()}
    return dict(sorted({**shipped, "imagenet-1k": imagenet_classes()}.items()))


def guarded_store(settings: Settings) -> Guarded:
    """The store behind its circuit breaker, not opened yet; raises StoreUnusable."""
    store = open_store(
        settings.store_url,
        settings.data_dir.expanduser(),
        settings.store_timeout,
        settings.vector_ttl,
        settings.vector_store_bytes,
    )
    # a file's disk may be slow, and whether a definition was written matters more than when
    patient = None if settings.store_url else max(SQLITE_WRITE_SECONDS, settings.store_timeout)
    return Guarded(store, settings.store_timeout, write_timeout=patient)


async def _build(
    settings: Settings, encoder: "Encoder", stack: contextlib.AsyncExitStack
) -> Services:
    """All parts, bottom up; the stack ends them top down."""
    info, store = encoder.info, guarded_store(settings)
    stack.push_async_callback(store.close)
    try:
        await store.open()
    except StoreAway as away:
        log.warning("the store is away (%s); serving without it until it is back", away)
    vectors = TwoLevels(ByteLru(settings.vector_cache_bytes), store.vectors, info.embedding_width)
    ensemble = Ensemble(encoder, vectors, settings.max_text_queue)
    stack.push_async_callback(ensemble.close)
    templates = TemplateSets(template_sets(), info.provenance.templates)
    registry = Registry(store.labelsets, settings.max_labelsets)
    matrices = ByteLru(settings.labelset_cache_bytes)
    builds = Builds(ensemble, templates, matrices, registry.built, settings.max_labelset_prompts)
    labelsets = LabelSetService(registry, builds)
    stack.push_async_callback(labelsets.close)
    resuming = asyncio.create_task(labelsets.resume())
    stack.callback(resuming.cancel)
    decoder = Decoder(
        info.image,
        ImageLimits(settings.max_image_bytes, settings.max_image_pixels),
        settings.cores_for_decoding(),
        settings.max_queue,
        settings.heic,
        settings.exact_jpeg,
    )
    stack.callback(decoder.close)
    batcher = Batcher(
        encode_images(encoder),
        BatchPolicy(settings.max_batch, settings.max_queue, info.in_flight),
    )
    stack.push_async_callback(_drain, batcher)
    images = ImageCache(ByteLru(settings.image_cache_bytes), info.fingerprint)
    patience = PATIENCE * settings.request_timeout
    return Services(
        encoder=encoder,
        classifier=Classifier(
            info,
            decoder,
            batcher,
            images,
            ensemble,
            labelsets,
            templates,
            patience,
            settings.max_labels * settings.max_templates,
        ),
        labelsets=labelsets,
        templates=templates,
        vectors=vectors,
        images=images.memory,
        matrices=matrices,
        store=store,
        store_kind=settings.store_url.partition(":")[0] or "sqlite",
        input_limits=InputLimits(
            LabelLimits(settings.max_labels, settings.max_label_length), settings.max_templates
        ),
        upload_limits=UploadLimits(
            labels=LabelLimits(settings.max_labelset_labels, settings.max_label_length),
            texts=LabelLimits(settings.max_label_texts, settings.max_label_length),
            templates=settings.max_templates,
            presets=presets(),
        ),
        request_timeout=settings.request_timeout,
        patience=patience,
    )


async def _drain(batcher: Batcher[Pixels, Floats]) -> None:
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            await batcher.drain()
    except TimeoutError:
        log.error("the encoder did not finish within %s s; its work is dropped", DRAIN_SECONDS)


def encode_images(encoder: "Encoder") -> Callable[[Sequence[Pixels]], Awaitable[Sequence[Floats]]]:
    """What the batcher runs: a batch of pixels to one row each."""

    async def run(batch: Sequence[Pixels]) -> Sequence[Floats]:
        rows = await asyncio.wrap_future(encoder.submit_images(batch))
        return list(rows)

    return run
