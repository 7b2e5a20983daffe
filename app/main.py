"""The composition root: settings in, application out. Knows how, not what: see building.py."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from fastapi import FastAPI

from app import (
    batch_routes,
    edge,
    embedding_routes,
    hf_routes,
    labelset_routes,
    openai_routes,
    page_routes,
    routes,
)
from app.admission import Admission
from app.building import VERSION, build, load_encoder
from app.metrics import Metrics
from app.problems import add_handlers
from app.settings import Settings

if TYPE_CHECKING:
    from models.encoder import Encoder


def create_app(settings: Settings, encoder: "Encoder | None" = None) -> FastAPI:
    """The application; without an encoder it loads its own at start and closes it at the end.

    Raises: app.keys.BadKeys; at start models.ModelError, app.stores.protocols.StoreUnusable.
    """
    metrics = Metrics()
    admission = Admission(settings.max_queue + settings.max_batch, settings.max_pending_bytes)
    metrics.watch("in_service", "Requests being worked on.", lambda: admission.in_service)
    metrics.watch("pending_bytes", "Bytes of requests held.", lambda: admission.bytes)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            own = encoder
            if own is None:
                own = await asyncio.to_thread(load_encoder, settings)
                stack.callback(own.close)
            app.state.services = await build(settings, own, metrics, stack)
            yield

    app = FastAPI(
        title="openvocab",
        version=VERSION,
        summary="Send an image and any words; it answers which words fit.",
        lifespan=lifespan,
        middleware=edge.middleware(settings, metrics, admission),
        # their pages load scripts from elsewhere
        docs_url=None,
        redirect_slashes=False,  # the address in a redirect would be of the caller's making
        redoc_url=None,
    )
    app.state.draining = False
    for part in (
        routes, batch_routes, labelset_routes, embedding_routes,
        hf_routes, openai_routes, page_routes,
    ):  # fmt: skip
        app.include_router(part.router)
    add_handlers(app)
    return app
