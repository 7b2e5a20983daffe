"""The current state of the service's parts, for the metrics. Changes nothing.

The functions here are called from another thread than the event loop's: they only look.
"""

import asyncio
import contextlib
import functools
import importlib.metadata
import math
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from prometheus_client import ProcessCollector

from app import VERSION
from app.api.middleware.admission import Admission
from app.api.services import Services
from app.server.certificates import valid_until
from app.server.cgroups import memory_limit
from app.server.settings import Settings
from app.server.watchdog import Heartbeat
from app.stores.lru import ByteLru
from app.telemetry.instruments import Together
from app.telemetry.metrics import Metrics
from models import EncoderInfo

if TYPE_CHECKING:
    from models.device_state import DeviceMemory
    from models.info import AnyEncoder


MODEL_STATES: Final = ("loaded", "loading", "idle", "failed")

STATES: Final = ("ok", "read-only", "away")


def watch_services(
    metrics: Metrics,
    services: Services,
    settings: Settings,
    admission: Admission,
    draining: Callable[[], bool],
) -> None:
    """The parts of a service that is built, from within its event loop."""
    metrics.watch(
        "openvocab_model_state", "1 for the state of each model: loaded, loading, idle or failed.",
        lambda: {
            (model.name, state): model.state == state
            for model in services.models.states() for state in MODEL_STATES
        },
        "model", "state", together="max",
    )  # fmt: skip
    metrics.watch(
        "openvocab_model_canary_good", "1 while a loaded model answers as it did when loaded.",
        lambda: {
            (parts.encoder.info.name,): parts.canary.good for parts in services.models.loaded()
        },
        "model", together="min",
    )  # fmt: skip
    metrics.watch(
        "openvocab_model_info", "The models that are loaded, and which is the default; always 1.",
        lambda: {
            _about(parts.encoder.info, default=parts is services): 1.0
            for parts in services.models.loaded()
        },
        "model", "default", "fingerprint", "precision", "device", "backend", together="max",
    )  # fmt: skip
    metrics.watch("openvocab_workers_serving", "Processes that are serving.", lambda: 1)
    metrics.watch("openvocab_draining", "Processes that are shutting down.", draining)
    _watch_queues(metrics, services, settings, admission)
    _watch_caches(metrics, services)
    _watch_store(metrics, services)
    _watch_device(metrics, services)


def _watch_queues(
    metrics: Metrics, services: Services, settings: Settings, admission: Admission
) -> None:
    uploads, loaded, watch = services.upload_batches, services.models.loaded, metrics.watch
    in_service = settings.max_queue + settings.max_batch
    watch("openvocab_in_service", "Requests in progress.", lambda: admission.in_service)
    watch("openvocab_max_in_service", "Maximum number of concurrent requests.", lambda: in_service)
    watch("openvocab_pending_bytes", "Bytes of request bodies in memory.", lambda: admission.bytes)
    watch(
        "openvocab_max_pending_bytes", "Maximum bytes of request bodies in memory.",
        lambda: settings.max_pending_bytes,
    )  # fmt: skip
    watch(
        "openvocab_decoding_images", "Images being decoded or waiting for it.",
        lambda: sum(each.embedder.decoder.waiting for each in loaded()),
    )  # fmt: skip
    watch(
        "openvocab_uploads", "Uploads in progress: batches, examples, pictures to calibrate with.",
        lambda: uploads.under_way,
    )  # fmt: skip
    watch("openvocab_max_uploads", "Maximum number of concurrent uploads.", lambda: uploads.at_once)

    def watch_each(name: str, about: str, read: Callable[[Services], float]) -> None:
        watch(
            name, about, lambda: {(each.encoder.info.name,): read(each) for each in loaded()},
            "model",
        )  # fmt: skip

    watch_each(
        "openvocab_queued_images", "Images waiting for a forward pass.",
        lambda each: each.embedder.batcher.queued,
    )  # fmt: skip
    watch_each(
        "openvocab_max_queued_images", "Maximum number of waiting images.",
        lambda _: settings.max_queue,
    )  # fmt: skip
    watch_each(
        "openvocab_queued_prompts", "Prompts of requests waiting to be encoded.",
        lambda each: each.classifier.ensemble.pending,
    )  # fmt: skip
    watch_each(
        "openvocab_max_queued_prompts", "Maximum number of waiting prompts.",
        lambda _: settings.max_text_queue,
    )  # fmt: skip
    metrics.watch(
        "openvocab_oldest_queued_seconds",
        "Seconds the first in the queue has waited; 0 if the queue is empty.",
        lambda: {
            (kind, each.encoder.info.name): waited
            for each in loaded()
            for kind, waited in (
                ("image", _since(each.embedder.batcher.oldest, time.perf_counter)),
                ("text", _since(each.classifier.ensemble.oldest, time.monotonic)),
            )
        },
        "kind",
        "model",
        together="max",
    )
    metrics.follow(
        "openvocab_images_total", "Images decoded, by the format of their file.",
        lambda: {
            (name.lower(), each.encoder.info.name): count
            for each in loaded()
            for name, count in list(each.embedder.decoder.decoded.items())
        },
        "format",
    )  # fmt: skip


