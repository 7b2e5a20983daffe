"""Redis as people run it: Sentinel, Cluster, failovers, a shared database, while it loads."""

import asyncio
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.retry import Retry

from app.errors import Problem, UnknownLabelset
from app.labelsets.definition import Definition, Entry, new
from app.labelsets.registry import Registry
from app.stores import open_store
from app.stores.guard import Guarded
from app.stores.memory import MemoryPictures
from app.stores.protocols import LabelSetRecord, Store, StoreAway, StoreUnusable
from app.stores.redis.store import RedisStore
from benchmarks.servers import free_port

MOST = 10_000
PATIENT = 10.0  # longer than a server that is up keeps anyone waiting, on a busy machine
END = "\U0010ffff"
LOCAL = "subjectAltName=IP:127.0.0.1,DNS:localhost"
DEFINITION = Definition((Entry("a", ("a",)), Entry("b", ("b",))))
OTHER = Definition((Entry("c", ("c",)), Entry("d", ("d",))))
Start = Callable[..., int]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts redis-server with options and returns its port; `name` is for its folder."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(name: str, *options: str, port: int = 0, wait: bool = True) -> int:
        port = port or free_port()
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        command = ["redis-server", *options, "--dir", str(folder)]
        # 0: only by TLS
        command += ["--port", str(0 if "--tls-ca-cert-file" in options else port)]
        if "--sentinel" not in options:
            command += ["--save", "", "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0"]
        with (folder / "log").open("ab") as log:
            running.append(subprocess.Popen(command, stdout=log, stderr=log))
        patiently(lambda: wait is False or ask(port, "PING") is not None)
        return port

    yield begin
    for process in running:
        process.kill()
        process.wait()


def ask(port: int, *command: Any) -> Any:
    """The answer of a server; None where there is none."""
    with Redis(host="127.0.0.1", port=port, socket_timeout=30) as client, suppress(RedisError):
        return client.execute_command(*command)
    return None


