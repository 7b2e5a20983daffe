"""A request that has ended leaves nothing behind that only the garbage collector would find."""

import asyncio
import base64
import gc
import json
from collections import Counter
from typing import Any

import pytest

from app.server.main import create_app
from app.server.settings import Settings
from models.encoder import Encoder

BOUNDARY = "----between"


def _form(image: bytes) -> bytes:
    lines = (
        f"--{BOUNDARY}",
        'Content-Disposition: form-data; name="labels"',
        "",
        "cat, dog",
        f"--{BOUNDARY}",
        'Content-Disposition: form-data; name="image"; filename="a.png"',
        "",
        "",
    )
    return "\r\n".join(lines).encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()


def _json(image: bytes) -> bytes:
    return json.dumps(
        {"labels": ["cat", "dog"], "image": base64.b64encode(image).decode()}
    ).encode()


async def _classify(app: Any, body: bytes, kind: str) -> int:
    """The status of one request whose body comes in two pieces."""
    pieces, messages = [body[:100], body[100:]], []

    async def receive() -> dict[str, Any]:
        if not pieces:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/classify",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
    }
    await app(scope, receive, send)
    return int(messages[0]["status"])


@pytest.mark.parametrize("kind", ["form", "json", "broken form"])
def test_no_cycles_are_left_of_a_request(pictogram: Encoder, samples: Any, kind: str) -> None:
    image = samples["cat"].read_bytes()
    body = _json(image) if kind == "json" else _form(image)
    if kind == "broken form":
        body = body[:-40]
    content_type = (
        "application/json" if kind == "json" else f"multipart/form-data; boundary={BOUNDARY}"
    )
    app = create_app(Settings(model="pictogram", store_url="memory://"), pictogram)

    async def left_by_ten() -> Counter[str]:
        async with app.router.lifespan_context(app):
            statuses = {await _classify(app, body, content_type) for _ in range(3)}
            assert statuses == {400 if kind == "broken form" else 200}
            gc.collect()
            gc.disable()
            gc.set_debug(gc.DEBUG_SAVEALL)
            try:
                for _ in range(10):
                    await _classify(app, body, content_type)
                gc.collect()
            finally:
                gc.set_debug(0)
                gc.enable()
            names = Counter(type(thing).__qualname__ for thing in gc.garbage)
            gc.garbage.clear()
            return names

    left = asyncio.run(left_by_ten())
    # what happens beside requests may leave a thing or two, but not one for each of them
    assert not {name: count for name, count in left.items() if count >= 10}