def _watch_caches(metrics: Metrics, services: Services) -> None:
    loaded = services.models.loaded

    def caches() -> Mapping[tuple[str, str], ByteLru]:
        """By name, and the model where each has its own."""
        by_name = {("label_vectors", ""): services.vectors.memory, ("images", ""): services.images}
        for each in loaded():
            model = each.encoder.info.name
            by_name["label_lists", model] = each.classifier.ensemble.lists
            by_name["labelsets", model] = each.matrices
        return by_name

    metrics.follow(
        "openvocab_cache_lookups_total", "Lookups in the caches in memory.",
        lambda: {
            (name, result, model): count for (name, model), cache in caches().items()
            for result, count in (("hit", cache.hits), ("miss", cache.misses))
        },
        "cache", "result",
    )  # fmt: skip

    def watch_caches(name: str, about: str, read: Callable[[ByteLru], float]) -> None:
        metrics.watch(name, about, lambda: _per_cache(caches(), read), "cache")

    watch_caches("openvocab_cache_bytes", "Bytes in the memory caches.", lambda cache: cache.bytes)
    watch_caches(
        "openvocab_cache_max_bytes", "Maximum bytes in the memory caches.",
        lambda cache: cache.max_bytes,
    )  # fmt: skip
    watch_caches("openvocab_cache_entries", "Entries in the memory caches.", len)

    def levels() -> Mapping[tuple[str, ...], float]:
        """By level, and the model where each counts for itself."""
        counts: dict[tuple[str, ...], float] = {("memory", ""): services.vectors.memory.hits}
        for each in loaded():
            model = each.encoder.info.name
            counts["store", model] = each.vectors.store_hits
            counts["computed", model] = each.classifier.ensemble.computed
        return counts

    metrics.follow(
        "openvocab_label_vectors_total",
        "Where vectors of labels came from: memory, the store, or the model.",
        levels,
        "level",
    )
    metrics.watch(
        "openvocab_labelsets_in_memory",
        "Label sets ready to use, in the process with the most.",
        lambda: {
            (each.encoder.info.name,): len(each.matrices) for each in loaded()
        }, "model", together="max",
    )  # fmt: skip


def _watch_store(metrics: Metrics, services: Services) -> None:
    store = services.store
    metrics.watch(
        "openvocab_store_away", "1 while the store is degraded.",
        lambda: store.away, together="max",
    )  # fmt: skip
    metrics.watch(
        "openvocab_store_state", "1 for the state of the store, in any process.",
        lambda: {(state,): store.state == state for state in STATES}, "state", together="max",
    )  # fmt: skip


