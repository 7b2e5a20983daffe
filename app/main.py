"""The composition root: settings in, application out. Knows how, not what: see building.py."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from fastapi import FastAPI

from app import (
    batch_routes,
    calibration_routes,
    edge,
    embedding_routes,
    example_routes,
    hf_routes,
    labelset_routes,
    openai_routes,
    page_routes,
    routes,
    spans,
    telemetry,
)
from app.admission import Admission
from app.building import VERSION, build, load_encoder
from app.gauges import watch_services
from app.metrics import Metrics
from app.problems import add_handlers
from app.process_gauges import watch_process
from app.settings import Settings

if TYPE_CHECKING:
    from models.protocols import AnyEncoder


def create_app(
    settings: Settings, encoder: "AnyEncoder | None" = None, metrics: Metrics | None = None
) -> FastAPI:
    """The application; without an encoder it loads its own at start and closes it at the end.

    `metrics` are those of a process that counts together with others.

    Raises: app.keys.BadKeys; at start models.ModelError, app.stores.protocols.StoreUnusable.
    """
    counted = metrics or Metrics()
    watch_process(counted, settings, first=metrics is None)
    admission = Admission(settings.max_queue + settings.max_batch, settings.max_pending_bytes)
    tracing = telemetry.start(settings.tracing, VERSION)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            if tracing is not None:
                stack.push_async_callback(asyncio.to_thread, tracing.close)
                stack.enter_context(spans.at(tracing.outside()))
            own = encoder
            if own is None:
                own = await asyncio.to_thread(load_encoder, settings)
                stack.callback(own.close)
            services = await build(settings, own, counted, stack)
            watch_services(counted, services, settings, admission, lambda: app.state.draining)
            stack.enter_context(counted.published())
            app.state.services = services
            yield

    app = FastAPI(
        title="openvocab",
        version=VERSION,
        summary="Send an image and any words; it answers which words fit.",
        lifespan=lifespan,
        middleware=edge.middleware(settings, counted, admission, tracing),
        # their pages load scripts from elsewhere
        docs_url=None,
        redirect_slashes=False,  # the address in a redirect would be of the caller's making
        redoc_url=None,
        # the framework's own would hold the query, and so labels
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.draining = False
    for part in (
        routes, batch_routes, labelset_routes, calibration_routes, example_routes,
        embedding_routes, hf_routes, openai_routes, page_routes,
    ):  # fmt: skip
        app.include_router(part.router)
    add_handlers(app)
    return app
