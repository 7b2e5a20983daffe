"""The composition root: settings in, application out. Everything is built here and nowhere else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware import Middleware

from app.batching import Batcher, BatchPolicy
from app.classifier import Classifier, Floats, Pixels
from app.deps import Services
from app.ensemble import Ensemble
from app.images import Decoder, ImageLimits
from app.labels import LabelLimits
from app.middleware import BodyLimit, BodyLimits, RequestContext
from app.problems import add_handlers
from app.queries import InputLimits
from app.routes import router
from app.settings import Settings
from app.stores.lru import ByteLru
from prompts import TemplateSet, load_sets

if TYPE_CHECKING:
    from models.encoder import Encoder

VERSION = "0.1.0"


def create_app(settings: Settings, encoder: "Encoder | None" = None) -> FastAPI:
    """The application; without an encoder it loads its own at start and closes it at the end.

    Raises, at start: models.ModelError.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        own = encoder
        if own is None:
            own = await asyncio.to_thread(load_encoder, settings)
        decoder = Decoder(
            own.info.image,
            ImageLimits(settings.max_image_bytes, settings.max_image_pixels),
            settings.cores_for_decoding(),
            settings.heic,
        )
        policy = BatchPolicy(settings.max_batch, settings.max_queue, own.info.in_flight)
        batcher = Batcher(_encode_images(own), policy)
        app.state.services = _services(settings, own, decoder, batcher)
        try:
            yield
        finally:
            await batcher.drain()
            decoder.close()
            if encoder is None:
                own.close()

    app = FastAPI(
        title="openvocab",
        version=VERSION,
        summary="Send an image and any words; it answers which words fit.",
        root_path=settings.root_path,
        lifespan=lifespan,
        middleware=[
            Middleware(RequestContext),
            Middleware(BodyLimit, limits=BodyLimits(settings.max_image_bytes)),
        ],
    )
    app.include_router(router)
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
    )


def template_sets() -> Mapping[str, TemplateSet]:
    """The shipped sets, and `imagenet` as open_clip has it."""
    from models.templates import imagenet_templates

    imagenet = TemplateSet(
        "imagenet",
        "The 80 templates of the CLIP paper, for photographs.",
        "en",
        imagenet_templates(),
    )
    return dict(sorted({**load_sets(), "imagenet": imagenet}.items()))


def _services(
    settings: Settings,
    encoder: "Encoder",
    decoder: Decoder,
    batcher: Batcher[Pixels, Floats],
) -> Services:
    cache = ByteLru(settings.vector_cache_bytes)
    sets = template_sets()
    return Services(
        encoder=encoder,
        classifier=Classifier(encoder, decoder, batcher, Ensemble(encoder, cache), sets),
        vector_cache=cache,
        template_sets=sets,
        input_limits=InputLimits(
            LabelLimits(settings.max_labels, settings.max_label_length), settings.max_templates
        ),
        request_timeout=settings.request_timeout,
    )


def _encode_images(encoder: "Encoder") -> Callable[[Sequence[Pixels]], Awaitable[Sequence[Floats]]]:
    async def run(batch: Sequence[Pixels]) -> Sequence[Floats]:
        rows = await asyncio.wrap_future(encoder.submit_images(batch))
        return list(rows)

    return run
