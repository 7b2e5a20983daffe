"""Where a server listens: ports, Unix sockets, certificates, and who a proxy says is calling."""

import contextlib
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from app.server import sockets
from app.server.certificates import check_certificate
from app.server.main import create_app
from app.server.run import uvicorn_config
from app.server.settings import Settings
from app.server.sockets import CannotListen, bind, bind_unix
from benchmarks.servers import free_port
from models.encoder import Encoder

COMMAND = [
    sys.executable,
    "-c",
    "from app.__main__ import app; app()",
    "serve",
    "--model",
    "pictogram",
]


@contextlib.contextmanager
def running(*arguments: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """The command line as a person runs it; yielded when it says where it serves."""
    with subprocess.Popen(
        [*COMMAND, *arguments], env={**os.environ, **env}, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "Ready: " in line:
                    break
            yield process
        finally:
            process.kill()


def curl(*arguments: str) -> str:
    command = ["curl", "-sS", "--retry", "50", "--retry-all-errors", "--retry-delay", "0"]
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=300, check=True
    ).stdout


def test_the_file_of_a_unix_socket_is_removed_at_a_second_ctrl_c_too(tmp_path: Path) -> None:
    code = (
        "import signal, sys, types; from pathlib import Path; from app.server import run, sockets; "
        "listener = sockets.bind_unix(Path(sys.argv[1])); assert Path(sys.argv[1]).exists(); "
        "run._Server.end(types.SimpleNamespace(should_exit=True), signal.SIGINT, None)"
    )
    path = tmp_path / "a.sock"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=120)
    assert not path.exists()


def test_a_unix_socket_is_served_and_its_file_removed_at_the_end(
    samples: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "o.sock"
    with running("--uds", str(path)) as process:
        text = curl(
            "--unix-socket", str(path), "-F", f"image=@{samples['cat']}", "-F", "labels=cat,dog",
            "-H", "Accept: text/plain", "http://localhost/classify",
        )  # fmt: skip
        assert text.splitlines()[0].endswith("\tcat")
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    assert not path.exists()


def test_a_proxy_of_another_user_may_connect_and_say_who_is_calling(tmp_path: Path) -> None:
    path = tmp_path / "o.sock"
    limits = {"OPENVOCAB_RATE_LIMIT": "0.01", "OPENVOCAB_TRUSTED_PROXIES": "*"}
    with (
        running("--uds", str(path), **limits),
        httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=60) as client,
    ):
        assert path.stat().st_mode & 0o777 == 0o666
        statuses = [
            client.get("http://proxied/models", headers={"X-Forwarded-For": caller}).status_code
            for caller in ("192.0.2.1", "192.0.2.1", "192.0.2.2")
        ]
    assert statuses == [200, 429, 200]


def test_a_left_over_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "o.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))  # and closed without removing its file, as a killed server leaves it
    with bind_unix(path) as live:
        assert sockets.shown(live, tls=False) == str(path)
        assert sockets.is_local(live)
        with pytest.raises(CannotListen, match="in use"):
            bind_unix(path)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_live_socket_with_a_full_backlog_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "o.sock"
    with contextlib.ExitStack() as stack:
        busy = stack.enter_context(socket.socket(socket.AF_UNIX))
        busy.bind(str(path))
        busy.listen(0)
        for _ in range(5):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(str(path))
        with pytest.raises(CannotListen, match="in use"):
            bind_unix(path)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(CannotListen, match="not a socket"):
        bind_unix(path)
    assert path.read_text() == "data"


def test_only_our_own_socket_is_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "o.sock"
    bind_unix(path).close()
    identity = sockets._identity(path)
    bind_unix(tmp_path / "other").close()
    (tmp_path / "other").replace(path)
    sockets._remove(path, identity)
    assert path.exists()
    sockets._remove(path, sockets._identity(path))
    assert not path.exists()
    sockets._remove(path, identity)


@pytest.mark.parametrize("host", ["999.1.1.1", "a" * 80 + ".example", "1.2.3.4", "a..b", "fe80::1"])
def test_an_address_that_is_not_ours_is_said_in_one_line(host: str) -> None:
    with pytest.raises(CannotListen) as caught:
        bind(host, 0)
    message = str(caught.value)
    shown = f"[{host}]" if "::" in host else host
    assert message.startswith(f"cannot listen on {shown}:0: ")
    assert "None" not in message
    assert "\n" not in message


