"""A model or decoder that hangs, raises, answers nonsense or drifts, in a live process."""

import asyncio
import io
import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest
from PIL import Image

from app.server.exit_status import HUNG
from app.server.watchdog import LOOKS, Heartbeat, Watchdog
from benchmarks import servers
from benchmarks.reliability.misbehaving import Fault, Faults, misbehaving
from benchmarks.servers import Server

FIELDS = {"labels": "cat,dog,rocket", "templates": "pictogram"}


wait_until = partial(servers.wait_until, seconds=120)
# more than a busy machine takes for what a test does while the model is blocked
HANG_SECONDS = 20


@pytest.fixture(scope="module")
def log(module_data_dir: Path) -> Path:
    return module_data_dir / "server.log"


@pytest.fixture(scope="module")
def live(log: Path) -> Iterator[tuple[Server, Faults]]:
    with misbehaving(log.parent, hang_timeout=HANG_SECONDS, request_timeout=300) as live:
        yield live


@pytest.fixture
def server(live: tuple[Server, Faults]) -> Iterator[Server]:
    """The server; what a test breaks is whole again at its end, without a restart."""
    openvocab, faults = live
    yield openvocab
    faults.set(Fault())
    wait_until(lambda: openvocab.client.get("/readyz").status_code == 200)


@pytest.fixture
def faults(live: tuple[Server, Faults]) -> Faults:
    return live[1]


def classify(server: Server, picture: bytes) -> httpx.Response:
    return httpx.post(f"{server.url}/classify", files={"image": picture}, data=FIELDS, timeout=300)


def red() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), (255, 0, 0)).save(out, "PNG")
    return out.getvalue()


def together(server: Server, faults: Faults, pictures: list[bytes], fault: Fault) -> list[int]:
    """The statuses of requests that meet in one batch, which then is under a fault."""
    faults.set(Fault(blocked=True))
    with ThreadPoolExecutor(len(pictures) + 1) as pool:
        first = pool.submit(classify, server, pictures[0])  # holds the model
        encoded = faults.encoded()
        futures = [pool.submit(classify, server, picture) for picture in pictures]
        wait_until(lambda: queued(server) == len(pictures) + 1)
        faults.set(fault)
        assert first.result().status_code == 200
        status_codes = [future.result().status_code for future in futures]
    assert faults.encoded() > encoded
    return status_codes


def queued(server: Server) -> int:
    lines = server.client.get("/metrics").text.splitlines()
    return int(sum(float(x.split()[1]) for x in lines if x.startswith("openvocab_in_service ")))


@pytest.mark.parametrize("guilty", ["raises", "nan"])
def test_a_picture_that_breaks_the_model_fails_alone(
    guilty: str, server: Server, faults: Faults, samples: dict[str, Path]
) -> None:
    good = [samples[name].read_bytes() for name in ("cat", "dog", "pizza", "rocket", "key")]
    status_codes = together(server, faults, [*good, red()], Fault(guilty=guilty))
    assert status_codes == [200] * len(good) + [500]
    refused = classify(server, red())
    assert (refused.status_code, refused.json()["error_type"]) == (500, "internal")
    assert "forward pass" not in refused.text
    assert server.client.get("/readyz").status_code == 200


def test_a_batch_that_is_too_large_for_the_memory_is_done_in_parts(
    server: Server, faults: Faults, samples: dict[str, Path]
) -> None:
    pictures = [path.read_bytes() for path in samples.values()]
    assert together(server, faults, pictures, Fault(most=2)) == [200] * len(pictures)


def test_a_model_that_always_raises_is_not_ready_until_it_works_again(
    server: Server, faults: Faults, samples: dict[str, Path]
) -> None:
    faults.set(Fault(raises=True))
    assert classify(server, samples["cat"].read_bytes()).status_code == 500
    wait_until(lambda: server.client.get("/readyz").status_code == 503)
    assert server.client.get("/readyz").json()["error_type"] == "not_ready"
    assert server.client.get("/healthz").status_code == 200
    faults.set(Fault())
    wait_until(lambda: server.client.get("/readyz").status_code == 200)
    assert classify(server, samples["cat"].read_bytes()).status_code == 200


def test_a_model_that_drifts_is_not_ready(server: Server, faults: Faults) -> None:
    faults.set(Fault(drift=True))
    wait_until(lambda: server.client.get("/readyz").status_code == 503)
    assert "differently" in server.client.get("/readyz").json()["detail"]


def ended_by(work: Callable[[], float | None], looks: int = sys.maxsize) -> list[int]:
    """The statuses with which a watchdog would have ended the process in so many looks."""
    statuses: list[int] = []
    count = 0

    def looked_at() -> float | None:
        nonlocal count
        count += 1
        return work() if count <= looks else None

    watchdog = Watchdog(0.2, {"the work": looked_at}, statuses.append)
    wait_until(lambda: count > looks or bool(statuses))
    watchdog.close()
    return statuses


def test_work_that_goes_on_is_left_alone() -> None:
    assert ended_by(lambda: None, 3 * LOOKS) == []
    assert ended_by(time.monotonic, 3 * LOOKS) == []


def test_work_that_stands_still_is_ended_once() -> None:
    start = time.monotonic()
    assert ended_by(lambda: start) == [HUNG]


def test_a_process_that_was_stopped_for_a_while_does_not_hang() -> None:
    """Its clock went on, and nothing else did: that is one look, not as many as it takes."""
    hours_ago = time.monotonic() - 7200
    assert ended_by(lambda: hours_ago, LOOKS) == []
    assert ended_by(lambda: hours_ago, LOOKS + 1) == [HUNG]


def test_an_event_loop_that_stands_still_is_noticed() -> None:
    async def stand_still() -> list[int]:
        heart = Heartbeat(asyncio.get_running_loop())
        statuses: list[int] = []
        watchdog = Watchdog(1.0, {"the event loop": heart.busy_since}, statuses.append)
        await asyncio.sleep(2.0)
        assert statuses == []
        wait_until(lambda: bool(statuses))
        watchdog.close()
        return statuses

    assert asyncio.run(stand_still()) == [HUNG]


def test_an_event_loop_that_is_closed_does_not_hang() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    assert Heartbeat(loop).busy_since() is None


def test_a_forward_pass_that_hangs_is_not_ready_and_ends_the_process(
    live: tuple[Server, Faults], log: Path, samples: dict[str, Path]
) -> None:
    """The last one here, because it ends the server that the others use."""
    server, faults = live
    faults.set(Fault(hang="encoder"))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(classify, server, samples["cat"].read_bytes())
        wait_until(lambda: faults.now().hang == "")  # the model has met it
        assert server.client.get("/healthz").status_code == 200
        wait_until(lambda: server.client.get("/readyz").status_code == 503)
        assert server.process.wait(120) == HUNG
        assert isinstance(future.exception(), httpx.TransportError)
    lines = [line for line in log.read_text().splitlines() if "hanging" in line]
    assert len(lines) == 1
    pattern = r"the model pictogram has been hanging for \d+ s \(hang_timeout is (\d+)\);"
    match = re.search(pattern, lines[0])
    assert match is not None
    assert int(match[1]) == HANG_SECONDS
