"""How many CPU cores this process may use: affinity and the container's quota. Plain facts."""

import math
import os
from pathlib import Path
from typing import Final

# the quota of a control group, version 2 (one file) and version 1 (quota, period)
QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
QUOTA_V1: Final = (
    Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
    Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)


def available_cores(quota: Path = QUOTA, quota_v1: tuple[Path, Path] = QUOTA_V1) -> int:
    """Cores in the affinity mask, or fewer where a control group's quota is lower; at least 1.

    A quota of two and a half cores counts as three: threads that wait for their turn cost little,
    a core that nobody uses is lost.
    """
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = there or 1
    limit = _quota(quota, quota_v1)
    return cores if limit is None else max(1, min(cores, math.ceil(limit)))


def is_limited() -> bool:
    """Whether there are fewer than the machine has."""
    return available_cores() < (os.cpu_count() or 1)


def _quota(file: Path, files_v1: tuple[Path, Path]) -> float | None:
    """Cores that the quota allows; None if there is no quota."""
    try:
        if file.exists():
            quota, period = file.read_text().split()
        else:
            quota, period = (file.read_text().strip() for file in files_v1)
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError):
        return None