def _watch_device(metrics: Metrics, services: Services) -> None:
    encoder, canary, loaded = services.encoder, services.canary, services.models.loaded
    heart = Heartbeat(asyncio.get_running_loop())
    metrics.watch(
        "openvocab_busy_seconds",
        "Seconds at the same piece of work; beyond OPENVOCAB_HANG_TIMEOUT the process exits.",
        lambda: {
            ("model",): max(_since(each.encoder.busy_since, time.monotonic) for each in loaded()),
            ("decoder",): max(
                _since(each.embedder.decoder.busy_since, time.monotonic) for each in loaded()
            ),
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
    watch_device(metrics, encoder, lambda: [each.encoder for each in loaded()])


def watch_device(
    metrics: Metrics, encoder: "AnyEncoder", loaded: Callable[[], Sequence["AnyEncoder"]]
) -> None:
    """The device of the `loaded` encoders, which is that of `encoder`; none if it is elsewhere."""
    if not isinstance(encoder, _Device):
        return
    metrics.follow(
        "openvocab_device_busy_seconds_total", "Seconds the device spent on each kind of work.",
        lambda: {
            (kind, each.info.name): seconds
            for each in loaded() if isinstance(each, _Device)
            for kind, seconds in each.busy_seconds.items()
        },
        "kind", "model",
    )  # fmt: skip
    # without a GPU there is none: see openvocab_memory_bytes
    memory: Mapping[str, tuple[Together, str]] = {
        "allocated": ("sum", "GPU memory used by tensors."),
        "reserved": ("sum", "GPU memory reserved for tensors."),
        "total": ("max", "Total GPU memory."),
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


def _per_cache(
    caches: Mapping[tuple[str, str], ByteLru], read: Callable[[ByteLru], float]
) -> Mapping[tuple[str, ...], float]:
    totals: dict[tuple[str, ...], float] = {}
    for (name, _), cache in caches.items():
        totals[name,] = totals.get((name,), 0.0) + read(cache)
    return totals


def _about(info: EncoderInfo, *, default: bool) -> tuple[str, ...]:
    about = (info.fingerprint, info.precision, info.device, info.backend)
    return (info.name, "true" if default else "false", *about)


def _memory(device: _Device, name: str) -> float | None:
    return getattr(device.memory(), name, None)


def _since(begun: float | None, clock: Callable[[], float]) -> float:
    return 0.0 if begun is None else max(0.0, clock() - begun)


def process_figures() -> Callable[[], Mapping[str, float]]:
    """A function that reads CPU seconds, memory and open files by their usual names."""
    collector = ProcessCollector(registry=None)

    def read() -> Mapping[str, float]:
        return {s.name: s.value for family in collector.collect() for s in family.samples}

    return read


# a line of proc(5): of a page that n processes share an nth
SHARE: Final = re.compile(r"^Pss: +(\d+) kB$", re.MULTILINE)
# seconds between two looks: the kernel visits each page, some 20 ms for a GB
MEMORY_EVERY: Final = 30.0


def memory_held(
    figures: Callable[[], Mapping[str, float]],
    process: Path = Path("/proc/self"),
    *,
    children: bool = False,
) -> Callable[[], float | None]:
    """A function that reads this process's part of memory; all that is resident off Linux.

    With `children` the parts of processes that it started count, too: decoders have no page of
    metrics of their own.
    """
    last: tuple[float, float | None] = (-math.inf, None)

    def read() -> float | None:
        nonlocal last
        now = time.monotonic()
        if now - last[0] >= MEMORY_EVERY:
            own = _share(process)
            value = figures().get(RESIDENT) if own is None else own
            if children and value is not None:
                value += sum(_share(process.parent / child) or 0.0 for child in _children(process))
            last = now, value
        return last[1]

    return read


def _share(process: Path) -> float | None:
    """Bytes that a process holds; None where it has ended or the system does not say."""
    try:
        share = SHARE.search((process / "smaps_rollup").read_text(encoding="utf-8"))
    except OSError:
        return None
    return None if share is None else int(share[1]) * 1024.0


def _children(process: Path) -> list[str]:
    """Process ids; each thread's are listed apart, and a thread may end meanwhile."""
    found: list[str] = []
    for file in process.glob("task/*/children"):
        with contextlib.suppress(OSError):
            found += file.read_text(encoding="ascii").split()
    return found


RESIDENT: Final = "process_resident_memory_bytes"
# names that every exporter uses, how those of several processes become one, and their meaning
PROCESS: Final[Mapping[str, tuple[Together, str]]] = {
    RESIDENT: ("sum", "Resident memory; shared pages count in each."),
    "process_virtual_memory_bytes": ("sum", "Virtual memory."),
    "process_open_fds": ("max", "Open file descriptors, in the process with the most."),
    "process_max_fds": ("min", "Maximum number of open file descriptors of a process."),
}
START: Final = "process_start_time_seconds"
CPU: Final = "process_cpu_seconds_total"


def watch_process(
    metrics: Metrics, settings: Settings, *, first: bool, children: bool = False
) -> None:
    """What the operating system says, and what was installed and set.

    The `first` process of a server is there for as long as the server is. `children` counts the
    memory of processes that this one starts, for they report nothing themselves.
    """
    figures = process_figures()
    for name, (together, about) in PROCESS.items():
        metrics.watch(name, about, functools.partial(_figure, figures, name), together=together)
    metrics.follow(CPU, "CPU seconds, in user and system mode.", lambda: figures()[CPU])
    started = figures().get(START) if first else None
    metrics.watch(START, "When the server started.", lambda: started, together="min")
    metrics.watch(
        "openvocab_memory_bytes",
        "Memory of all processes, decoders included; pages that they share count once.",
        memory_held(figures, children=children),
    )  # fmt: skip
    metrics.watch(
        "openvocab_memory_limit_bytes", "Memory of the machine, or of the container or service.",
        memory_limit, together="min",
    )  # fmt: skip
    metrics.watch(
        "openvocab_workers", "Processes configured to serve.", lambda: settings.workers,
        together="max",
    )  # fmt: skip
    metrics.info("openvocab_build_info", "What is installed; always 1.", {
        "version": VERSION,
        "python": platform.python_version(),
        "torch": _version("torch"),
        "openvino": _version("openvino"),
    })  # fmt: skip


def watch_certificate(metrics: Metrics, settings: Settings) -> None:
    """The certificate of a process that serves: it reads the file when it starts, and never again.

    One that only watches others would go on with the certificate that was there before them.
    """
    file = settings.tls_cert_file
    until = None if file is None else valid_until(file)
    metrics.watch(
        "openvocab_certificate_expiry_timestamp_seconds",
        "Expiry time of the certificate served; none without TLS.",
        lambda: until,
        together="min",
    )


def _version(package: str) -> str:
    """Empty where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _figure(read: Callable[[], Mapping[str, float]], name: str) -> float | None:
    return read().get(name)
