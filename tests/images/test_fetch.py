"""Fetching images by URL: a real HTTP server, and names that lead where a test wants them to."""

import asyncio
import contextlib
import gzip
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from app.errors import Invalid, Overloaded, Problem, TooLarge, UnsupportedImage
from app.images.fetch import Fetcher, FetchFailed, FetchPolicy, Resolve
from app.images.urls import AllowedHost, checked, is_public
from tests.conftest import certificate_for

LOCAL = (ipaddress.ip_network("127.0.0.1/32"),)
PICTURE = b"\x89PNG the bytes of a picture"

Handler = Callable[["Site", str, asyncio.StreamWriter], Awaitable[None]]


class Site:
    """A small HTTP server whose answers are written by hand, and what it was asked."""

    def __init__(self) -> None:
        self.port = 0
        self.heads: list[str] = []
        self.calls: set[asyncio.Task[None]] = set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = asyncio.current_task()
        assert call is not None
        self.calls.add(call)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                await ANSWERS[head.split()[1].partition("?")[0]](self, head, writer)
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()


def reply(
    status: int = 200, body: bytes = PICTURE, length: int | None = None, **headers: str
) -> Handler:
    """An answer with these headers (`_` for `-`); an empty value leaves a header out."""
    reply_headers = {"Content-Type": "image/png", "Content-Length": str(length or len(body))}
    reply_headers |= {name.replace("_", "-"): value for name, value in headers.items()}

    async def write(site: Site, _head: str, writer: asyncio.StreamWriter) -> None:
        lines = [f"{name}: {value}" for name, value in reply_headers.items() if value]
        text = f"HTTP/1.1 {status} X\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\n"
        writer.write(text.replace("PORT", str(site.port)).encode() + body)

    return write


