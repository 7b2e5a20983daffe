"""The health check of the image, run as the image runs it, against real servers."""

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from models.encoder import Encoder

SCRIPT = Path(__file__).parents[2] / "docker" / "healthcheck.py"


@contextlib.contextmanager
def answering(status: int) -> Iterator[int]:
    """A server that answers /readyz with `status` and all else with 418; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 418)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def run(port: int, **environment: str) -> subprocess.CompletedProcess[str]:
    # -I and no site-packages: it must not need anything but Python
    return subprocess.run(
        [sys.executable, "-I", "-S", str(SCRIPT), str(port)],
        env={**os.environ, **environment},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


@pytest.fixture
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("healthcheck", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_real_server_is_healthy(client: httpx.Client) -> None:
    assert client.base_url.port
    completed = run(client.base_url.port)
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, "", "")


def test_a_server_with_a_certificate_and_hosts_of_its_own_is_healthy(
    pictogram: Encoder,
    serve: Callable[..., AbstractContextManager[httpx.Client]],
    certificate: tuple[Path, Path],
) -> None:
    file, key = certificate
    options = {"tls_cert_file": file, "tls_key_file": key, "allowed_hosts": "vision.example"}
    with serve(pictogram, **options) as client:
        assert client.base_url.port
        completed = run(client.base_url.port, OPENVOCAB_TLS_CERT_FILE=str(file))
        assert (completed.returncode, completed.stderr) == (0, "")
        assert run(client.base_url.port).returncode == 1


def test_a_server_that_is_ready_is_healthy() -> None:
    with answering(200) as port:
        assert run(port).returncode == 0


@pytest.mark.parametrize("status", [503, 500, 404, 204])
def test_a_server_that_is_not_ready_is_unhealthy_and_the_status_is_said(status: int) -> None:
    with answering(status) as port:
        completed = run(port)
    assert completed.returncode == 1
    assert completed.stderr == f"port {port}: status {status}\n"


def test_no_server_is_unhealthy_in_one_line() -> None:
    with silent() as port:
        pass
    completed = run(port)
    assert completed.returncode == 1
    assert completed.stderr.startswith(f"port {port}: ")
    assert completed.stderr.count("\n") == 1


def test_a_server_that_hangs_is_unhealthy_in_one_line() -> None:
    with silent() as port:
        completed = run(port)
    assert completed.returncode == 1
    assert "timed out" in completed.stderr
    assert completed.stderr.count("\n") == 1


def test_a_proxy_of_the_environment_is_not_asked() -> None:
    with answering(200) as port, silent() as proxy:
        address = f"http://127.0.0.1:{proxy}"
        assert run(port, http_proxy=address, HTTP_PROXY=address).returncode == 0


@pytest.mark.parametrize(
    ("command", "port"),
    [
        (["openvocab", "serve", "--host", "0.0.0.0", ""], 8000),
        (["openvocab", "serve", "--port", "9000", "--host", "0.0.0.0", ""], 9000),
        (["openvocab", "serve", "--port=9000", ""], 9000),
        (["docker-init", "--", "openvocab", "serve", "--port", "9000"], 9000),
        (["openvocab", "serve", "--port", "9000", "--port=9001"], 9001),
        (["openvocab", "serve", "--port"], 8000),
        ([""], 8000),
    ],
)
def test_the_port_is_the_one_of_the_first_process(
    module: ModuleType, command: list[str], port: int
) -> None:
    assert module.port_of(command) == port
