"""Limits that control groups set for this process: CPU quota and memory. Plain facts.

A limit counts whether it is that of the process's own group or of a group above: systemd keeps the
one of a service at `system.slice/NAME.service`, a container engine the one of a container at the
root that the container sees. Versions 2 and 1 are read alike; they differ in the names of files.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")
MEMBERSHIP: Final = Path("/proc/self/cgroup")


def cpu_quota(root: Path = ROOT, membership: Path = MEMBERSHIP) -> float:
    """Cores that the lowest quota allows; infinite if there is none."""
    quotas = [math.inf]
    for group in _groups("cpu", root, membership):
        try:
            if (group / "cpu.max").exists():
                quota, period = _text(group / "cpu.max").split()
            else:
                quota = _text(group / "cpu.cfs_quota_us")
                period = _text(group / "cpu.cfs_period_us")
            if quota not in ("max", "-1"):
                quotas.append(int(quota) / int(period))
        except (OSError, ValueError, ZeroDivisionError):  # no such limit
            continue
    return min(quotas)


def memory_limit(root: Path = ROOT, membership: Path = MEMBERSHIP) -> float:
    """Memory of the machine in bytes, or the lowest limit if that is lower; infinite if unknown.

    `memory.high` counts as `memory.max` does: there the kernel slows a process down until it hardly
    runs, and does not kill it.
    """
    limits = [math.inf]
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for group in _groups("memory", root, membership):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            try:
                limits.append(int(_text(group / name)))
            except (OSError, ValueError):  # no such limit, or "max"
                continue
    return min(limits)


def _groups(controller: str, root: Path, membership: Path) -> Iterator[Path]:
    """Directories of the process's group and of those above, some of which may not exist.

    Version 2 has one hierarchy, at `root`; version 1 one for each controller, below it.
    """
    paths = {root: "", root / controller: ""}
    try:
        lines = _text(membership).splitlines()
    except (OSError, ValueError):  # no control groups
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            paths[root] = path
        elif controller in controllers.split(","):
            paths[root / controller] = path
    for base, path in paths.items():
        group = base / path.lstrip("/")
        # a path that climbs is one outside of the container, whose limits cannot be seen
        inside = [] if ".." in group.parts else [group, *group.parents]
        yield from {base, *(each for each in inside if each.is_relative_to(base))}


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace").strip()