async def endless(_site: Site, _head: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n")
    for _ in range(5_000):
        writer.write(b"x" * 10_000)
        await writer.drain()


async def slow(_site: Site, _head: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 999\r\n\r\n")
    for _ in range(999):  # never silent for long, never done in time
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


def flood(start: bytes, block: bytes) -> Handler:
    """After the start the same again and again, as fast as it is read."""

    async def write(_site: Site, _head: str, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        for _ in range(2_000):
            writer.write(block)
            await writer.drain()

    return write


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"


async def chained(_site: Site, head: str, writer: asyncio.StreamWriter) -> None:
    remaining = int(head.split()[1].rpartition("=")[2])
    location = f"/chain?left={remaining - 1}" if remaining else "/picture.png"
    writer.write(f"HTTP/1.1 302 X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())


ANSWERS: dict[str, Handler] = {
    "/picture.png": reply(),
    "/octets": reply(Content_Type="binary/octet-stream"),
    "/chunked": reply(
        body=b"5\r\nabcde\r\n0\r\n\r\n", Content_Length="", Transfer_Encoding="chunked"
    ),
    "/page": reply(Content_Type="text/html; charset=utf-8"),
    "/untyped": reply(Content_Type=""),
    "/gzip": reply(body=gzip.compress(b"\0" * 1_000_000), Content_Encoding="gzip"),
    "/declared": reply(length=10_000_000),
    "/cut": reply(length=500),
    "/missing": reply(404),
    "/nonsense": reply(200, Content_Length="many"),
    "/to-metadata": reply(302, b"", Location="http://169.254.169.254/latest/meta-data/"),
    "/to-inside": reply(301, b"", Location="//inside.example:PORT/picture.png"),
    "/to-file": reply(307, b"", Location="file:///etc/passwd"),
    "/to-port": reply(302, b"", Location="http://pictures.example:6379/"),
    "/to-login": reply(302, b"", Location="http://me:secret@pictures.example:PORT/picture.png"),
    "/to-nonsense": reply(302, b"", Location="http://[::1"),
    "/nowhere": reply(302, b""),
    "/endless": endless,
    "/crumbs": flood(CHUNKED, b"1\r\nx\r\n" * 5_000),
    "/hints": flood(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1_000),
    "/remarks": flood(CHUNKED + b"1;", b"x" * 30_000),
    "/headers": flood(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 5_000),
    "/pieces": reply(
        body=b"64\r\n" + b"x" * 100 + b"\r\n" + (b"400\r\n" + b"x" * 1024 + b"\r\n") * 300
        + b"0\r\n\r\n",
        Content_Length="", Transfer_Encoding="chunked",
    ),
    "/slow": slow,
    "/chain": chained,
}  # fmt: skip


@contextlib.asynccontextmanager
async def site(certificate: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    started = Site()
    server = await asyncio.start_server(started.answer, "127.0.0.1", 0, ssl=certificate)
    started.port = server.sockets[0].getsockname()[1]
    try:
        yield started
    finally:
        server.close()
        for call in started.calls:
            call.cancel()
        await asyncio.gather(*started.calls, return_exceptions=True)
        await asyncio.sleep(0)  # until the sockets are closed


def names(**hosts: str | Sequence[str]) -> Resolve:
    """A resolver of names in .example, and of nothing else; what it is asked is in `asked`."""

    async def resolve(host: str, _port: int) -> Sequence[str]:
        address = hosts.get(host.removesuffix(".example"))
        if address is None:
            raise OSError("no such name")
        return [address] if isinstance(address, str) else address

    return resolve


@contextlib.contextmanager
def fetcher(
    port: int, resolve: Resolve | None = None, tls: ssl.SSLContext | None = None, **policy: Any
) -> Iterator[Fetcher]:
    """May reach 127.0.0.1, and the server's port at any host."""
    chosen: dict[str, Any] = {
        "max_bytes": 1_000, "hosts": (AllowedHost("*", port), AllowedHost("*")), "also": LOCAL,
        "timeout": 240.0, **policy,
    }  # fmt: skip
    resolve = resolve or names(pictures="127.0.0.1", inside="10.0.0.7")
    fetcher = Fetcher(FetchPolicy(**chosen), "openvocab/test", resolve=resolve, certificates=tls)
    try:
        yield fetcher
    finally:
        fetcher.close()


def fetch(path: str, resolve: Resolve | None = None, **policy: Any) -> tuple[bytes, Site]:
    async def run() -> tuple[bytes, Site]:
        async with site() as server:
            with fetcher(server.port, resolve, **policy) as client:
                return await client.fetch(f"http://pictures.example:{server.port}{path}"), server

    return asyncio.run(run())


def problem(path: str, kind: type[Problem], **policy: Any) -> Problem:
    with pytest.raises(kind) as caught:
        fetch(path, **policy)
    assert caught.value.field == "image_url"
    return caught.value


@pytest.mark.parametrize("path", ["/picture.png", "/octets"])
def test_a_picture_is_fetched_with_its_hosts_name_and_nothing_of_the_caller(path: str) -> None:
    data, server = fetch(f"{path}?a=b")
    assert data == PICTURE
    head = server.heads[0]
    assert head.startswith(f"GET {path}?a=b HTTP/1.1\r\n")
    assert f"Host: pictures.example:{server.port}\r\n" in head
    assert "User-Agent: openvocab/test\r\n" in head
    assert "Accept-Encoding: identity\r\n" in head
    assert "Authorization" not in head


def test_pieces_are_counted_as_they_arrive() -> None:
    sizes: list[int] = []

    async def run() -> bytes:
        async with site() as server:
            with fetcher(server.port) as client:
                url = f"http://pictures.example:{server.port}/chunked"
                return await client.fetch(url, sizes.append)

    assert asyncio.run(run()) == b"abcde"
    assert sum(sizes) == 5


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert fetch("/picture.png")[0] == PICTURE


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://10.1.2.3/", "http://192.168.0.1/", "http://172.31.255.255/",
        "http://169.254.169.254/latest", "http://100.64.0.1/", "http://100.100.100.200/",
        "http://168.63.129.16/", "http://0.0.0.0/", "http://224.0.0.1/", "http://255.255.255.255/",
        "http://198.18.0.1/", "http://192.0.2.1/", "http://240.0.0.1/", "http://127.0.0.1./",
        "http://[::1]/", "http://[::]/", "http://[fe80::1]/", "http://[fc00::1]/",
        "http://[fd00:ec2::254]/", "http://[ff02::1]/", "http://[::ffff:8.8.8.8]/",
        "http://[::ffff:7f00:1]/", "http://[64:ff9b::7f00:1]/", "http://[64:ff9b:1::1]/",
        "http://[2002:7f00:1::]/", "http://[2001:0:4136:e378::]/", "http://[2001:db8::1]/",
        "http://[::7f00:1]/", "http://[fec0::1]/",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(url: str) -> None:
    with fetcher(80, also=()) as client, pytest.raises(Invalid, match="no public address"):
        asyncio.run(client.fetch(url))


@pytest.mark.parametrize(
    "host",
    [
        "2130706433", "017700000001", "0x7f000001", "0x7f.1", "127.1", "127.0.0.01", "0177.0.0.1",
        "127.0.0.0x1", "1.2.3.4.5", "256.256.256.256", "１２７.1",
        "[fe80::1%25eth0]", "[fe80::1%eth0]",
        "[::1", "127.0.0.%31", "a b", "ex ample.org", "a..b", "-x.example", "", "%",
        "pictures.example:0", "pictures.example:99999", "pictures.example:22", "x" * 64,
    ],
)  # fmt: skip
def test_odd_spellings_of_hosts_are_refused(host: str) -> None:
    with pytest.raises(Invalid) as caught:
        checked(f"http://{host}/x.png", ())
    assert caught.value.field == "image_url"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file:///etc/passwd", "neither https"), ("gopher://x.example/", "neither https"),
        ("ftp://x.example/", "neither https"), ("//x.example/", "neither https"),
        ("x.example/a.png", "neither https"), ("", "neither https"),
        ("http://me@x.example/", "a user name"), ("http://good.example\\@10.0.0.1/", "user name"),
        ("http://good.example:80@10.0.0.1/", "user name"), ("http://x.example/\x00", "not a URL"),
        ("http://x.example:8080/", "its port is 8080"), ("http://x.example/" + "a" * 2_048, "2048"),
    ],
)  # fmt: skip
def test_urls_that_are_no_plain_web_addresses_are_refused(url: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        checked(url, ())


def test_a_name_is_refused_if_one_of_its_addresses_is_not_public() -> None:
    mixed = names(pictures=["93.184.215.14", "10.0.0.7"])
    error = problem("/picture.png", Invalid, resolve=mixed)
    nobody = problem("/picture.png", Invalid, resolve=names())
    # whether a name exists inside is nobody's business
    assert error.detail == nobody.detail
    assert "10.0.0.7" not in error.detail


def test_a_name_that_changes_its_meaning_is_asked_once_for_each_connection() -> None:
    answers = iter(["127.0.0.1", "10.0.0.7"])
    requests = []

    async def rebinding(host: str, _port: int) -> Sequence[str]:
        requests.append(host)
        return [next(answers)]

    data, _ = fetch("/picture.png", rebinding)
    assert data == PICTURE
    assert requests == ["pictures.example"]
    # and a redirect is a connection of its own, to a name that now means an inner address
    answers = iter(["127.0.0.1", "10.0.0.7"])
    problem("/chain?left=0", Invalid, resolve=rebinding)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/to-metadata", "no public address"), ("/to-inside", "no public address"),
        ("/to-file", "neither https"), ("/to-port", "not among those allowed"),
        ("/to-login", "a user name"), ("/to-nonsense", "not a URL"),
    ],
)  # fmt: skip
def test_a_redirect_is_checked_like_the_first_url(path: str, why: str) -> None:
    assert why in problem(path, Invalid).detail


def test_three_redirects_are_followed_and_not_four() -> None:
    assert fetch("/chain?left=2")[0] == PICTURE
    error = problem("/chain?left=3", FetchFailed)
    assert (error.status, error.code, error.limit) == (502, "fetch_failed", 3)


@pytest.mark.parametrize(
    ("path", "kind", "why"),
    [
        ("/page", UnsupportedImage, "'text/html'"),
        ("/untyped", UnsupportedImage, "answers nothing"),
        ("/gzip", UnsupportedImage, "compressed \\('gzip'\\)"),
        ("/declared", TooLarge, "10000000 bytes"),
        ("/endless", TooLarge, "the limit is 1000"),
        ("/cut", FetchFailed, "closed the connection"),
        ("/nonsense", FetchFailed, "closed the connection"),
        ("/missing", FetchFailed, "status 404"),
        ("/nowhere", FetchFailed, "status 302"),
    ],
)  # fmt: skip
def test_what_is_no_image_within_the_limits_is_refused(
    path: str, kind: type[Problem], why: str
) -> None:
    with pytest.raises(kind, match=why) as caught:
        fetch(path)
    assert caught.value.field == "image_url"


def test_a_server_that_never_ends_is_given_up_in_time() -> None:
    start = time.monotonic()
    error = problem("/slow", FetchFailed, timeout=0.3)
    assert error.limit == 0.3
    assert time.monotonic() - start < 45  # to the end it would be 50


@pytest.mark.parametrize("path", ["/crumbs", "/hints", "/remarks", "/headers"])
def test_a_server_cannot_keep_the_loop_busy_with_what_is_no_file(path: str) -> None:
    error = problem(path, FetchFailed, timeout=240, max_bytes=10_000_000)
    assert "beside the file" in error.detail or "did not respond" in error.detail


def test_honest_pieces_are_put_together() -> None:
    data, _ = fetch("/pieces", max_bytes=1_000_000)
    assert data == b"x" * (100 + 1024 * 300)


def test_a_lookup_that_hangs_is_given_up_in_time() -> None:
    async def hanging(_host: str, _port: int) -> Sequence[str]:
        await asyncio.sleep(3600)
        return []

    assert "within 0.2 seconds" in problem("/", FetchFailed, resolve=hanging, timeout=0.2).detail


def test_who_waits_too_long_for_a_place_among_those_fetched_is_told_to_come_back() -> None:
    async def hanging(_host: str, _port: int) -> Sequence[str]:
        await asyncio.sleep(3600)
        return []

    async def run() -> list[bytes | BaseException]:
        with fetcher(80, hanging, timeout=0.2, at_once=1) as client:
            fetches = [client.fetch("http://pictures.example/") for _ in range(3)]
            return await asyncio.gather(*fetches, return_exceptions=True)

    first, *others = asyncio.run(asyncio.wait_for(run(), 60))
    assert isinstance(first, FetchFailed)
    refused = [other for other in others if isinstance(other, Overloaded)]
    # the second may have had its place
    assert refused
    assert [(error.limit, error.field) for error in refused] == [(1, "image_url")] * len(refused)
    assert "1 images are being fetched (the limit)" in refused[0].detail


def test_as_many_names_are_looked_up_at_once_as_images_are_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = FetchPolicy(max_bytes=1_000, timeout=60)
    everybody = threading.Barrier(policy.at_once)

    def lookup(*_arguments: Any, **_options: Any) -> Any:
        everybody.wait(60)
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)

    async def run() -> list[bytes | BaseException]:
        with contextlib.closing(Fetcher(policy)) as client:
            fetches = [client.fetch("http://pictures.example/") for _ in range(policy.at_once)]
            return await asyncio.gather(*fetches, return_exceptions=True)

    assert [type(error) for error in asyncio.run(run())] == [Invalid] * policy.at_once


def test_a_port_where_nobody_listens_is_an_answer_like_any_other_failure() -> None:
    async def run() -> None:
        async with site() as server:
            port = server.port
        with fetcher(port) as client:
            await client.fetch(f"http://pictures.example:{port}/picture.png")

    with pytest.raises(FetchFailed, match="did not respond"):
        asyncio.run(run())


def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    # nobody listens at 127.0.0.2, on any port of this test
    also = (*LOCAL, ipaddress.ip_network("127.0.0.2/32"))
    data, _ = fetch("/picture.png", names(pictures=["127.0.0.2", "127.0.0.1"]), also=also)
    assert data == PICTURE


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for pictures.example, and its key."""
    return certificate_for("pictures.example", tmp_path_factory.mktemp("tls"))


def test_a_certificate_must_be_of_the_name_though_an_address_is_connected_to(
    certificate: tuple[Path, Path],
) -> None:
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(*certificate)
    asked_for: list[str | None] = []
    serving.sni_callback = lambda _sock, name, _context: asked_for.append(name)
    resolve = names(pictures="127.0.0.1", others="127.0.0.1")

    async def run(host: str, trusted: bool) -> bytes:
        tls = ssl.create_default_context(cafile=str(certificate[0])) if trusted else None
        async with site(serving) as server:
            with fetcher(server.port, resolve, tls) as client:
                return await client.fetch(f"https://{host}.example:{server.port}/picture.png")

    assert asyncio.run(run("pictures", True)) == PICTURE
    assert asked_for == ["pictures.example"]
    for host, trusted in (("others", True), ("pictures", False)):
        with pytest.raises(FetchFailed, match="did not respond"):
            asyncio.run(run(host, trusted))


@pytest.mark.parametrize(
    ("entry", "url", "allowed"),
    [
        ("example.org", "https://example.org/a", True),
        ("example.org", "https://EXAMPLE.org./a", True),
        ("example.org", "https://a.example.org/a", False),
        ("example.org", "https://example.org:8080/a", False),
        ("example.org:8080", "http://example.org:8080/a", True),
        ("example.org:8080", "http://example.org/a", False),
        ("*.example.org", "https://a.b.example.org/a", True),
        ("*.example.org", "https://example.org/a", False),
        ("*.example.org", "https://badexample.org/a", False),
        ("*:8443", "https://anything.example:8443/", True),
        ("BÜCHER.example", "https://xn--bcher-kva.example/", True),
    ],
)
def test_the_list_of_hosts_says_what_may_be_named(entry: str, url: str, allowed: bool) -> None:
    hosts = (AllowedHost.parse(entry),)
    if allowed:
        checked(url, hosts)
    else:
        with pytest.raises(Invalid, match="not among those allowed"):
            checked(url, hosts)


@pytest.mark.parametrize(
    "entry", ["", "*.", "*.*", "a b", "x:", "x:0", "x:65536", "x:y", "[::1]:80", "http://x", "*x"]
)
def test_an_entry_of_that_list_must_be_a_host(entry: str) -> None:
    with pytest.raises(ValueError):
        AllowedHost.parse(entry)


def test_public_addresses_are_public() -> None:
    for text in ("8.8.8.8", "93.184.215.14", "172.32.0.1", "100.128.0.1", "2606:4700::1111"):
        assert is_public(ipaddress.ip_address(text))


def test_the_systems_resolver_is_asked_and_its_answer_checked() -> None:
    client = Fetcher(FetchPolicy(max_bytes=1_000))
    try:
        with pytest.raises(Invalid, match="no public address"):
            asyncio.run(client.fetch("http://localhost/"))
    finally:
        client.close()
