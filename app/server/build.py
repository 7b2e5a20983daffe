"""Every part of the running service, built bottom up from the settings. Knows nothing of HTTP."""

import asyncio
import contextlib
import functools
import logging
import os
from typing import TYPE_CHECKING, Final

from app import VERSION
from app.api.fields import InputLimits
from app.api.labelset_body import UploadLimits
from app.api.middleware.rate_limit import RateLimiter
from app.api.services import Services
from app.api.uploads import UploadBatches
from app.classify.batching import Batcher, BatchPolicy
from app.classify.canary import Canary
from app.classify.classifier import Classifier
from app.classify.embedding import Floats, ImageCache, ImageEmbedder, Pixels, encode_images
from app.classify.ensemble import Ensemble
from app.classify.labels import LabelLimits
from app.classify.templates import TemplateSets, presets, template_sets
from app.images.decode import Decoder
from app.images.fetch import Fetcher, FetchPolicy
from app.images.limits import ImageLimits
from app.images.urls import AllowedHost
from app.labelsets.blending import Blending
from app.labelsets.builds import Builds
from app.labelsets.calibration.validity import Validity
from app.labelsets.examples import ExampleLimits, FewShot
from app.labelsets.presets import OTHERS, Presets
from app.labelsets.registry import Registry, Sweeper
from app.labelsets.service import LabelSetService
from app.server.exit_status import DEVICE_LOST
from app.server.settings import Settings
from app.server.watchdog import Heartbeat, Watchdog
from app.stores import open_store
from app.stores.guard import Guarded, Tell, nobody
from app.stores.lru import ByteLru
from app.stores.protocols import StoreAway
from app.stores.vectors import TwoLevels
from app.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from models.encoder import Encoder
    from models.info import AnyEncoder


log = logging.getLogger("openvocab")


# folder of exported models in the data directory
EXPORTS: Final = "models"

# seconds that a write to the SQLite file may take
SQLITE_WRITE_SECONDS: Final = 5.0

# seconds at the end for batches that were accepted
DRAIN_SECONDS: Final = 10.0


def load_encoder(settings: Settings) -> "Encoder":
    """The encoder that the settings name; raises models.ModelError."""
    from models.loader import load  # OpenVINO or torch: only who serves pays for it

    encoder = load(
        settings.model,
        device=settings.device,
        precision=settings.precision,
        threads=settings.cores_for_encoding(),
        max_batch=settings.max_batch,
        backend=settings.backend,
        exports=settings.data_dir.expanduser() / EXPORTS,
    )
    encoder.on_device_lost(end_process)
    return encoder


def end_process(error: BaseException) -> None:
    """The device failed: nothing it says can be believed, and whoever watches starts a new process.

    Ends this one with status 71, before anything is answered.
    """
    log.critical("the device failed (%s); the process ends", str(error).partition("\n")[0])
    for handler in logging.getLogger().handlers:
        handler.flush()
    os._exit(DEVICE_LOST)


def guarded_store(settings: Settings, tell: Tell = nobody) -> Guarded:
    """The store behind its circuit breaker, not opened yet; raises StoreUnusable."""
    store = open_store(
        settings.store_url,
        settings.data_dir.expanduser(),
        settings.store_timeout,
        settings.vector_ttl,
        settings.vector_store_bytes,
        settings.store_prefix,
    )
    # a file's disk may be slow, and whether a definition was written matters more than when
    patient = None if settings.store_url else max(SQLITE_WRITE_SECONDS, settings.store_timeout)
    return Guarded(store, settings.store_timeout, write_timeout=patient, tell=tell)


