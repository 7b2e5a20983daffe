"""What a request costs beside encoder, decode and transport, each step alone. Knows no server."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from starlette.requests import Request

from app.api.classify import read_classify
from app.api.fields import InputLimits
from app.api.results import answer_of, render
from app.classify import scoring
from app.classify.batching import Batcher, BatchPolicy
from app.classify.labels import LabelLimits
from app.classify.query import Classification, Image, Part, Prediction, Result
from app.images.views import Cut
from benchmarks.bodies import MULTIPART, RAW, Bodies, form
from benchmarks.sides import FIELDS, LABELS

TIMES: Final = 200
# what uvicorn hands over at once
CHUNK: Final = 65_536


def pieces_alone(image: bytes) -> dict[str, float]:
    """CPU-seconds of one request by step."""
    body = form(image, FIELDS)
    return {
        "reading the form": asyncio.run(_cpu_seconds_each(lambda: _read_form(body))),
        "SHA-256 of the file": asyncio.run(_cpu_seconds_each(lambda: _hash(image))),
        "hand-over to a decoding thread and back": asyncio.run(_hand_over()),
        "hand-over to the batcher and back": asyncio.run(_batching()),
        "from cosines to JSON": asyncio.run(_cpu_seconds_each(_answer)),
    }


def cpu_of_reading(bodies: Bodies) -> float:
    """CPU-seconds to get image and query out of the first of these bodies."""
    body = bodies.first(1)[0]
    return asyncio.run(_cpu_seconds_each(lambda: _read_form(body, bodies.kind)))


async def _cpu_seconds_each(step: Callable[[], Awaitable[object]]) -> float:
    await step()
    start = time.process_time()
    for _ in range(TIMES):
        await step()
    return (time.process_time() - start) / TIMES


async def _read_form(body: bytes, kind: str = MULTIPART) -> None:
    chunks = [body[at : at + CHUNK] for at in range(0, len(body), CHUNK)]

    async def receive() -> dict[str, Any]:
        chunk = chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
    query = b"" if kind != RAW else b"labels=" + ",".join(LABELS).encode()
    scope = {
        "type": "http",
        "method": "POST",
        "headers": headers,
        "query_string": query,
        "path": "/",
    }
    await read_classify(Request(scope, receive), InputLimits(LabelLimits(1_000, 200), 200))


async def _hash(image: bytes) -> None:
    hashlib.sha256(image).hexdigest()


async def _hand_over() -> float:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as threads:
        return await _cpu_seconds_each(lambda: loop.run_in_executor(threads, len, b""))


async def _batching() -> float:
    async def run(batch: Any) -> Any:
        await asyncio.sleep(0)
        return batch

    batcher: Batcher[int, int] = Batcher(run, BatchPolicy())
    return await _cpu_seconds_each(lambda: batcher.submit(0))


async def _answer() -> None:
    cosines = np.linspace(-0.1, 0.3, len(LABELS), dtype=np.float32)
    scores = scoring.softmax(cosines, 100.0)
    result = Result(
        templates="imagenet",
        labelset=None,
        labelset_version=None,
        cached=len(LABELS),
        predictions=tuple(
            Prediction(LABELS[i], float(scores[i]), float(cosines[i]))
            for i in scoring.rank(scores, len(LABELS))
        ),
        abstained=False,
        warnings=(),
    )
    image = Image(640, 480, "0" * 64, cached=False)
    render(
        answer_of(Classification("ViT-B-32", image, (Part(Cut(0, 0, 640, 480), (result,)),))), "*/*"
    )
