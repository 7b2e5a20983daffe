"""One case of threads.py in a process of its own: passes of the image tower, timed on request.

Each line on standard input is the seconds to measure; the answer is a line of JSON: the median
seconds of a pass, cores busy, minor page faults a pass, and how many threads torch uses there.
"""

import contextlib
import json
import os
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import open_clip
import torch

from app.images.decode import decode
from app.images.limits import ImageLimits
from app.server.run import SWITCH_SECONDS
from benchmarks.pictures import SMALL, jpeg
from models import ImageSpec

SPEC = ImageSpec(224, 224, "shortest", "bicubic", 0)


def passes(model: Any, *, record: bool) -> Callable[[], int]:
    """A pass at batch 1, wherever it is called; returns the number of threads torch uses there."""
    pixels = torch.zeros(1, 3, 224, 224, dtype=torch.bfloat16)

    def once() -> int:
        with torch.enable_grad() if record else torch.inference_mode():
            model.encode_image(pixels)
        return torch.get_num_threads()

    return once


@contextlib.contextmanager
def beside(work: Callable[[], object] | None) -> Iterator[None]:
    """`work` again and again in a thread of its own."""
    ended = threading.Event()

    def run() -> None:
        while work and not ended.is_set():
            work()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def measured(once: Callable[[], int], seconds: float) -> dict[str, Any]:
    """Call it for about `seconds`."""
    times: list[float] = []
    used = 0
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    cpu, wall_start = time.process_time(), time.perf_counter()
    while time.perf_counter() - wall_start < seconds or not times:
        start = time.perf_counter()
        used = once()
        times.append(time.perf_counter() - start)
    wall = time.perf_counter() - wall_start
    return {
        "seconds": statistics.median(times),
        "cores": (time.process_time() - cpu) / wall,
        "faults": (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) / len(times),
        "threads": used,
    }


def main() -> None:
    """Answer lines until there are no more."""
    mode, _, meanwhile = sys.argv[1].partition("+")
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{os.environ['MODEL']}")
    model = model.eval().bfloat16()
    once = passes(model, record=mode == "grad")
    if meanwhile == "quick":
        sys.setswitchinterval(SWITCH_SECONDS)
    data = jpeg(SMALL, 0)
    extra: dict[str, Callable[[], object]] = {
        "busy": lambda: sum(range(1000)),
        "quick": lambda: sum(range(1000)),
        "decode": lambda: decode(data, SPEC, ImageLimits()),
    }
    with ThreadPoolExecutor(1) as thread:

        def there() -> int:
            if mode == "turns":
                once()
            return thread.submit(once).result()

        work = once if mode == "main" else there
        work()
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            with beside(extra.get(meanwhile)):
                answer = measured(work, float(line))
            if mode == "turns":
                answer["seconds"] /= 2
                answer["faults"] /= 2
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
