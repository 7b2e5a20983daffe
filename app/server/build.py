"""Every part of the running service, built bottom up from the settings. Knows nothing of HTTP."""

import asyncio
import contextlib
import functools
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from app import VERSION
from app.api.fields import InputLimits
from app.api.json_text import JsonLimits
from app.api.labelset_body import UploadLimits
from app.api.middleware import Body
from app.api.middleware.rate_limit import RateLimiter
from app.api.model_pool import ModelPool, Room
from app.api.services import Exposition, Services
from app.api.uploads import UploadBatches
from app.classify.batching import Batcher, BatchPolicy
from app.classify.canary import Canary
from app.classify.classifier import Classifier
from app.classify.embedding import ImageCache, ImageEmbedder, encode_images
from app.classify.ensemble import Ensemble
from app.classify.labels import LabelLimits
from app.classify.templates import TemplateSets, presets, template_sets
from app.images.decode import Decoder
from app.images.fetch import Fetcher, FetchPolicy
from app.images.limits import ImageLimits, pixels_at_once
from app.images.limits import Room as RoomForPictures
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
from app.server.store import guarded_store, kind_of_store
from app.server.watchdog import Heartbeat, Watchdog
from app.stores.guard import Guarded
from app.stores.lru import ByteLru
from app.stores.protocols import StoreAway
from app.stores.vectors import TwoLevels
from app.telemetry.metrics import Metrics
from models.device_state import release_memory
from models.info import Floats, Pixels
from models.pages import limit_arenas
from prompts import Vocabulary

if TYPE_CHECKING:
    from models.encoder import Encoder
    from models.info import AnyEncoder


log = logging.getLogger("openvocab")


# folder of exported models in the data directory
EXPORTS: Final = "models"

# seconds at the end for batches that were accepted
DRAIN_SECONDS: Final = 10.0


def load_encoder(
    settings: Settings,
    name: str | None = None,
    beside: "AnyEncoder | None" = None,
    room: Callable[[], None] = lambda: None,
) -> "Encoder":
    """The encoder of a model, without a name the default's; raises models.ModelError.

    On one device with `beside` it takes turns with that. `room` is called before the model takes
    memory.
    """
    from models.loader import load  # OpenVINO or torch: only who serves pays for it

    if settings.unloads:
        limit_arenas()
    encoder = load(
        name or settings.model,
        device=settings.device,
        precision=settings.precision,
        threads=settings.torch_threads,
        cores=settings.cores_for_encoding(),
        max_batch=settings.max_batch,
        backend=settings.backend,
        exports=settings.data_dir.expanduser() / EXPORTS,
        room=room,
    )
    encoder.on_device_lost(end_process)
    if beside is not None:
        encoder.share_device(beside)
    return encoder


def load_shared_encoder(settings: Settings) -> "Encoder | None":
    """The default model's encoder, for processes forked from this one to `restart`.

    None where each has to load its own. Raises models.ModelError.
    """
    from models.forking import import_ahead, survives
    from models.loader import load_to_share

    import_ahead(settings.device, settings.backend)
    encoder = load_to_share(
        settings.model,
        device=settings.device,
        precision=settings.precision,
        threads=settings.torch_threads,
        cores=settings.cores_for_encoding(),
        backend=settings.backend,
        exports=settings.data_dir.expanduser() / EXPORTS,
    )
    return encoder if encoder is not None and survives(encoder) else None


