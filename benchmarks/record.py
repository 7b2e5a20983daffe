"""A result: what was measured, in figures that a page can show; one file each. Knows no server."""

import json
import os
import platform
import re
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from benchmarks.folders import RESULTS
from models import processor

VERSIONS: Final = (
    "torch", "open_clip_torch", "numpy", "pillow", "fastapi", "uvicorn", "uvloop", "httptools",
)  # fmt: skip

Cell = str | int | float | None
Points = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines through points (x, y), by name."""

    x: str
    y: str
    series: dict[str, Points]
    log_x: bool = True
    log_y: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """One table with what belongs to it; `bars` holds values by the names in bars.py."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)
    bars: dict[str, float] = field(default_factory=dict)
    plot: Plot | None = None


def write(part: str, piece: str, result: Result, seconds: float, folder: Path = RESULTS) -> Path:
    """Write PART-PIECE.json."""
    path = folder / f"{part}-{piece}.json"
    document = {
        "part": part,
        "piece": piece,
        "command": f"python -m benchmarks.run --only {part}.{piece}",
        "date": datetime.now(UTC).date().isoformat(),
        "took_seconds": round(seconds, 1),
        "machine": machine(),
        "versions": versions(),
        **asdict(result),
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return path


def publish(name: str, document: dict[str, Any]) -> None:
    """Print a document, and write it as NAME.json."""
    text = json.dumps(document, indent=2)
    print(text)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def read(part: str, piece: str, folder: Path = RESULTS) -> dict[str, Any] | None:
    """What was written, None where it never was."""
    path = folder / f"{part}-{piece}.json"
    if not path.exists():
        return None
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def machine() -> dict[str, Any]:
    """The processor, its cores that may be used, the memory and the kernel."""
    text = Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*: (.+)", text)
    flags = re.search(r"(?:flags|Features)\s*: (.+)", text)
    supported = set(flags.group(1).split()) if flags else set()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": name.group(1) if name else " ".join((platform.machine(), *processor.model())),
        "instructions": [
            x
            for x in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "sve", "i8mm", "bf16")
            if x in supported
        ],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 1e9),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide the figures."""
    return {"python": platform.python_version(), **{x: metadata.version(x) for x in VERSIONS}}
