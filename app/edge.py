"""What every request passes before it reaches a route. Knows nothing of the routes."""

from typing import TYPE_CHECKING

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from app.admission import Admission
from app.bounds import HEADER, Bounds
from app.gate import Gate, GatePolicy
from app.keys import KeyRing
from app.metrics import Metrics
from app.middleware import BodyLimit, BodyLimits, RequestContext
from app.settings import Settings

if TYPE_CHECKING:
    from app.tracing import Tracing


def middleware(
    settings: Settings, metrics: Metrics, admission: Admission, tracing: "Tracing | None" = None
) -> list[Middleware]:
    """From the outside in. Raises app.keys.BadKeys."""
    origins = settings.listed("cors_origins")
    policy = GatePolicy(
        settings.rate_limit,
        settings.rate_burst,
        frozenset(origins),
        frozenset(host.lower() for host in settings.listed("allowed_hosts")),
        settings.metrics == "open",
    )
    chosen = [
        Middleware(
            RequestContext, metrics=metrics, tracing=tracing, log_labels=settings.log_labels
        ),
        Middleware(
            BodyLimit,
            limits=BodyLimits(
                settings.max_image_bytes, settings.max_labelset_bytes, settings.max_upload_bytes
            ),
        ),
        Middleware(Gate, keys=KeyRing(settings.api_keys_file, settings.api_keys), policy=policy),
        Middleware(Bounds, admission=admission, timeout=settings.request_timeout, metrics=metrics),
    ]
    if origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "If-Match", "If-None-Match", HEADER],
            expose_headers=["ETag", "Link", "Location", "Retry-After", "Server-Timing",
                            "X-Request-ID", "traceresponse"],
        )  # fmt: skip
        chosen.insert(0, cors)
    return chosen