def end_process(error: BaseException) -> None:
    """The device failed: its results cannot be trusted, and the supervisor starts a new process.

    Ends this one with status 71, before anything is answered.
    """
    log.critical("the device failed (%s); the process exits", str(error).partition("\n")[0])
    for handler in logging.getLogger().handlers:
        handler.flush()
    os._exit(DEVICE_LOST)


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all models have in common: the store, caches keyed by the model, limits, doors."""

    store: Guarded
    registry: Registry
    vectors: ByteLru
    images: ByteLru
    vocabularies: Mapping[str, Vocabulary]
    upload_batches: UploadBatches
    decoding: RoomForPictures
    fetcher: Fetcher | None
    limiter: RateLimiter
    exposition: Exposition


# the name of a further model to its encoder; raises models.ModelError
LoadEncoder = Callable[[str], Awaitable["AnyEncoder"]]


async def build(
    settings: Settings,
    encoder: "AnyEncoder",
    metrics: Metrics,
    stack: contextlib.AsyncExitStack,
    further: LoadEncoder | None = None,
    exposition: Exposition | None = None,
) -> Services:
    """All parts, bottom up; the stack ends them top down. May raise StoreUnusable.

    `encoder` is the default model's; further ones are loaded beside it, unless they are elsewhere.
    `exposition` is that of `metrics`, unless others count elsewhere, too.
    """
    store = guarded_store(settings, metrics.store_called)
    stack.push_async_callback(store.close)
    try:
        await store.open()
    except StoreAway as away:
        log.warning("the store is unavailable (%s); serving without it until it is back", away)
    stack.callback(asyncio.create_task(store.keep_pinging()).cancel)
    registry = Registry(
        store.labelsets, store.pictures, settings.max_labelsets, settings.definition_cache_bytes
    )
    stack.push_async_callback(registry.close)
    shared = _Shared(
        store,
        registry,
        ByteLru(settings.vector_cache_bytes),
        ByteLru(settings.image_cache_bytes),
        presets(),
        UploadBatches(
            settings.max_upload_images,
            settings.max_upload_bytes,
            settings.max_image_bytes,
            settings.max_uploads,
        ),
        RoomForPictures(
            pixels_at_once(
                settings.max_image_pixels,
                settings.cores_for_decoding(),
                settings.memory_for_decoding(),
            )
        ),
        _fetcher(settings, stack) if settings.image_urls else None,
        RateLimiter(store.rates),
        exposition or functools.partial(asyncio.to_thread, metrics.text),
    )

    async def load(name: str, room: Room) -> tuple[Services, Callable[[], Awaitable[None]]]:
        if further:
            await room()
            own = await further(name)
        else:
            own = await _loaded(settings, name, encoder, room)
        parts = contextlib.AsyncExitStack()
        parts.push_async_callback(asyncio.to_thread, release_memory)
        parts.push_async_callback(asyncio.to_thread, own.close)
        try:
            services = await _of_model(settings, own, metrics, parts, shared, pool)
        except BaseException:
            await parts.aclose()
            raise
        parts.callback(_say_what_stops, services)
        return services, parts.aclose

    pool = ModelPool(
        settings.models,
        load,
        settings.aliases,
        settings.loaded_models,
        settings.model_idle,
        functools.partial(asyncio.to_thread, metrics.publish),
        lambda each: each.labelsets.building > 0,
    )
    services = await _of_model(settings, encoder, metrics, stack, shared, pool)
    resuming = asyncio.create_task(services.labelsets.resume())
    stack.callback(resuming.cancel)
    publishing = asyncio.create_task(registry.keep_publishing())
    stack.callback(publishing.cancel)
    sweeping = asyncio.create_task(Sweeper(store.labelsets, store.pictures).keep_sweeping())
    stack.callback(sweeping.cancel)
    metrics.watch(
        "openvocab_labelset_builds_running",
        "Builds of label sets running or waiting.",
        lambda: sum(each.labelsets.building for each in pool.loaded()),
    )
    stack.push_async_callback(pool.close)
    pool.start(services)
    return services


def _say_what_stops(services: Services) -> None:
    if count := services.labelsets.building:
        log.warning(
            "%s is unloaded while it builds label sets (%d); each build begins again when this "
            "model is asked for the set",
            services.encoder.info.name,
            count,
        )


async def _of_model(
    settings: Settings,
    encoder: "AnyEncoder",
    metrics: Metrics,
    stack: contextlib.AsyncExitStack,
    shared: _Shared,
    pool: ModelPool[Services],
) -> Services:
    """The parts of one model; the stack ends them."""
    info, store = encoder.info, shared.store
    vectors = TwoLevels(shared.vectors, store.vectors, info.embedding_width)
    ensemble = Ensemble(
        encoder,
        vectors,
        settings.max_text_queue,
        functools.partial(metrics.encoded, "text", info.name),
    )
    stack.push_async_callback(ensemble.close)
    templates = TemplateSets(template_sets(), info.provenance.templates)
    embedder = _embedder(settings, encoder, metrics, stack, shared)
    blending = Blending(vectors, store.pictures, embedder, info.fingerprint, info.scale)
    matrices = ByteLru(settings.labelset_cache_bytes)
    builds = Builds(
        ensemble,
        blending,
        templates,
        matrices,
        shared.registry.built,
        settings.max_labelset_prompts,
        metrics.built,
        # all label sets that a store may hold, beside as many that other processes have deleted
        remembered=2 * settings.max_labelsets,
    )
    labelsets = LabelSetService(
        shared.registry,
        builds,
        Validity(info.name, info.fingerprint, templates),
        Presets(shared.vocabularies, templates.default),
        settings.max_labels * settings.max_templates,
    )
    stack.push_async_callback(labelsets.close)
    canary = Canary(encoder)
    await canary.learn(ensemble)
    stack.callback(asyncio.create_task(canary.keep_looking()).cancel)
    work = {
        f"the model {info.name}": lambda: encoder.busy_since,
        "a decoder": lambda: embedder.decoder.busy_since,
        "the event loop": Heartbeat(asyncio.get_running_loop()).busy_since,
    }
    stack.callback(Watchdog(settings.hang_timeout, work).close)
    return Services(
        models=pool,
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
        vocabularies=shared.vocabularies,
        vectors=vectors,
        images=shared.images,
        matrices=matrices,
        store=store,
        store_kind=kind_of_store(settings),
        input_limits=InputLimits(
            LabelLimits(settings.max_labels, settings.max_label_length), settings.max_templates
        ),
        json_limits=_json_limits(settings),
        upload_limits=UploadLimits(
            labels=LabelLimits(settings.max_labelset_labels, settings.max_label_length),
            texts=LabelLimits(settings.max_label_texts, settings.max_label_length),
            templates=settings.max_templates,
            presets=shared.vocabularies,
        ),
        upload_batches=shared.upload_batches,
        fetcher=shared.fetcher,
        limiter=shared.limiter,
        canary=canary,
        explains=settings.explain,
        metrics_on=settings.metrics != "off",
        exposition=shared.exposition,
    )


def _embedder(
    settings: Settings,
    encoder: "AnyEncoder",
    metrics: Metrics,
    stack: contextlib.AsyncExitStack,
    shared: _Shared,
) -> ImageEmbedder:
    """The way from image files to rows of one model; the stack ends it."""
    info = encoder.info
    decoder = Decoder(
        info.image,
        ImageLimits(settings.max_image_bytes, settings.max_image_pixels),
        settings.cores_for_decoding(),
        settings.max_queue + settings.max_batch,
        settings.heic,
        settings.exact_jpeg,
        settings.formats_apart(),
        shared.decoding,
    )
    stack.callback(decoder.close)
    batcher = Batcher(
        encode_images(encoder, functools.partial(metrics.encoded, "image", info.name)),
        BatchPolicy(settings.max_batch, settings.max_queue, info.in_flight),
        model=info.name,
    )
    stack.push_async_callback(_drain, batcher)
    return ImageEmbedder(decoder, batcher, ImageCache(shared.images, info.fingerprint))


async def _loaded(settings: Settings, name: str, beside: "AnyEncoder", room: Room) -> "Encoder":
    """The encoder of a model, from a daemon thread that the server does not wait for at exit."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Encoder] = loop.create_future()
    wanted, made = asyncio.Event(), threading.Event()

    def wait_for_room() -> None:
        loop.call_soon_threadsafe(wanted.set)
        made.wait()
        if future.cancelled():  # nobody waits any more, and no room was made
            raise asyncio.CancelledError

    def settle(encoder: "Encoder | None", error: BaseException | None) -> None:
        wanted.set()
        if future.done():  # nobody waits any more
            if encoder is not None:
                encoder.close()
        elif encoder is not None:
            future.set_result(encoder)
        elif error is not None:
            future.set_exception(error)

    def run() -> None:
        encoder, failure = None, None
        try:
            encoder = load_encoder(settings, name, beside, wait_for_room)
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, encoder, failure)

    threading.Thread(target=run, name="load", daemon=True).start()
    try:
        await wanted.wait()
        if not future.done():
            await room()
    except BaseException:
        future.cancel()
        raise
    finally:
        made.set()
    return await future


