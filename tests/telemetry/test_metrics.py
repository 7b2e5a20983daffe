"""What is counted, by driving a real server, and how processes count together."""

import asyncio
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from app.classify import canary
from app.classify.canary import Canary
from app.classify.ensemble import Ensemble
from app.server.certificates import check_certificate, valid_until
from app.server.gauges import memory_held
from app.stores.lru import ByteLru
from app.stores.memory import MemoryStore
from app.stores.vectors import TwoLevels
from app.telemetry.metrics import Metrics
from app.telemetry.shared_memory import SCRATCH, SIZE, WORD, Board
from app.telemetry.spans import Stages
from benchmarks import metrics_page, servers
from benchmarks.scraping import Scraped, count_until_killed
from models.encoder import Encoder
from tests.conftest import Serve

TOTAL = "openvocab_requests_total"

wait_until = partial(servers.wait_until, seconds=60)


def read(client: httpx.Client) -> Scraped:
    return Scraped(client.get("/metrics").raise_for_status().text)


def read_own(metrics: Metrics) -> Scraped:
    return Scraped(metrics.text().decode())


@pytest.fixture(scope="module")
def counting(pictogram: Encoder, serve: Serve) -> Iterator[httpx.Client]:
    """A server of its own, with an image cache."""
    with serve(pictogram, image_cache_bytes=1_000_000, max_image_bytes=200_000) as client:
        yield client


def classify(client: httpx.Client, picture: Path, labels: str) -> httpx.Response:
    files = {"image": picture.read_bytes()}
    return client.post("/classify", files=files, data={"labels": labels})


def grown(client: httpx.Client, act: Callable[[], object]) -> Callable[..., float]:
    """By how much each figure grew while something was done."""
    before = read(client)
    act()
    after = read(client)
    return lambda name, **labels: after(name, **labels) - before(name, **labels)


def test_a_request_is_counted_with_its_stages_bytes_and_batches(
    counting: httpx.Client, samples: dict[str, Path]
) -> None:
    picture = samples["key"]
    by = grown(counting, lambda: classify(counting, picture, "a key,a spoon"))
    assert by("openvocab_requests_total", route="/classify", status="200") == 1
    assert by("openvocab_request_seconds_count", route="/classify") == 1
    assert by("openvocab_request_seconds_bucket", route="/classify", le="+Inf") == 1
    assert 0 < by("openvocab_request_seconds_sum", route="/classify") < 30
    for stage in ("decode", "queue", "encode", "text", "score"):
        assert by("openvocab_stage_seconds_count", stage=stage) == 1
    assert by("openvocab_stage_seconds_count", stage="total") == 0
    assert by("openvocab_received_bytes_total") > picture.stat().st_size
    assert by("openvocab_images_total", format="jpeg") == 1
    assert by("openvocab_batch_size_sum", kind="image", model="pictogram") == 1
    assert by("openvocab_batch_size_count", kind="image", model="pictogram") == 1
    # two labels in the templates of the model, in one batch
    assert by("openvocab_batch_size_count", kind="text", model="pictogram") == 1
    assert by("openvocab_batch_size_sum", kind="text", model="pictogram") >= 2
    assert by("openvocab_forward_seconds_count", kind="text", model="pictogram") == 1
    for kind in ("image", "text"):
        assert by("openvocab_device_busy_seconds_total", kind=kind, model="pictogram") > 0


def test_each_level_of_the_caches_is_counted(
    counting: httpx.Client, samples: dict[str, Path]
) -> None:
    def ask(labels: str) -> Callable[..., float]:
        return grown(counting, lambda: classify(counting, samples["dog"], labels))

    by = ask("a hound,a whale")
    assert by("openvocab_label_vectors_total", level="computed") == 2
    assert by("openvocab_cache_lookups_total", cache="images", result="miss") == 1
    by = ask("a hound,a whale")  # the same list again, and the same picture
    assert by("openvocab_cache_lookups_total", cache="label_lists", result="hit") == 1
    assert by("openvocab_cache_lookups_total", cache="images", result="hit") == 1
    assert by("openvocab_label_vectors_total", level="memory") == 0
    by = ask("a whale,a hound")
    assert by("openvocab_label_vectors_total", level="memory") == 2
    assert by("openvocab_label_vectors_total", level="computed") == 0
    now = read(counting)
    assert now("openvocab_cache_entries", cache="images") >= 1
    assert 0 < now("openvocab_cache_bytes", cache="images") <= 1_000_000
    assert now("openvocab_cache_max_bytes", cache="images") == 1_000_000


