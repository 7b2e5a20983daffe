"""What the parts of the service hold and do now, for the metrics. Changes nothing.

The functions here are called from another thread than the event loop's: they only look.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from app.admission import Admission
from app.deps import Services
from app.instruments import Together
from app.metrics import Metrics
from app.settings import Settings
from app.stores.lru import ByteLru
from app.watchdog import Heartbeat

if TYPE_CHECKING:
    from models.memory import DeviceMemory

STATES: Final = ("ok", "read-only", "away")


def watch_services(
    metrics: Metrics,
    services: Services,
    settings: Settings,
    admission: Admission,
    draining: Callable[[], bool],
) -> None:
    """The parts of a service that is built, from within its event loop."""
    info = services.encoder.info
    metrics.info("openvocab_model_info", "The model that is served; always 1.", {
        "model": info.name,
        "fingerprint": info.fingerprint,
        "precision": info.precision,
        "device": info.device,
        "backend": info.backend,
    })  # fmt: skip
    metrics.watch("openvocab_workers_serving", "Processes that serve.", lambda: 1)
    metrics.watch("openvocab_draining", "Processes that are told to end.", draining)
    _watch_queues(metrics, services, settings, admission)
    _watch_caches(metrics, services)
    _watch_store(metrics, services)
    _watch_device(metrics, services)


def _watch_queues(
    metrics: Metrics, services: Services, settings: Settings, admission: Admission
) -> None:
    batcher, ensemble = services.classifier.batcher, services.classifier.ensemble
    decoder, uploads = services.classifier.decoder, services.upload_batches
    in_service = settings.max_queue + settings.max_batch
    for name, about, read in (
        ("in_service", "Requests being worked on.", lambda: admission.in_service),
        ("max_in_service", "Requests that may be worked on at once.", lambda: in_service),
        ("pending_bytes", "Bytes of bodies held.", lambda: admission.bytes),
        ("max_pending_bytes", "Bytes that may be held.", lambda: settings.max_pending_bytes),
        ("queued_images", "Images that wait for a forward pass.", lambda: batcher.queued),
        ("max_queued_images", "Images that may wait.", lambda: settings.max_queue),
        ("queued_prompts", "Prompts of requests that wait to be encoded.",
         lambda: ensemble.pending),
        ("max_queued_prompts", "Prompts that may wait.", lambda: settings.max_text_queue),
        ("decoding_images", "Images that are or wait to be decoded.", lambda: decoder.waiting),
        ("uploads", "Batches that are being uploaded.", lambda: uploads.under_way),
        ("max_uploads", "Batches that may be uploaded at once.", lambda: uploads.at_once),
    ):  # fmt: skip
        metrics.watch(f"openvocab_{name}", about, read)
    metrics.watch(
        "openvocab_oldest_queued_seconds",
        "Seconds that the first of the queue has waited; 0 without any.",
        lambda: {
            ("image",): _since(batcher.oldest, time.perf_counter),
            ("text",): _since(ensemble.oldest, time.monotonic),
        },
        "kind",
        together="max",
    )
    metrics.follow(
        "openvocab_images_total", "Images decoded, by the format of their file.",
        lambda: {(name.lower(),): count for name, count in list(decoder.decoded.items())},
        "format",
    )  # fmt: skip


def _watch_caches(metrics: Metrics, services: Services) -> None:
    ensemble, vectors = services.classifier.ensemble, services.vectors
    caches = {
        "label_vectors": vectors.memory,
        "label_lists": ensemble.lists,
        "labelsets": services.matrices,
        "images": services.images,
    }
    metrics.follow(
        "openvocab_cache_lookups_total", "What was asked of the caches in memory.",
        lambda: {
            key: count for name, cache in caches.items()
            for key, count in (((name, "hit"), cache.hits), ((name, "miss"), cache.misses))
        },
        "cache", "result",
    )  # fmt: skip
    held: Mapping[str, tuple[str, Callable[[ByteLru], float]]] = {
        "bytes": ("Bytes that the caches in memory hold.", lambda cache: cache.bytes),
        "max_bytes": ("Bytes that they may hold.", lambda cache: cache.max_bytes),
        "entries": ("Entries that they hold.", len),
    }
    for name, (about, read) in held.items():
        metrics.watch(
            f"openvocab_cache_{name}", about, functools.partial(_each, caches, read), "cache"
        )
    metrics.follow(
        "openvocab_label_vectors_total",
        "Where vectors of labels came from: memory, the store, or the model.",
        lambda: {
            ("memory",): vectors.memory.hits,
            ("store",): vectors.store_hits,
            ("computed",): ensemble.computed,
        },
        "level",
    )
    metrics.watch(
        "openvocab_labelsets_in_memory", "Label sets that are ready to be used, in the process "
        "with the most.", lambda: len(services.matrices), together="max",
    )  # fmt: skip


def _watch_store(metrics: Metrics, services: Services) -> None:
    store = services.store
    metrics.watch(
        "openvocab_store_away", "1 while the store does not do all that it should.",
        lambda: store.away, together="max",
    )  # fmt: skip
    metrics.watch(
        "openvocab_store_state", "1 for what the store can do, for any process.",
        lambda: {(state,): store.state == state for state in STATES}, "state", together="max",
    )  # fmt: skip


def _watch_device(metrics: Metrics, services: Services) -> None:
    encoder, canary, decoder = services.encoder, services.canary, services.classifier.decoder
    heart = Heartbeat(asyncio.get_running_loop())
    metrics.watch(
        "openvocab_busy_seconds",
        "Seconds at the same piece of work; past OPENVOCAB_HANG_TIMEOUT the process ends.",
        lambda: {
            ("model",): _since(encoder.busy_since, time.monotonic),
            ("decoder",): _since(decoder.busy_since, time.monotonic),
            ("event_loop",): _since(heart.busy_since(), time.monotonic),
        },
        "part",
        together="max",
    )
    metrics.watch(
        "openvocab_canary_good", "1 while the model answers as it did at the start.",
        lambda: canary.good, together="min",
    )  # fmt: skip
    metrics.watch(
        "openvocab_canary_age_seconds", "Seconds since the model last did.",
        lambda: _since(canary.good_at, time.monotonic), together="max",
    )  # fmt: skip
    if not isinstance(encoder, _Device):
        return  # it computes elsewhere
    metrics.follow(
        "openvocab_device_busy_seconds_total", "Seconds that the device spent on a kind of work.",
        lambda: {(kind,): seconds for kind, seconds in encoder.busy_seconds.items()}, "kind",
    )  # fmt: skip
    # without a GPU there is none: see process_resident_memory_bytes
    memory: Mapping[str, tuple[Together, str]] = {
        "allocated": ("sum", "Memory of the GPU that tensors hold."),
        "reserved": ("sum", "Memory of the GPU that processes keep for tensors."),
        "total": ("max", "Memory that the GPU has."),
    }
    for name, (together, about) in memory.items():
        metrics.watch(
            f"openvocab_device_memory_{name}_bytes", about,
            functools.partial(_memory, encoder, name), together=together,
        )  # fmt: skip


@runtime_checkable
class _Device(Protocol):
    """An encoder with a device in this process."""

    @property
    def busy_seconds(self) -> Mapping[str, float]: ...

    def memory(self) -> "DeviceMemory | None": ...


def _each(
    caches: Mapping[str, ByteLru], read: Callable[[ByteLru], float]
) -> Mapping[tuple[str, ...], float]:
    return {(name,): read(cache) for name, cache in caches.items()}


def _memory(device: _Device, name: str) -> float | None:
    return getattr(device.memory(), name, None)


def _since(begun: float | None, clock: Callable[[], float]) -> float:
    return 0.0 if begun is None else max(0.0, clock() - begun)