def test_a_system_that_gives_no_socket_is_told_in_one_line() -> None:
    with bind("127.0.0.1", 0) as listener:
        number = listener.fileno()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, before[1]))
    try:
        with pytest.raises(CannotListen) as caught:
            bind("::1", 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert str(caught.value) == "cannot listen on [::1]:0: Too many open files"


@pytest.mark.parametrize(
    ("host", "local", "expected"),
    [("127.0.0.1", True, "https://127.0.0.1:"), ("0.0.0.0", False, "https://0.0.0.0:"),
     ("localhost", True, "https://127.0.0.1:")],
)  # fmt: skip
def test_whether_others_can_reach_it_is_known(host: str, local: bool, expected: str) -> None:
    with bind(host, 0) as listener:
        assert sockets.is_local(listener) is local
        assert sockets.shown(listener, tls=True).startswith(expected)


def test_a_certificate_and_its_key_are_taken_in_two_files_or_one(
    certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    pem = tmp_path / "both.pem"
    pem.write_text("".join(file.read_text() for file in certificate))
    assert check_certificate(*certificate) is None
    assert check_certificate(pem, None) is None


def test_what_is_wrong_with_a_certificate_is_said(
    certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    good, key = certificate
    garbage, locked = tmp_path / "garbage.pem", tmp_path / "locked.pem"
    garbage.write_bytes(b"\0\1\2")
    subprocess.run(
        ["openssl", "ec", "-in", str(key), "-aes256", "-passout", "pass:x", "-out", str(locked)],
        check=True, capture_output=True,
    )  # fmt: skip
    for one, two in ((good, None), (good, garbage), (garbage, key), (good, locked), (key, good)):
        message = check_certificate(one, two)
        assert message is not None
        assert message.startswith(str(one))
        assert "None" not in message
    assert check_certificate(tmp_path / "none", key) == f"{tmp_path / 'none'}: no such file"
    assert check_certificate(good, tmp_path / "none") == f"{tmp_path / 'none'}: no such file"


@contextlib.contextmanager
def served(encoder: Encoder, **settings: object) -> Iterator[httpx.Client]:
    """The application as `openvocab serve` configures it, on a thread."""
    chosen = Settings(model="pictogram", store_url="memory://", **settings)
    server = uvicorn.Server(uvicorn_config(create_app(chosen, encoder), chosen))
    with bind("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the server ended while it started"
                time.sleep(0.01)
            with httpx.Client(base_url=sockets.shown(listener, tls=False), timeout=60) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(60)


def test_https_is_spoken_under_a_root_path(
    certificate: tuple[Path, Path], samples: dict[str, Path], pictogram: Encoder
) -> None:
    file, key = certificate
    with served(pictogram, tls_cert_file=file, tls_key_file=key, root_path="/vision") as plain:
        url = str(plain.base_url).replace("http://127.0.0.1", "https://localhost")
        authority = ssl.create_default_context(cafile=file)
        with httpx.Client(verify=authority, timeout=60) as client:
            answer = client.post(
                f"{url}/classify",
                files={"image": samples["cat"].read_bytes()}, data={"labels": "cat,dog"},
            )  # fmt: skip
            assert answer.json()["predictions"][0]["label"] == "cat"
            response = client.put(f"{url}/labelsets/rooted", json={"labels": ["a", "b"]})
            assert response.headers["location"].startswith("/vision/labelsets/rooted")
            assert client.get(f"{url}/openapi.json").json()["servers"] == [{"url": "/vision"}]
        assert "cat" in curl("-k", "-F", f"image=@{samples['cat']}", "-F", "labels=cat,dog",
                             f"{url}/classify")  # fmt: skip
        with httpx.Client(timeout=60) as stranger, pytest.raises(httpx.ConnectError):
            stranger.get(f"{url}/healthz")
        with pytest.raises(httpx.TransportError):
            plain.get("/healthz")


def test_a_connection_without_a_tls_handshake_has_the_time_of_a_head(
    certificate: tuple[Path, Path],
) -> None:
    file, key = map(str, certificate)
    files = {"OPENVOCAB_TLS_CERT_FILE": file, "OPENVOCAB_TLS_KEY_FILE": key}
    port = free_port()
    with (
        running("--port", str(port), OPENVOCAB_HEAD_TIMEOUT="0.5", **files),
        socket.create_connection(("127.0.0.1", port), timeout=50) as silent,
        contextlib.suppress(ConnectionResetError),
    ):
        assert silent.recv(1) == b"", "the loop's own limit is a minute"


@pytest.mark.parametrize(
    ("proxies", "statuses"),
    [
        ("127.0.0.1", [200, 429, 200]),
        ("127.0.0.0/8", [200, 429, 200]),
        ("10.0.0.1", [200, 429, 429]),
        ("", [200, 429, 429]),
    ],
)
def test_only_a_trusted_proxy_says_who_is_calling(
    proxies: str, statuses: list[int], pictogram: Encoder
) -> None:
    with served(pictogram, trusted_proxies=proxies, rate_limit=0.01, rate_burst=1) as client:
        status_codes = [
            client.get("/templates", headers={"X-Forwarded-For": address}).status_code
            for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2")
        ]
    assert status_codes == statuses


def test_what_a_client_claims_before_its_proxy_does_not_count(pictogram: Encoder) -> None:
    with served(pictogram, trusted_proxies="127.0.0.1", rate_limit=0.01, rate_burst=1) as client:
        status_codes = [
            client.get("/templates", headers={"X-Forwarded-For": f"{claim}, 192.0.2.1"}).status_code
            for claim in ("198.51.100.1", "198.51.100.2")
        ]
    assert status_codes == [200, 429]
