"""What the operating system says of this process. Knows nothing of what it does."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from prometheus_client import ProcessCollector

# what bounds the memory of a container: version 2 of control groups, and version 1
LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def process_figures() -> Callable[[], Mapping[str, float]]:
    """A function that reads CPU seconds, memory and open files by their usual names."""
    collector = ProcessCollector(registry=None)

    def read() -> Mapping[str, float]:
        return {s.name: s.value for family in collector.collect() for s in family.samples}

    return read


def memory_limit(files: tuple[Path, ...] = LIMITS) -> int:
    """Bytes that processes here may use together: of the machine, or of their container."""
    limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in files:
        try:
            limit = min(limit, int(file.read_text()))
        except (OSError, ValueError):  # no such bound, or "max"
            continue
    return limit
