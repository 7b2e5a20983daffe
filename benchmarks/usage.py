"""What a process and its children used, from /proc. Knows nothing of what they do."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

MB = 1e6

# CPU time in half a second below which a server does nothing but wait
IDLE_SECONDS = 0.1
SETTLE_SECONDS = 120.0


def tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            children.setdefault(int(fields[1]), []).append(int(folder.name))

    def below(process: int) -> Iterator[int]:
        yield process
        for child in children.get(process, ()):
            yield from below(child)

    return list(below(pid))


def ended(pid: int) -> bool:
    """Whether a process is gone with its sockets, even if nobody has taken note of it."""
    fields = _stat(pid)
    return not fields or fields[0] == "Z"


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of the process and its descendants."""
    ticks = 0
    for process in tree(pid):
        if fields := _stat(process):
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def settle(pid: int) -> None:
    """Wait until the process and its descendants are idle, for SETTLE_SECONDS at most.

    Clients that left may have left work behind, which the next measurement would meet.
    """
    end = time.monotonic() + SETTLE_SECONDS
    spent = cpu_seconds(pid)
    while time.monotonic() < end:
        time.sleep(0.5)
        before, spent = spent, cpu_seconds(pid)
        if spent - before < IDLE_SECONDS:
            return


def peak_mb(pid: int) -> float:
    """The largest resident sizes so far, added up over the processes."""
    return sum(_status(process, "VmHWM") for process in tree(pid))


def resident_mb(pid: int) -> float:
    """The resident sizes now, added up over the processes."""
    return sum(_status(process, "VmRSS") for process in tree(pid))


def proportional_mb(pid: int) -> float:
    """The proportional sizes now: a page that n processes share counts for an nth in each."""
    return sum(_field(Path(f"/proc/{process}/smaps_rollup"), "Pss") for process in tree(pid))


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on (proc(5)), none of a process that is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _status(pid: int, name: str) -> float:
    return _field(Path(f"/proc/{pid}/status"), name)


def _field(file: Path, name: str) -> float:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0.0
    return sum(float(line.split()[1]) * 1024 / MB for line in lines if line.startswith(f"{name}:"))
