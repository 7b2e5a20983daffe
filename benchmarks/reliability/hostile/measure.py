"""Decode every bomb in a process of its own; what each costs.

    python -m benchmarks.reliability.hostile.measure [--write]

Prints it, or writes benchmarks/results/bombs.json as well.
"""

import json
import os
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from app.errors import Problem
from app.images.decode import Decoder, decode
from app.images.limits import ImageLimits
from benchmarks.record import publish
from benchmarks.reliability.hostile.bombs import bombs
from benchmarks.usage import peak_mb, resident_mb
from models import ImageSpec

SPEC = ImageSpec(224, 224, "shortest", "bicubic", 0)


@dataclass(frozen=True, slots=True)
class Cost:
    """What decoding one file took: processor time, and memory beside the file itself."""

    name: str
    bytes: int
    cpu_seconds: float
    memory_mb: float
    outcome: str


def cost(name: str) -> Cost:
    """Decode a bomb in a process of its own, so that its memory is its own, too."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, json.dumps(asdict(_cost(name))).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    return Cost(**json.loads(text)) if text else Cost(name, 0, 0, 0, f"it died with {status}")


def _cost(name: str) -> Cost:
    data = bombs()[name]()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of what made the file
    before, start = resident_mb(os.getpid()), time.process_time()
    try:
        decode(data, SPEC, ImageLimits())
        outcome = "decoded"
    except Problem as problem:
        outcome = f"{problem.status}: {problem.detail}"
    except BaseException as error:
        outcome = repr(error)
    spent, peak = time.process_time() - start, peak_mb(os.getpid())
    return Cost(name, len(data), round(spent, 2), round(max(0, peak - before)), outcome)


def main() -> None:
    warnings.simplefilter("error")
    Decoder(SPEC, ImageLimits(), 1).close()  # ignores the warnings that the service ignores
    document = {
        "what": "what decoding files costs that are made to cost much",
        "date": datetime.now(UTC).date().isoformat(),
        "pillow": metadata.version("pillow"),
        "bombs": [asdict(cost(name)) for name in bombs()],
    }
    if "--write" in sys.argv:
        publish("bombs", document)
    else:
        print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