def patiently(condition: Callable[[], Any], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, "this takes too long"
        time.sleep(0.05)
    return result


def role(port: int) -> str:
    reply = ask(port, "ROLE")
    return reply[0].decode() if reply else ""


async def whole(store: Store) -> None:
    """A little of everything."""
    await store.labelsets.write("pets", b"body", None, MOST)
    assert await store.labelsets.get("pets") == LabelSetRecord("pets", 1, b"body")
    assert "pets" in await store.labelsets.recent()
    assert [record.name for record in await store.labelsets.page("p", "q", 10)] == ["pets"]
    await store.pictures.put("pets", "a", b"picture", 1000)
    assert await store.pictures.get("pets", "a", 7) == b"picture"
    await store.pictures.delete("pets", ["a"])
    await store.vectors.put_many({"a": b"1", "b": b"2"})
    assert list(await store.vectors.get_many(["a", "b"])) == [b"1", b"2"]
    assert (await store.rates.take("a", 1, 1, 1)).granted == 1
    await store.labelsets.delete("pets", 1)
    await store.probe()


def sentinels(start: Start, tmp_path: Path, master: int, count: int = 2) -> list[int]:
    ports = []
    for number in range(count):
        file = tmp_path / f"sentinel{number}.conf"
        file.write_text(
            f"sentinel monitor mine 127.0.0.1 {master} 1\n"
            # a busy machine keeps a server waiting for longer than usual: it is not down
            "sentinel down-after-milliseconds mine 5000\nsentinel failover-timeout mine 6000\n"
        )
        ports.append(start(f"sentinel{number}", str(file), "--sentinel"))
    return ports


def test_writes_through_sentinels_survive_failovers_and_the_masters_death(
    start: Start, tmp_path: Path
) -> None:
    first = start("first")
    second = start("second", "--replicaof", f"127.0.0.1 {first}")
    watching = sentinels(start, tmp_path, first)
    patiently(lambda: all(ask(port, "SENTINEL", "REPLICAS", "mine") for port in watching))
    # the first of the named sentinels is not there
    hosts = ",".join(f"127.0.0.1:{port}" for port in (free_port(), *watching))

    async def test() -> None:
        inner = RedisStore(f"redis+sentinel://{hosts}/mine/0", PATIENT, 3600)
        await inner.open()
        store = Guarded(inner, PATIENT)
        registry = Registry(store.labelsets, MemoryPictures(), MOST)
        names: list[str] = []
        ending = asyncio.Event()

        async def keep_writing() -> None:
            while not ending.is_set():
                name = f"set{len(names)}"
                with suppress(Problem):
                    await registry.write(new(name, 0, DEFINITION), None)
                    names.append(name)
                await asyncio.sleep(0.02)

        async def until(condition: Callable[[], Any]) -> None:
            await asyncio.to_thread(patiently, condition)

        async def goes_on() -> None:
            count = len(names)
            await until(lambda: len(names) > count + 10)

        writer = asyncio.create_task(keep_writing())
        await goes_on()
        await until(lambda: ask(watching[0], "SENTINEL", "FAILOVER", "mine") is not None)
        await until(lambda: (role(first), role(second)) == ("slave", "master"))
        await goes_on()
        # and the new one dies
        await asyncio.to_thread(ask, second, "SHUTDOWN", "NOSAVE")
        await until(lambda: role(first) == "master")
        await goes_on()
        ending.set()
        await writer
        # what replication had not carried over yet is published again by whoever knows it
        await registry.page("", END, MOST)
        for name in names:
            assert (await registry.current(name)).definition == DEFINITION
            assert await store.labelsets.get(name) is not None
        await whole(inner)
        assert store.state == "ok"
        await inner.close()

    asyncio.run(test())


def test_what_a_failover_lost_is_published_again_though_nobody_asks_for_it(start: Start) -> None:
    port = start("redis")

    async def test() -> None:
        store = RedisStore(f"redis://127.0.0.1:{port}", PATIENT, 3600)
        registry = Registry(store.labelsets, MemoryPictures(), MOST)
        before = await registry.write(new("changed", 0, DEFINITION), None)
        deleted = await registry.write(new("deleted", 0, DEFINITION), None)
        # what a replica has that lags
        old = {key: ask(port, "DUMP", key) for key in ask(port, "KEYS", "*")}
        after = await registry.write(new("changed", 0, OTHER), before)
        created = await registry.write(new("created", 0, DEFINITION), None)
        ask(port, "FLUSHALL")
        for key, value in old.items():
            ask(port, "RESTORE", key, 0, value)
        elsewhere = Registry(store.labelsets, MemoryPictures(), MOST)
        await elsewhere.delete(await elsewhere.current("deleted"))

        await registry.publish_lost()
        for known in (after, created):
            found = await elsewhere.current(known.name)
            assert found.definition == known.definition
            assert found.version >= known.version
        with pytest.raises(UnknownLabelset):
            await elsewhere.current(deleted.name)

        ask(port, "FLUSHALL")  # and with it what says that it was deleted
        await registry.publish_lost()
        assert await store.labelsets.head(created.name) is not None
        assert await store.labelsets.head(deleted.name) is None
        await store.close()

    asyncio.run(test())


def test_sentinels_that_know_no_such_service_are_a_store_that_is_away(
    start: Start, tmp_path: Path
) -> None:
    (port,) = sentinels(start, tmp_path, start("first"), count=1)

    async def test() -> None:
        address = f"127.0.0.1:{port}"
        gone = f"127.0.0.1:{free_port()}"
        store = RedisStore(f"redis+sentinel://{gone},{address}/other", 3 * PATIENT, 3600)
        with pytest.raises(StoreAway) as raised:
            await store.open()
        assert "no primary found for 'other'" in str(raised.value)
        assert f"{address} knows no primary of that name" in str(raised.value)
        assert f"connecting to {gone}" in str(raised.value)
        await store.close()

    asyncio.run(test())


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder with `ca.pem`, and `cert.pem` with `key.pem` that it signed for this machine."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=tmp_path)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    # Python 3.13 takes no authority that does not say what its key is for
    signs = ("-addext", "keyUsage=critical,keyCertSign")
    authority = ("-keyout", "ca.key", "-out", "ca.pem")
    openssl("req", "-x509", *curve, *signs, "-subj", "/CN=ca", *authority)
    openssl("req", *curve, "-subj", "/CN=here", "-keyout", "key.pem", "-out", "request.pem")
    (tmp_path / "names").write_text(LOCAL)
    openssl(
        *("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key"),
        *("-CAcreateserial", "-extfile", "names", "-out", "cert.pem"),
    )
    return tmp_path


def listening(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.mark.parametrize("clients", ["no", "yes"])
def test_sentinels_and_servers_are_reached_by_tls_with_an_authority_of_ones_own(
    start: Start, certificates: Path, clients: str
) -> None:
    options = []
    for name, file in (("ca-cert", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem")):
        options += [f"--tls-{name}-file", str(certificates / file)]
    options += ["--tls-replication", "yes", "--tls-auth-clients", clients]
    ports = free_port(), free_port()
    start("master", *options, "--tls-port", str(ports[0]), wait=False)
    file = certificates / "sentinel.conf"
    file.write_text(
        f"port 0\ntls-port {ports[1]}\nsentinel monitor mine 127.0.0.1 {ports[0]} 1\n"
        + "".join(
            f"{name.removeprefix('--')} {value}\n"
            for name, value in zip(options[::2], options[1::2], strict=True)
        )
    )
    start("sentinel", str(file), "--sentinel", wait=False)
    patiently(lambda: all(listening(port) for port in ports))
    authority = f"ssl_ca_certs={certificates / 'ca.pem'}"
    own = f"ssl_certfile={certificates / 'cert.pem'}&ssl_keyfile={certificates / 'key.pem'}"
    address = f"rediss+sentinel://127.0.0.1:{ports[1]}/mine"

    async def use(url: str) -> None:
        store = RedisStore(url, PATIENT, 3600)
        try:
            await store.open()
            await whole(store)
        finally:
            await store.close()

    async def test() -> None:
        await use(f"{address}?{authority}" + (f"&{own}" if clients == "yes" else ""))
        with pytest.raises(StoreAway, match="certificate verify failed"):
            await use(address)
        if clients == "yes":

            def is_told_why() -> bool:
                # in TLS 1.3 the refusal follows the handshake: a write may meet a closed connection
                with pytest.raises(StoreAway) as refused:
                    asyncio.run(use(f"{address}?{authority}"))
                return "certificate required" in str(refused.value)

            await asyncio.to_thread(patiently, is_told_why)

    asyncio.run(test())


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://host",
        "redis+sentinel://host/",
        "redis+sentinel:///mine",
        "redis+sentinel://host:port/mine",
        "redis+sentinel://host/mine/name",
        "redis+sentinel://:secret@host,/mine",
        "redis+sentinel://:secret@host/mine?no_option=secret",
    ],
)
def test_a_wrong_sentinel_url_is_told_in_one_line_without_its_password(
    url: str, tmp_path: Path
) -> None:
    with pytest.raises(StoreUnusable, match=r"redis\+sentinel://") as raised:
        open_store(url, tmp_path, 1.0, 3600, 0)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_coordinated_failover_heals_once_the_name_leads_to_the_new_master(start: Start) -> None:
    """As managed servers do it: the old master stays as a replica, the name leads elsewhere."""
    first = start("first")
    second = start("second", "--replicaof", f"127.0.0.1 {first}")
    patiently(lambda: b"master_link_status:up" in raw_info(second))

    async def test() -> None:
        leads_to = first
        closing: list[asyncio.StreamWriter] = []

        async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while data := await reader.read(1 << 16):
                    writer.write(data)
            writer.close()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            back, forth = await asyncio.open_connection("127.0.0.1", leads_to)
            closing.extend((writer, forth))
            await asyncio.gather(pipe(reader, forth), pipe(back, writer))

        name = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = name.sockets[0].getsockname()[1]
        inner = RedisStore(f"redis://127.0.0.1:{port}", PATIENT, 3600)
        await inner.open()
        store = Guarded(inner, PATIENT)
        await asyncio.gather(*(store.labelsets.get("pets") for _ in range(8)))

        def takes_over() -> bool:  # refused until the replica has acknowledged what it has
            ask(first, "FAILOVER", "TO", "127.0.0.1", second)
            return role(second) == "master"

        await asyncio.to_thread(patiently, takes_over)
        with pytest.raises(StoreAway):
            await store.labelsets.write("pets", b"", None, MOST)
        # connections that stand would go on to lead to the old one, which still answers
        leads_to = second
        end = time.monotonic() + 120
        while store.state != "ok":
            assert time.monotonic() < end
            with suppress(StoreAway):
                await store.ping()
            await asyncio.sleep(0.1)
        assert (await store.labelsets.write("pets", b"", None, MOST)).version == 1
        await inner.close()
        name.close()
        for writer in closing:
            writer.close()

    asyncio.run(asyncio.wait_for(test(), 300))


def raw_info(port: int) -> bytes:
    with Redis(host="127.0.0.1", port=port) as client:
        return str(client.info("replication")).replace("': '", ":").encode()


def cluster(start: Start, *ranges: tuple[int, int]) -> list[int]:
    buses = [free_port() for _ in ranges]
    ports = [
        start(
            f"node{number}",
            "--cluster-enabled",
            "yes",
            "--cluster-config-file",
            "nodes.conf",
            "--cluster-port",
            str(bus),
        )
        for number, bus in enumerate(buses)
    ]
    for port, (low, high) in zip(ports, ranges, strict=True):
        ask(port, "CLUSTER", "ADDSLOTSRANGE", low, high)
        ask(port, "CLUSTER", "MEET", "127.0.0.1", ports[0], buses[0])
    for port in ports:
        patiently(lambda port=port: b"cluster_state:ok" in raw(port, "CLUSTER", "INFO"))
    return ports


def raw(port: int, *command: str) -> bytes:
    with Redis(host="127.0.0.1", port=port) as client:
        return str(client.execute_command(*command)).replace("': '", ":").encode()


def test_a_cluster_ends_the_start_with_one_line_unless_all_keys_lie_on_the_node(
    start: Start,
) -> None:
    low, high = cluster(start, (0, 8191), (8192, 16383))

    async def opened(port: int, prefix: str) -> str:
        store = RedisStore(f"redis://127.0.0.1:{port}", PATIENT, 3600, prefix)
        try:
            await store.open()
            await whole(store)
        except StoreUnusable as error:
            return str(error)
        finally:
            await store.close()
        return ""

    async def test() -> None:
        for port in (low, high):
            refusal = await opened(port, "openvocab:")
            assert "OPENVOCAB_STORE_PREFIX" in refusal
        answers = [await opened(port, "{openvocab}:") for port in (low, high)]
        assert answers.count("") == 1  # the node that has the slot
        # the other one says which
        assert f"lie on 127.0.0.1:{(low, high)[answers.index('')]}: name that node" in "".join(
            answers
        )
        assert "\n" not in "".join(answers)

    asyncio.run(test())


def test_two_installations_share_a_database_by_their_prefixes(start: Start) -> None:
    port = start("shared")

    async def test() -> None:
        one, two = (
            RedisStore(f"redis://127.0.0.1:{port}", PATIENT, 3600, prefix)
            for prefix in ("a:", "b:")
        )
        await one.open()
        await two.open()
        await one.labelsets.write("pets", b"one", None, 1)
        assert await two.labelsets.get("pets") is None
        await two.labelsets.write("pets", b"two", None, 1)
        assert await one.labelsets.get("pets") == LabelSetRecord("pets", 1, b"one")
        await one.close()
        await two.close()

    asyncio.run(test())
    with Redis(host="127.0.0.1", port=port) as client:
        assert {key[:2] for key in client.scan_iter()} == {b"a:", b"b:"}


def test_a_server_that_still_loads_its_data_is_away_and_then_back_with_everything(
    start: Start,
) -> None:
    port = start("loading")

    async def fill() -> None:
        store = RedisStore(f"redis://127.0.0.1:{port}", PATIENT, 3600)
        await store.open()
        for number in range(300):
            await store.labelsets.write(f"{number}", b"body", None, MOST)
        await store.close()

    asyncio.run(fill())
    ask(port, "SAVE")
    ask(port, "SHUTDOWN", "NOSAVE")
    # some 15 s, or until the delay is taken away
    slow = ("--key-load-delay", "50000", "--loading-process-events-interval-bytes", "1024")
    start("loading", *slow, port=port, wait=False)
    patiently(lambda: loads(port))

    async def test() -> None:
        store = Guarded(RedisStore(f"redis://127.0.0.1:{port}", PATIENT, 3600), PATIENT)
        errors: list[str] = []
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                assert await store.labelsets.get("299") == LabelSetRecord("299", 1, b"body")
                break
            except StoreAway as error:
                errors.append(str(error))
                await asyncio.to_thread(ask, port, "CONFIG", "SET", "key-load-delay", "0")
        assert any("loading" in error.lower() for error in errors), errors[:3]
        assert store.state == "ok"
        assert len(await store.labelsets.recent()) == 300
        await store.close()

    asyncio.run(test())


def loads(port: int) -> bool:
    with Redis(host="127.0.0.1", port=port, retry=Retry(NoBackoff(), 0)) as client:
        try:
            client.ping()
        except BusyLoadingError:
            return True
        except RedisError:
            return False
    pytest.fail("the server has loaded everything already")
