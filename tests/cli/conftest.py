"""What tests of commands share: the commands in this process and in one of their own."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.__main__ import app

COMMAND = [sys.executable, "-m", "app"]

Run = Callable[..., Result]
Spawn = Callable[..., "subprocess.CompletedProcess[bytes]"]
Answers = Callable[[Callable[[int], tuple[int, dict[str, str], Any]]], AbstractContextManager[str]]


@pytest.fixture(scope="session")
def run() -> Run:
    """A command in this process; what it printed and its exit status."""

    def invoke(*arguments: object, **options: Any) -> Result:
        result = CliRunner().invoke(app, [*map(str, arguments)], **options)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result

    return invoke


@pytest.fixture(scope="session")
def command() -> list[str]:
    """What starts a process of its own, for a test that talks with it."""
    return COMMAND


@pytest.fixture(scope="session")
def spawn() -> Spawn:
    """A command as a person runs it; `data` goes to its standard input."""

    def call(
        *arguments: object, data: bytes = b"", **env: str
    ) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [
                *COMMAND,
                *[
                    argument if isinstance(argument, bytes) else str(argument)
                    for argument in arguments
                ],
            ],
            input=data,
            # read now: by this time the data directory is one of the tests' own
            env={**os.environ, "COLUMNS": "200", **env},
            capture_output=True,
            timeout=240,
            check=False,
        )

    return call


@pytest.fixture(scope="session")
def answers() -> Answers:
    """A server that gives the answer of a function for each request, by its number from 1."""

    @contextlib.contextmanager
    def serving(answer: Callable[[int], tuple[int, dict[str, str], Any]]) -> Iterator[str]:
        lock, count = threading.Lock(), 0

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                nonlocal count
                self.rfile.read(int(self.headers.get("content-length", "0")))
                with lock:
                    count += 1
                    number = count
                status, headers, content = answer(number)
                if not status:
                    return  # the connection is cut
                body = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    return serving