async def build(
    settings: Settings, encoder: "AnyEncoder", metrics: Metrics, stack: contextlib.AsyncExitStack
) -> Services:
    """All parts, bottom up; the stack ends them top down. May raise StoreUnusable."""
    info, store = encoder.info, guarded_store(settings, metrics.store_called)
    stack.push_async_callback(store.close)
    try:
        await store.open()
    except StoreAway as away:
        log.warning("the store is away (%s); serving without it until it is back", away)
    vectors = TwoLevels(ByteLru(settings.vector_cache_bytes), store.vectors, info.embedding_width)
    ensemble = Ensemble(
        encoder, vectors, settings.max_text_queue, functools.partial(metrics.encoded, "text")
    )
    stack.push_async_callback(ensemble.close)
    templates = TemplateSets(template_sets(), info.provenance.templates)
    decoder = Decoder(
        info.image,
        ImageLimits(settings.max_image_bytes, settings.max_image_pixels),
        settings.cores_for_decoding(),
        settings.max_queue + settings.max_batch,
        settings.heic,
        settings.exact_jpeg,
    )
    stack.callback(decoder.close)
    batcher = Batcher(
        encode_images(encoder, functools.partial(metrics.encoded, "image")),
        BatchPolicy(settings.max_batch, settings.max_queue, info.in_flight),
    )
    stack.push_async_callback(_drain, batcher)

    images = ImageCache(ByteLru(settings.image_cache_bytes), info.fingerprint)
    embedder = ImageEmbedder(decoder, batcher, images)
    blending = Blending(vectors, store.pictures, embedder, info.fingerprint, info.scale)
    registry = Registry(
        store.labelsets, store.pictures, settings.max_labelsets, settings.definition_cache_bytes
    )
    matrices = ByteLru(settings.labelset_cache_bytes)
    builds = Builds(
        ensemble,
        blending,
        templates,
        matrices,
        registry.built,
        settings.max_labelset_prompts,
        metrics.built,
    )
    metrics.watch(
        "openvocab_labelset_builds_running",
        "Builds of label sets under way, or waiting their turn.",
        lambda: builds.running,
    )
    vocabularies = presets()
    labelsets = LabelSetService(
        registry,
        builds,
        Validity(info.fingerprint, templates),
        Presets(vocabularies, templates.default),
        settings.max_labels * settings.max_templates,
    )
    stack.push_async_callback(labelsets.close)
    resuming = asyncio.create_task(labelsets.resume())
    stack.callback(resuming.cancel)
    sweeping = asyncio.create_task(Sweeper(store.labelsets, store.pictures).keep_sweeping())
    stack.callback(sweeping.cancel)
    canary = Canary(encoder)
    await canary.learn(ensemble)
    stack.callback(asyncio.create_task(canary.keep_looking()).cancel)
    work = {
        "the model": lambda: encoder.busy_since,
        "a decoder": lambda: decoder.busy_since,
        "the event loop": Heartbeat(asyncio.get_running_loop()).busy_since,
    }
    stack.callback(Watchdog(settings.hang_timeout, work).close)
    fetcher = _fetcher(settings, stack) if settings.image_urls else None
    return Services(
        encoder=encoder,
        classifier=Classifier(info, embedder, ensemble, templates, labelsets.classes, OTHERS),
        embedder=embedder,
        labelsets=labelsets,
        few_shot=FewShot(
            embedder,
            labelsets,
            blending,
            store.pictures,
            ExampleLimits(
                settings.max_examples, settings.max_example_bytes, settings.example_store_bytes
            ),
        ),
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
            presets=vocabularies,
        ),
        upload_batches=UploadBatches(
            settings.max_upload_images,
            settings.max_upload_bytes,
            settings.max_image_bytes,
            settings.max_uploads,
        ),
        fetcher=fetcher,
        limiter=RateLimiter(store.rates),
        canary=canary,
        metrics=metrics,
        explains=settings.explain,
        metrics_on=settings.metrics != "off",
    )


def _fetcher(settings: Settings, stack: contextlib.AsyncExitStack) -> Fetcher:
    hosts = tuple(AllowedHost.parse(host) for host in settings.listed("image_url_hosts"))
    policy = FetchPolicy(settings.max_image_bytes, hosts, settings.image_url_timeout)
    return stack.enter_context(contextlib.closing(Fetcher(policy, f"openvocab/{VERSION}")))


async def _drain(batcher: Batcher[Pixels, Floats]) -> None:
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            await batcher.drain()
    except TimeoutError:
        log.error("the encoder did not finish within %s s; its work is dropped", DRAIN_SECONDS)
