"""Places for uploads: no key takes them all, and no slow sender keeps one."""

import asyncio
import contextlib
import io
import select
import socket
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.middleware.keys import Identity, anyone, digest
from app.api.uploads import UploadBatches
from app.errors import Overloaded
from app.server.main import create_app
from app.server.settings import Settings
from models.encoder import Encoder


def key(name: str, most: int | None = None) -> Identity:
    return Identity(name, frozenset(("classify",)), max_uploads=most)


def test_a_key_has_half_of_the_places_or_as_many_as_its_entry_says() -> None:
    places = UploadBatches(10, 10, 10, at_once=8)
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(places.one(key("bob")))
        with pytest.raises(Overloaded, match="of the key bob") as caught, places.one(key("bob")):
            pass
        assert (caught.value.limit, caught.value.value) == (4, 5)
        stack.enter_context(places.one(key("carol", most=1)))
        with pytest.raises(Overloaded, match="of the key carol"), places.one(key("carol", most=1)):
            pass
        for _ in range(3):
            stack.enter_context(places.one(key("dave", most=8)))
        with pytest.raises(Overloaded, match="max_uploads"), places.one(key("erin")):
            pass
    assert places.under_way == 0
    with places.one(key("bob")):
        pass


def test_without_keys_there_are_no_shares() -> None:
    places = UploadBatches(10, 10, 10, at_once=3)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(places.one(anyone("192.0.2.1")))


def begin_upload(url: httpx.URL, secret: str) -> socket.socket:
    """An upload of which a little has arrived."""
    line = socket.create_connection((url.host, url.port), timeout=60)
    line.sendall(
        b"POST /classify/batch?labels=a,b HTTP/1.1\r\nHost: x\r\n"
        b"Authorization: Bearer " + secret.encode() + b"\r\n"
        b"Content-Type: application/zip\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nP\r\n"
    )
    return line


def test_slow_uploads_of_one_key_leave_room_for_everybody_elses(
    pictogram: Encoder, serve: Callable[..., Any], samples: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(
        "".join(
            f'[keys.{name}]\nsha256 = "{digest(name)}"\nscopes = ["classify"]\n'
            f'namespace = "{name}"\n'
            for name in ("bob", "carol")
        )
    )
    picture = samples["cat"].read_bytes()
    # nobody is given up meanwhile
    limits = {"request_timeout": 600, "head_timeout": 600}
    with serve(pictogram, api_keys_file=file, **limits) as client, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(begin_upload(client.base_url, "bob")) for _ in range(8)]
        # four are told at once that there are four already, and the others are waited for
        readable, _, _ = select.select(slow, [], [], 60)
        while len(readable) < 4:
            readable, _, _ = select.select(slow, [], [], 60)
        assert all(b" 503 " in line.recv(4_000).split(b"\r\n")[0] for line in readable)
        for _ in range(3):
            for path, field in (("/classify/batch", "images"), ("/classify", "image")):
                answer = client.post(
                    f"{path}?labels=cat,dog",
                    files={field: picture},
                    headers={"Authorization": "Bearer carol"},
                )
                assert answer.status_code == 200, answer.text
        assert not select.select([line for line in slow if line not in readable], [], [], 0)[0]


def test_an_upload_that_trickles_is_given_up_though_it_is_never_silent(
    pictogram: Encoder, serve: Callable[..., Any]
) -> None:
    with serve(pictogram, request_timeout=1.0, max_uploads=1) as client:
        url = client.base_url
        with socket.create_connection((url.host, url.port), timeout=60) as line:
            line.sendall(
                b"POST /classify/batch?labels=a,b HTTP/1.1\r\nHost: x\r\n"
                b"Content-Type: application/zip\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            end = time.monotonic() + 60
            answer = b""
            while b"}" not in answer and time.monotonic() < end:
                line.settimeout(60)
                with contextlib.suppress(ConnectionError):
                    line.sendall(b"1\r\nP\r\n")
                line.settimeout(0.1)
                with contextlib.suppress(TimeoutError):
                    answer += line.recv(4_000)
        assert b" 408 " in answer.split(b"\r\n")[0]
        assert b"less than 1000 bytes a second" in answer


def test_archives_have_threads_of_their_own(pictogram: Encoder, samples: dict[str, Path]) -> None:
    app = create_app(Settings(model="pictogram", store_url="memory://"), pictogram)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.write(samples["cat"], "cat.png")
    ask = {"params": {"labels": "cat,dog"}, "content": archive.getvalue()}
    released = threading.Event()

    async def send() -> httpx.Response:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client,
        ):
            loop = asyncio.get_running_loop()
            # archives take one for minutes, and would so keep what all else is done in
            loop.set_default_executor(ThreadPoolExecutor(1))
            busy = loop.run_in_executor(None, released.wait)
            try:
                answer = await asyncio.wait_for(client.post("/classify/batch", **ask), 60)
            finally:
                released.set()
                await busy
        return answer

    assert asyncio.run(send()).json()["count"] == 1