def test_problems_are_counted_by_type(counting: httpx.Client) -> None:
    labels = {"labels": "cat,dog"}  # without, the default label set would be built

    def wrong() -> None:
        for image, status in ((b"no picture", 415), (b"", 422)):
            response = counting.post("/classify", files={"image": image}, data=labels)
            assert response.status_code == status
        assert counting.post("/classify", content=bytes(300_000)).status_code == 413
        assert counting.get("/nowhere").status_code == 404

    by = grown(counting, wrong)
    assert by("openvocab_problems_total", error_type="unsupported_image") == 1
    assert by("openvocab_problems_total", error_type="invalid") == 1
    assert by("openvocab_problems_total", error_type="too_large") == 1
    assert by("openvocab_problems_total", error_type="not_found") == 1
    # an address that does not exist makes no series of its own
    assert by("openvocab_requests_total", route="none", status="404") == 1
    assert not any("nowhere" in str(key) for key in read(counting).found)


def test_builds_of_label_sets_are_counted_and_never_named(counting: httpx.Client) -> None:
    def register() -> None:
        body = {"labels": ["a lighthouse", "a harbour", "a gull"]}
        put = counting.put("/labelsets/secret-coast", json=body, params={"wait": True})
        assert put.status_code == 201
        long = {"labels": ["x " * 90]}  # more tokens than the model reads
        counting.put("/labelsets/too-long", json=long, params={"wait": True})

    by = grown(counting, register)
    assert by("openvocab_labelset_builds_total", result="built") == 1
    assert by("openvocab_labelset_builds_total", result="refused") == 1
    assert by("openvocab_labelset_builds_total", result="failed") == 0
    assert by("openvocab_labelset_build_labels_total") == 3
    assert by("openvocab_labelset_build_seconds_count") == 1
    assert by("openvocab_store_calls_total", call="write", result="ok") >= 2
    assert by("openvocab_store_seconds_count", call="write") >= 2
    assert read(counting)("openvocab_labelset_builds_running") == 0
    assert read(counting)("openvocab_labelsets_in_memory", model="pictogram") == 1
    text = counting.get("/metrics").text
    assert not any(word in text for word in ("coast", "lighthouse", "too-long"))


def test_a_page_that_processes_share_counts_once(tmp_path: Path) -> None:
    (tmp_path / "smaps_rollup").write_text("Rss:  9000 kB\nPss:  3000 kB\nPss_Anon:  2000 kB\n")
    figures = {"process_resident_memory_bytes": 9_216_000.0}
    assert memory_held(lambda: figures, tmp_path)() == 3_072_000
    # another system
    assert memory_held(lambda: figures, tmp_path / "none", children=True)() == 9_216_000


def test_processes_that_a_server_starts_count_as_its_memory(tmp_path: Path) -> None:
    for pid, share in (("self", 3000), ("12", 40), ("13", 50)):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "smaps_rollup").write_text(f"Rss: 9000 kB\nPss: {share} kB\n")
    # 14 ended meanwhile
    for thread, pids in (("7", "12 14 "), ("8", "13 "), ("9", "")):
        (tmp_path / "self" / "task" / thread).mkdir(parents=True)
        (tmp_path / "self" / "task" / thread / "children").write_text(pids)
    assert memory_held(dict, tmp_path / "self")() == 3000 * 1024
    assert memory_held(dict, tmp_path / "self", children=True)() == 3090 * 1024


def test_a_real_child_counts_as_memory() -> None:
    code = "import time; held = b'x' * 100_000_000; time.sleep(60)"
    with subprocess.Popen(["/bin/sh", "-c", '"$@" & wait', "sh", sys.executable, "-c", code],
                          start_new_session=True) as parent:  # fmt: skip
        process = Path(f"/proc/{parent.pid}")

        def seen(*, children: bool) -> float:
            return memory_held(dict, process, children=children)() or 0.0

        try:
            wait_until(lambda: seen(children=True) > 100_000_000)
            assert seen(children=False) < 10_000_000
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


