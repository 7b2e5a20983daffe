"""The service on a Ray cluster: replicas that take requests, and replicas that encode.

    serve run app.server.ray_serve:build model=pictogram
    serve deploy docker/ray/serve.yaml

Knows nothing of the contents of requests, nor of batches.
"""

import asyncio
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.server.main import create_app
from app.server.remote_encoder import CALL_IMAGES, RemoteEncoder
from app.server.run import tune_interpreter
from app.server.settings import BadSettings, Settings, settings_from, unknown_variables
from app.server.shared_encoder import SharedEncoder
from app.telemetry import logs
from app.telemetry.federation import federated
from app.telemetry.metrics import Metrics
from models import EncoderInfo

log = logging.getLogger("openvocab.metrics")

# read by Ray at import: no usage statistics
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# requests that an ingress holds beyond those that may classify: label sets, health, the page
OTHERS: Final = 256

# calls that an encoder holds: enough of them with a single picture to fill its next two batches
BATCHES_HELD: Final = 2
TEXTS_HELD: Final = 16

# settings that define an encoder: changing any other leaves it running
ENCODER_SETTINGS: Final = frozenset({
    "model", "device", "precision", "backend", "torch_threads", "max_batch", "max_text_queue",
    "hang_timeout", "log_level", "log_format",
})  # fmt: skip

# characters not allowed in the name of a deployment
NAMELESS: Final = re.compile(r"[^A-Za-z0-9._]+")

# the deployment that takes requests
INGRESS: Final = "Ingress"

# seconds in which all replicas tell what they count; Prometheus waits ten
SCRAPE: Final = 5.0

# what an ingress counts of calls, where encoders count batches
CALLS: Final = re.compile(
    rb'^openvocab_(?:batch_size|forward_seconds)(?:_bucket|_count|_sum)?\{[^}]*kind="image".*\n',
    re.MULTILINE,
)

# seconds beyond a request's that a replica has to finish what it accepted
GRACE: Final = 15.0


class Unfit(ValueError):
    """The settings do not suit a cluster; the text is one line for a person."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The metrics of the replica with this name, in Prometheus' text format."""

    replica: str
    text: bytes


class Encoder:
    """One copy of the model, on a GPU or on CPU cores, for all ingresses."""

    async def __init__(self, args: dict[str, str]) -> None:  # type: ignore[misc] # Ray awaits it
        settings = _settings(args)
        logs.set_up(settings.log_level, settings.log_format)
        threads = settings.torch_threads or _cores()
        self._shared = await SharedEncoder.load(
            settings.model_copy(update={"torch_threads": threads})
        )
        tune_interpreter()

    async def counted(self) -> Counted:
        """What this replica counts."""
        return Counted(_replica(), await asyncio.to_thread(self._shared.metrics.text))

    def describe(self, model: str, precision: str) -> EncoderInfo:
        """What the model is; raises OtherModel."""
        return self._shared.describe(model, precision)

    async def images(
        self, fingerprint: str, pixels: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.float32], float]:
        """As SharedEncoder has it."""
        return await self._shared.images(fingerprint, pixels)

    async def texts(self, fingerprint: str, prompts: list[str]) -> npt.NDArray[np.float32]:
        """As SharedEncoder has it."""
        return await self._shared.texts(fingerprint, prompts)

    async def check_health(self) -> None:
        """Ray replaces a replica that fails this three times in a row."""
        await self._shared.check()

    async def __del__(self) -> None:
        if hasattr(self, "_shared"):
            await self._shared.close()


@serve.ingress()
class Ingress:
    """The whole service but the model: it decodes, scores, and keeps label sets."""

    def __init__(self, args: dict[str, str], encoders: dict[str, DeploymentHandle[Any]]) -> None:
        self._settings = _settings(args)
        self._encoders = encoders
        self._metrics = Metrics()
        self._all: list[DeploymentHandle[Any]] | None = None
        logs.set_up(self._settings.log_level, self._settings.log_format)
        for line in unknown_variables(os.environ):
            logging.getLogger("openvocab").warning("%s", line)
        _check_machines(self._settings)

    async def __serve_build_asgi_app__(self) -> ASGIApp:
        settings = self._settings

        async def connect(model: str) -> RemoteEncoder:
            """The encoders of a model, once one of them answers."""
            return await RemoteEncoder.find(
                self._encoders[model], model, settings.precision, settings.request_timeout
            )

        remote = await connect(settings.model)
        here = {
            "max_batch": CALL_IMAGES,
            "decode_threads": settings.decode_threads or _cores(),
        }
        app = create_app(
            settings.model_copy(update=here), remote, self._metrics, connect, self._exposition
        )
        tune_interpreter()
        return _Door(app, settings.listed("trusted_proxies"))

    async def counted(self) -> Counted:
        """What this replica counts."""
        text = await asyncio.to_thread(self._metrics.text)
        return Counted(_replica(), CALLS.sub(b"", text))

    async def _exposition(self) -> bytes:
        """What all replicas of the application count."""
        if self._all is None:
            ingresses = await asyncio.to_thread(serve.get_deployment_handle, INGRESS)
            self._all = [ingresses, *self._encoders.values()]
        deployments = await asyncio.gather(*(_all_of(handle) for handle in self._all))
        texts = [
            ({"deployment": handle.deployment_name, "replica": counted.replica}, counted.text)
            for handle, replicas in zip(self._all, deployments, strict=True)
            for counted in replicas
        ]
        return await asyncio.to_thread(federated, texts)


