"""How many CPU cores this process may use: affinity and quota. Plain facts."""

import math
import os

from app.server.cgroups import cpu_quota


def available_cores() -> int:
    """Cores in the affinity mask, or fewer where a control group's quota is lower; at least 1.

    A quota of two and a half cores counts as three: threads that wait for their turn cost little,
    a core that nobody uses is lost.
    """
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, math.ceil(min(there or 1, cpu_quota())))


def is_limited() -> bool:
    """Whether there are fewer than the machine has."""
    return available_cores() < (os.cpu_count() or 1)
