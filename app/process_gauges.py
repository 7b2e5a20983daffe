"""What the operating system says of a process, and what is installed, for the metrics.

Knows nothing of what the process does.
"""

import functools
import importlib.metadata
import platform
from collections.abc import Callable, Mapping
from typing import Final

from app.building import VERSION
from app.certificates import valid_until
from app.instruments import Together
from app.metrics import Metrics
from app.process import memory_limit, process_figures
from app.settings import Settings

# names that every exporter uses, how those of several processes become one, and their meaning
PROCESS: Final[Mapping[str, tuple[Together, str]]] = {
    "process_resident_memory_bytes": ("sum", "Resident memory; shared pages count in each."),
    "process_virtual_memory_bytes": ("sum", "Virtual memory."),
    "process_open_fds": ("max", "Open file descriptors of the process with the most."),
    "process_max_fds": ("min", "File descriptors that a process may have open."),
}
START: Final = "process_start_time_seconds"
CPU: Final = "process_cpu_seconds_total"


def watch_process(metrics: Metrics, settings: Settings, *, first: bool) -> None:
    """What the operating system says, and what was installed and set.

    The `first` process of a server is there for as long as the server is.
    """
    figures = process_figures()
    for name, (together, about) in PROCESS.items():
        metrics.watch(name, about, functools.partial(_figure, figures, name), together=together)
    metrics.follow(CPU, "CPU seconds, in user and system mode.", lambda: figures()[CPU])
    started = figures().get(START) if first else None
    metrics.watch(START, "When the server started.", lambda: started, together="min")
    metrics.watch(
        "openvocab_memory_limit_bytes", "Memory of the machine, or of the container.",
        memory_limit, together="min",
    )  # fmt: skip
    metrics.watch(
        "openvocab_workers", "Processes that are to serve.", lambda: settings.workers,
        together="max",
    )  # fmt: skip
    file = settings.tls_cert_file
    until = None if file is None else valid_until(file)
    metrics.watch(
        "openvocab_certificate_expiry_timestamp_seconds", "When the certificate that is served "
        "ends; none without TLS.", lambda: until, together="min",
    )  # fmt: skip
    metrics.info("openvocab_build_info", "What is installed; always 1.", {
        "version": VERSION,
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
    })  # fmt: skip


def _figure(read: Callable[[], Mapping[str, float]], name: str) -> float | None:
    return read().get(name)