def test_what_a_process_is_and_has_is_told(counting: httpx.Client, pictogram: Encoder) -> None:
    now, info = read(counting), pictogram.info
    assert now(
        "openvocab_model_info", model="pictogram", default="true", fingerprint=info.fingerprint,
        precision="fp32", device="cpu", backend=info.backend,
    ) == 1  # fmt: skip
    assert any(name == "openvocab_build_info" for name, _ in now.found)
    assert now("process_resident_memory_bytes") < now("openvocab_memory_limit_bytes")
    assert now("process_resident_memory_bytes") > 50_000_000
    assert 20_000_000 < now("openvocab_memory_bytes") < now("openvocab_memory_limit_bytes")
    assert now("process_cpu_seconds_total") > 0
    assert 0 < now("process_open_fds") < now("process_max_fds")
    assert 0 < time.time() - now("process_start_time_seconds") < 86_400
    assert now("openvocab_workers") == now("openvocab_workers_serving") == 1
    assert now("openvocab_canary_good") == 1
    assert now("openvocab_store_away") == now("openvocab_draining") == 0
    assert now("openvocab_store_state", state="ok") == 1
    assert now("openvocab_max_queued_images", model="pictogram") == 512
    assert pictogram.memory() is None  # a CPU has none of its own
    assert not any(name.startswith("openvocab_device_memory") for name, _ in now.found)
    # what has not happened is 0, not missing: a rate needs a start
    for renewal in ("died", "hung", "renewed"):
        assert ("openvocab_worker_renewals_total", frozenset({("reason", renewal)})) in now.found


