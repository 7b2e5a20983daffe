"""Start the stand-ins of this part as processes. Knows nothing of what they are measured for."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.checkpoint import open_clip_folder
from benchmarks.servers import Server, free_port, serving


@contextlib.contextmanager
def stand_in(kind: str, folder: Path, *arguments: str, model: str = "") -> Iterator[Server]:
    """One of stand_ins.py on a free port; without a model named, the random ViT-B-32."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.limit.stand_ins", kind, "--port", str(port)]
    chosen = {
        **os.environ,
        "OPENVOCAB_MODEL": model or f"local-dir:{open_clip_folder()}",
        "OPENVOCAB_STORE_URL": "memory://",
        "OPENVOCAB_IMAGE_CACHE_BYTES": "0",
    }
    ready = "/" if kind == "echo" else "/readyz"
    log = folder / f"{kind}-{port}.log"
    with serving([*command, *arguments], port, log, chosen, ready) as server:
        yield server
