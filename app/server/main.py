"""The composition root: settings in, application out. Knows how, not what: see build.py."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from app import VERSION
from app.api import (
    batch,
    calibration,
    classify,
    embeddings,
    examples,
    huggingface,
    immich,
    info,
    labelsets,
    openai,
    openapi_document,
    photoprism,
    playground,
)
from app.api.middleware import RouteTable
from app.api.middleware.admission import Admission, AdmissionMiddleware
from app.api.middleware.auth import Gate, GatePolicy
from app.api.middleware.body_limit import BodyLimit, BodyLimits
from app.api.middleware.compression import Compression
from app.api.middleware.keys import KeyRing
from app.api.middleware.request_context import RequestContext
from app.api.problems import add_handlers
from app.api.services import Exposition
from app.server.build import LoadEncoder, build, load_encoder
from app.server.gauges import watch_certificate, watch_process, watch_services
from app.server.settings import Settings
from app.telemetry import spans
from app.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from app.telemetry.otel import Tracing
    from models.info import AnyEncoder


def middleware(
    settings: Settings,
    routes: RouteTable,
    metrics: Metrics,
    admission: Admission,
    tracing: "Tracing | None" = None,
) -> list[Middleware]:
    """All middleware, outermost first. Raises app.api.middleware.keys.BadKeys."""
    origins = settings.listed("cors_origins")
    policy = GatePolicy(
        settings.rate_limit,
        settings.rate_burst,
        frozenset(origins),
        frozenset(host.lower().removesuffix(".") for host in settings.listed("allowed_hosts")),
        settings.metrics == "open",
    )
    chosen = [
        Middleware(
            RequestContext,
            routes=routes,
            metrics=metrics,
            tracing=tracing,
            log_labels=settings.log_labels,
        ),
        Middleware(
            BodyLimit,
            limits=BodyLimits(
                settings.max_image_bytes, settings.max_labelset_bytes, settings.max_upload_bytes
            ),
        ),
        Middleware(Gate, keys=KeyRing(settings.api_keys_file, settings.api_keys), policy=policy),
        Middleware(
            AdmissionMiddleware,
            admission=admission,
            timeout=settings.request_timeout,
            metrics=metrics,
        ),
        Middleware(Compression),
    ]
    if origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
            # clients send headers of their own, OpenAI's ten of them, and no route reads cookies
            allow_headers=["*"],
            expose_headers=["ETag", "Link", "Location", "Retry-After", "Server-Timing",
                            "X-Request-ID", "traceresponse"],
        )  # fmt: skip
        chosen.insert(0, cors)
    return chosen


def create_app(
    settings: Settings,
    encoder: "AnyEncoder | None" = None,
    metrics: Metrics | None = None,
    further: LoadEncoder | None = None,
    exposition: Exposition | None = None,
) -> FastAPI:
    """The application; without an encoder it loads its own at start and closes it at the end.

    `metrics` are those of a process that counts together with others; `further` finds the encoders
    of models beside the default, where they are in other processes, and `exposition` what these
    count with this one.

    Raises: app.api.middleware.keys.BadKeys, app.telemetry.spans.CannotTrace; at start
    models.ModelError, StoreUnusable.
    """
    counted = metrics or Metrics()
    watch_process(counted, settings, first=metrics is None, children=True)
    watch_certificate(counted, settings)
    admission = Admission(settings.max_queue + settings.max_batch, settings.max_pending_bytes)
    tracing = spans.start(settings.tracing, VERSION)
    routes = RouteTable()

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
            services = await build(settings, own, counted, stack, further, exposition)
            watch_services(counted, services, settings, admission, lambda: app.state.draining)
            stack.enter_context(counted.published())
            app.state.services = services
            yield

    app = FastAPI(
        title="openvocab",
        version=VERSION,
        summary="Send an image and any words; it answers which words fit.",
        lifespan=lifespan,
        middleware=middleware(settings, routes, counted, admission, tracing),
        # their pages load scripts from elsewhere
        docs_url=None,
        redirect_slashes=False,  # the address in a redirect would be of the caller's making
        redoc_url=None,
        # the framework's own would hold the query, and so labels
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.openapi = functools.partial(openapi_document.document, app)  # type: ignore[method-assign]
    app.state.draining = False
    app.state.metrics = counted
    routes.add(app.routes)
    # routes are tried one after the other, so what is called most comes first
    for part in (
        classify, batch, embeddings, huggingface, openai, immich, photoprism,
        labelsets, calibration, examples, info, playground,
    ):  # fmt: skip
        app.include_router(part.router)
        routes.add(part.router.routes)
    add_handlers(app)
    return app