def test_queues_tell_how_long_and_how_old_they_are(
    plain_pictogram: Encoder, serve: Serve, samples: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    go = threading.Event()
    launch = plain_pictogram._launch_images

    def late(batch: list[object]) -> object:
        go.wait(240)
        return launch(batch)  # type: ignore[arg-type]

    with (
        serve(plain_pictogram, max_batch=1, max_queue=4, request_timeout=300) as client,
        ThreadPoolExecutor(3) as pool,
    ):
        monkeypatch.setattr(plain_pictogram, "_launch_images", late)
        futures = [pool.submit(classify, client, samples["cat"], "cat,dog") for _ in range(3)]
        in_flight = plain_pictogram.info.in_flight
        try:
            wait_until(
                lambda: read(client)("openvocab_queued_images", model="pictogram") == 3 - in_flight
            )
            first = read(client)("openvocab_oldest_queued_seconds", kind="image", model="pictogram")
            wait_until(lambda: read(client)("openvocab_busy_seconds", part="model") > 0.1)
            now = read(client)
        finally:
            go.set()
        assert now("openvocab_oldest_queued_seconds", kind="image", model="pictogram") > first
        assert now("openvocab_in_service") == 3
        assert now("openvocab_max_in_service") == 5
        assert now("openvocab_pending_bytes") > 3 * samples["cat"].stat().st_size
        assert [future.result().status_code for future in futures] == [200] * 3
        assert read(client)("openvocab_oldest_queued_seconds", kind="image", model="pictogram") == 0


def test_a_model_that_turns_bad_is_noticed_though_nobody_asks(
    monkeypatch: pytest.MonkeyPatch, pictogram: Encoder
) -> None:
    monkeypatch.setattr(canary, "EVERY", 0.01)
    monkeypatch.setattr(canary, "KEPT", 0.0)

    async def test() -> None:
        canary = Canary(pictogram)
        assert not canary.good
        vectors = TwoLevels(ByteLru(0), MemoryStore().vectors, pictogram.info.embedding_width)
        await canary.learn(Ensemble(pictogram, vectors, 1000))
        assert canary.good
        good_at = canary.good_at
        looking = asyncio.create_task(canary.keep_looking())
        while canary.good_at == good_at:
            await asyncio.sleep(0.01)
        assert canary.good
        failed: Future[object] = Future()
        failed.set_exception(RuntimeError("the device is gone"))
        broken = SimpleNamespace(submit_images=lambda _: failed, info=pictogram.info, slowest=0.0)
        monkeypatch.setattr(canary, "_encoder", broken)
        while canary.good:
            await asyncio.sleep(0.01)
        looking.cancel()

    asyncio.run(asyncio.wait_for(test(), 240))


# several processes: tests/server/test_workers.py has whole servers


def test_a_killed_process_leaves_what_it_counted_and_nothing_else() -> None:
    board = Board(3)
    metrics = Metrics(board, board.take() or 0)
    metrics.watch("openvocab_in_service", "", lambda: 1)
    page = board.take()
    assert page is not None
    context = multiprocessing.get_context("spawn")
    event = context.Event()
    process: SpawnProcess = context.Process(
        target=count_until_killed, args=(board, page, event, 1000)
    )
    process.start()
    try:
        assert event.wait(240)
        assert read_own(metrics)("openvocab_in_service") == 4
        failed = partial(Scraped.__call__, name=TOTAL, route="/classify", status="500")
        wait_until(lambda: failed(read_own(metrics)) > 0)  # it is counting without end
    finally:
        process.kill()
        process.join()
    board.give_back(page)
    values = read_own(metrics)
    assert values("openvocab_requests_total", route="/classify", status="200") == 1000
    lost = failed(values)
    assert lost > 0
    assert values("openvocab_in_service") == 1  # what the dead does is over
    # who comes next counts on, and says nothing of the dead one's gauges
    assert board.take() == page
    heir = Metrics(board, page)
    heir.answered("/classify", 500, 0.01, Stages(), None)
    heir.watch("openvocab_in_service", "", lambda: 5)
    assert read_own(heir)("openvocab_in_service") == 6
    assert failed(read_own(metrics)) == lost + 1


def test_no_file_has_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for with_memfd in (True, False):
        if not with_memfd:
            monkeypatch.delattr(os, "memfd_create")
        first, second = Board(1), Board(1)
        first.pages[0].place(("a",), 1)
        assert list(tmp_path.iterdir()) == []
        assert second.pages[0].words[0] == 0  # a server of its own


def test_a_full_page_keeps_what_it_has() -> None:
    metrics = Metrics(Board(1))
    metrics.answered("/classify", 200, 0.01, Stages(), None)
    for number in range(SIZE // WORD // 40):
        metrics.answered(f"/{number}", 200, 0.01, Stages(), None)
    metrics.answered("/classify", 200, 0.01, Stages(), None)
    values = read_own(metrics)
    assert values("openvocab_requests_total", route="/classify", status="200") == 2
    page = metrics._page
    assert page.words[0] <= len(page.words) - SCRATCH


def test_a_value_that_cannot_be_read_takes_no_other_away(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    metrics.watch("openvocab_broken", "", lambda: 1 / 0)
    metrics.watch("openvocab_whole", "", lambda: 2)
    metrics.watch("openvocab_several", "", lambda: {("a",): 1.0}, "kind", together="max")
    assert "\nopenvocab_broken " not in metrics.text().decode()
    assert read_own(metrics)("openvocab_whole") == 2
    assert read_own(metrics)("openvocab_several", kind="a") == 1
    assert "openvocab_broken cannot be read" in caplog.text


@pytest.mark.parametrize("days", [30, 20_000])  # the second one ends after 2049: in other digits
def test_the_end_of_a_certificate_is_read(days: int, tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", str(days),
         "-subj", "/CN=here", "-out", str(file), "-keyout", str(tmp_path / "key.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    end_date = subprocess.run(
        ["openssl", "x509", "-enddate", "-noout", "-in", str(file)],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    expected = datetime.strptime(end_date, "notAfter=%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
    assert valid_until(file) == expected.timestamp()
    # as OpenSSL writes and takes them, too: notes in another encoding, and another name
    trusted = ["openssl", "x509", "-trustout", "-in", str(file), "-out", str(file)]
    subprocess.run(trusted, check=True, capture_output=True)
    file.write_bytes("Gültig für: hier\n".encode("latin-1") + file.read_bytes())
    assert b"BEGIN TRUSTED CERTIFICATE" in file.read_bytes()
    assert check_certificate(file, tmp_path / "key.pem") is None
    assert valid_until(file) == expected.timestamp()
    file.write_text("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n")
    with pytest.raises(ValueError, match="damaged"):
        valid_until(file)


def test_the_page_names_every_metric(pictogram: Encoder) -> None:
    families = asyncio.run(metrics_page.families(pictogram))
    assert metrics_page.PAGE.read_text(encoding="utf-8") == metrics_page.page(families), (
        "run: python -m benchmarks.metrics_page"
    )
    for family in families:
        assert family.name.startswith(("openvocab_", "process_"))
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert not math.isnan(family.cells)
