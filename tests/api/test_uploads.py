"""Places for uploads: no key takes them all, and no slow sender keeps one."""

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from app.api.middleware.keys import Identity, anyone
from app.api.uploads import UploadBatches
from app.errors import Overloaded
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


def test_an_upload_that_trickles_is_given_up_though_it_is_never_silent(
    pictogram: Encoder, serve: Callable[..., Any]
) -> None:
    with serve(pictogram, request_timeout=1.0, max_uploads=1) as client:
        url = client.base_url
        with socket.create_connection((url.host, url.port), timeout=30) as line:
            line.sendall(
                b"POST /classify/batch?labels=a,b HTTP/1.1\r\nHost: x\r\n"
                b"Content-Type: application/zip\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            end = time.monotonic() + 30
            line.setblocking(False)
            answer = b""
            while not answer and time.monotonic() < end:
                line.sendall(b"1\r\nP\r\n")
                time.sleep(0.1)
                with contextlib.suppress(BlockingIOError):
                    answer = line.recv(4_000)
        assert b" 408 " in answer.split(b"\r\n")[0]
        assert b"less than 1000 bytes a second" in answer
