"""Servers that measurements need beside the real one: a process of its own, run by the harness.

    python -m benchmarks.limit.stand_ins KIND --port PORT

`echo` reads a body and answers JSON of a usual size; `counting` is the service with an encoder that
counts its batches, told at /batches; `free` is the service with an encoder that costs nothing.
"""

import argparse
import json
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final, cast

import numpy as np
import uvicorn
from fastapi import FastAPI

from app.server.build import load_encoder
from app.server.main import create_app
from app.server.run import tune_interpreter, uvicorn_config
from app.server.settings import Settings
from models.encoder import Encoder
from models.info import Floats, Pixels

ANSWER: Final = json.dumps({"predictions": [{"label": "a" * 10, "score": 0.1}] * 10}).encode()


class Counting:
    """The encoder it is given, counting."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.batches = 0
        self.images = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def submit_images(self, images: Sequence[Pixels]) -> Future[Floats]:
        """Counted, then encoded."""
        self.batches += 1
        self.images += len(images)
        return self._encoder.submit_images(images)


class Free:
    """Says of itself what the encoder says, and answers every image and text with one vector."""

    def __init__(self, encoder: Encoder) -> None:
        self.info = encoder.info
        self.busy_since = None
        self.slowest = 0.0
        self._row = np.full(self.info.embedding_width, self.info.embedding_width**-0.5, np.float32)

    def submit_images(self, images: Sequence[Pixels]) -> Future[Floats]:
        """At once."""
        return self._filled(len(images))

    def submit_texts(self, prompts: Sequence[str]) -> Future[Floats]:
        """At once."""
        return self._filled(len(prompts))

    def _filled(self, count: int) -> Future[Floats]:
        future: Future[Floats] = Future()
        future.set_result(np.tile(self._row, (count, 1)))
        return future


async def echo(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """The least that an ASGI application can do with a body."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


def service(kind: str) -> FastAPI:
    """The application around a stand-in for its encoder."""
    settings = Settings()
    real = load_encoder(settings)
    if kind == "free":
        return create_app(settings, cast(Encoder, Free(real)))
    counting = Counting(real)
    app = create_app(settings, cast(Encoder, counting))

    @app.get("/batches")
    def batches() -> dict[str, int]:
        return {"batches": counting.batches, "images": counting.images}

    return app


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=["echo", "counting", "free"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--loop", default="auto")
    parser.add_argument("--http", default="auto")
    options = parser.parse_args()
    if options.kind != "echo":
        app = service(options.kind)
        tune_interpreter()  # as `openvocab serve` does
        config = uvicorn_config(app, Settings())
        config.port = options.port
        uvicorn.Server(config).run()
        return
    uvicorn.run(
        echo,
        port=options.port,
        log_level="warning",
        access_log=False,
        loop=options.loop,
        http=options.http,
    )


if __name__ == "__main__":
    main()