async def _all_of(handle: DeploymentHandle[Any]) -> list[Counted]:
    """What the replicas of a deployment count; of those that do not answer in time, nothing."""
    try:
        answers = await handle.broadcast("counted").results_async(
            timeout_s=SCRAPE, return_exceptions=True
        )
    except (TimeoutError, RayError, RayServeException) as error:
        log.warning("%s did not report its metrics: %s", handle.deployment_name, error)
        return []
    return [answer for answer in answers if isinstance(answer, Counted)]


class _Door:
    """What Ray's proxy leaves to do around the service, or does twice."""

    def __init__(self, app: ASGIApp, proxies: list[str]) -> None:
        whole: Any = app  # uvicorn's types of ASGI are others than starlette's
        self._app: Any = ProxyHeadersMiddleware(whole, proxies) if proxies else app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_once(message: Message) -> None:
            if message["type"] == "http.response.start":
                # the proxy gave the request its id, and answers it
                message["headers"] = [
                    pair for pair in message["headers"] if pair[0].lower() != b"x-request-id"
                ]
            await send(message)

        await self._app(scope, receive, send_once)


def build(args: Mapping[str, Any]) -> serve.Application:
    """The application; `args` are settings in lower case, and come before the environment's.

    How many replicas of what size there are is said where it is deployed: docker/ray/serve.yaml.
    Raises Unfit.
    """
    values = {name: str(value) for name, value in args.items()}
    settings = _settings(values)
    if settings.store_url.startswith("memory:"):
        raise Unfit(
            "OPENVOCAB_STORE_URL: a store in memory cannot be shared by replicas; use redis://…"
        )
    if settings.loaded_models or settings.model_idle:
        raise Unfit(
            "OPENVOCAB_LOADED_MODELS and _MODEL_IDLE are for one machine; on Ray each model has a "
            "deployment of its own, which goes when idle with min_replicas: 0"
        )
    both: dict[str, Any] = {
        # the new one serves before the old one goes
        "max_surge_percent": 100,
        "graceful_shutdown_timeout_s": settings.request_timeout + settings.drain_seconds + GRACE,
        "graceful_shutdown_wait_loop_s": 0.5,
        "health_check_period_s": 5,
        "health_check_timeout_s": 30,
    }
    encoder = serve.deployment(
        max_ongoing_requests=BATCHES_HELD * settings.max_batch + TEXTS_HELD, **both
    )(Encoder)
    ingress = serve.deployment(
        name=INGRESS,
        # beyond what the service itself refuses, so that its own answer says why
        max_ongoing_requests=settings.max_queue + settings.max_batch + OTHERS,
        **both,
    )(Ingress)
    own = {name: value for name, value in values.items() if name in ENCODER_SETTINGS}
    alone = {"more_models": "", "model_aliases": ""}
    encoders = {
        model: encoder.options(name=deployment_name(model, default=model == settings.model)).bind(
            {**own, **alone, "model": model}
        )
        for model in settings.models
    }
    return ingress.bind(values, encoders)


def deployment_name(model: str, *, default: bool) -> str:
    """What the encoders of a model are called where replicas are counted."""
    return "Encoder" if default else f"Encoder-{NAMELESS.sub('-', model)}"


def _replica() -> str:
    """The name of the replica that this runs in."""
    return str(serve.get_replica_context().replica_id.unique_id)


def _settings(args: dict[str, str]) -> Settings:
    try:
        return settings_from(**args)
    except BadSettings as error:
        raise Unfit(str(error)) from None


def _check_machines(settings: Settings) -> None:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    machines = sum(bool(node["Alive"]) for node in nodes)
    if machines > 1 and not settings.store_url:
        raise Unfit(
            f"OPENVOCAB_STORE_URL: a SQLite file cannot be shared by {machines} machines; "
            "use redis://…"
        )


def _cores() -> int:
    """CPUs that Ray gave this replica, at least one; a share of one counts as one."""
    resources: dict[str, float] = ray.get_runtime_context().get_assigned_resources()  # type: ignore[no-untyped-call]
    return max(1, round(resources.get("CPU", 1)))