def _fetcher(settings: Settings, stack: contextlib.AsyncExitStack) -> Fetcher:
    hosts = tuple(AllowedHost.parse(host) for host in settings.listed("image_url_hosts"))
    policy = FetchPolicy(settings.max_image_bytes, hosts, settings.image_url_timeout)
    return stack.enter_context(contextlib.closing(Fetcher(policy, f"openvocab/{VERSION}")))


async def _drain(batcher: Batcher[Pixels, Floats]) -> None:
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            await batcher.drain()
    except TimeoutError:
        log.error("the encoder did not finish within %s s; its work is abandoned", DRAIN_SECONDS)


def _json_limits(settings: Settings) -> dict[Body, JsonLimits]:
    """So many values that what the other limits allow fits several times, and no more."""
    values = settings.max_labels + settings.max_templates
    shown = values + settings.max_upload_images
    kept = settings.max_labelset_labels + settings.max_templates
    return {
        Body.NONE: JsonLimits(1_000, 1_000),
        Body.IMAGE: JsonLimits(12 * values + 1_000, 8 * values + 1_000),
        Body.UPLOAD: JsonLimits(12 * shown + 1_000, 8 * shown + 1_000),
        Body.LABELSET: JsonLimits(
            settings.max_labelset_prompts + 12 * kept + 1_000, 8 * kept + 1_000
        ),
    }
