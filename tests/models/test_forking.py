"""An encoder that is loaded once and used in processes forked from the one that loaded it."""

import errno
import hashlib
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from models import forking, processor
from models.encoder import Encoder
from models.forking import survives
from models.loader import load_to_share

# 12 processes at once, each with sizes that its parent never met
FORKED = """
import gc, multiprocessing, sys
from pathlib import Path
import numpy as np
from models.forking import import_ahead, survives
from models.loader import load, load_to_share

how = {"device": "cpu", "precision": "fp32", "threads": 1, "cores": 0, "backend": "auto"}
how["exports"] = Path(sys.argv[1])
import_ahead("cpu", "auto")
loaded = load_to_share("pictogram", **how)
assert loaded is not None
assert survives(loaded)
assert "torch" not in sys.modules
rng = np.random.default_rng(7)
shape = 9, 3, loaded.info.image.height, loaded.info.image.width
images = list(rng.integers(0, 256, shape, np.uint8))
texts = [" ".join(["cat dog"] * number) for number in range(1, 10)]
alone = load("pictogram", **how)
expected = [
    (alone.submit_images(images[:n]).result(), alone.submit_texts(texts[:n]).result())
    for n in range(1, 10)
]

def work(number):
    loaded.restart()
    for n in [*range(number % 9, 9), *range(number % 9)]:
        rows = loaded.submit_images(images[:n + 1]), loaded.submit_texts(texts[:n + 1])
        for some, right in zip(rows, expected[n]):
            assert np.abs(some.result() - right).max() < 1e-5, (number, n)
    if number == 0:  # a further model, which is unloaded again
        other = load("pictogram", **how)
        other.share_device(loaded)
        assert np.abs(other.submit_images(images).result() - expected[8][0]).max() < 1e-5
        other.close()
        del other
        gc.collect()
    loaded.close()

workers = [multiprocessing.get_context("fork").Process(target=work, args=(n,), daemon=True)
           for n in range(12)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join(600)
print([worker.exitcode for worker in workers])
"""


def test_forked_processes_compute_what_the_one_before_them_does(exports: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(exports)],
        capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == str([0] * 12), done.stderr


def test_an_encoder_that_a_fork_breaks_is_not_shared(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = os.getpid()

    def hanging(batch: Any) -> Any:
        if os.getpid() != here:
            time.sleep(600)
        return np.ones((len(batch), 4), np.float32)

    def differing(batch: Any) -> Any:
        return np.full((len(batch), 4), 1 + (os.getpid() != here), np.float32)

    def failing(batch: Any) -> Any:
        if os.getpid() != here:
            raise RuntimeError
        return np.ones((len(batch), 4), np.float32)

    def alike(batch: Any) -> Any:
        return np.ones((len(batch), 4), np.float32)

    for tower, expected in ((alike, True), (hanging, False), (differing, False), (failing, False)):
        monkeypatch.setattr(forking, "TRIAL_SECONDS", 2.0 if tower is hanging else 240.0)
        caplog.clear()
        assert survives(simple(tower)) is expected
        warned = "each worker loads its own" in caplog.text
        assert warned is not expected
        assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_where_no_process_can_be_forked_each_worker_loads_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", full)
    assert not survives(simple(lambda batch: np.ones((len(batch), 4), np.float32)))
    assert "no process can be forked" in caplog.text


def test_a_trial_ends_even_if_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forking, "TRIAL_SECONDS", 0.5)
    encoder = simple(lambda _batch: time.sleep(600))
    encoder.close()
    none: Any = np.zeros((3, 2, 2), np.uint8)
    trial = multiprocessing.get_context("fork").Process(
        target=forking._try, args=(encoder, none, none), daemon=True
    )
    trial.start()
    trial.join(300)
    assert trial.exitcode == -signal.SIGALRM


def test_a_child_ends_with_the_process_that_asked_for_it() -> None:
    child = (
        "import time\n"
        "from models.forking import end_with_parent\n"
        "end_with_parent()\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
        "print('lived on')\n"
    )
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as asked:
        assert asked.stdout is not None
        assert asked.stdout.readline() == "ready\n"
        asked.kill()
        # the child holds the pipe's other end until it is gone
        assert asked.stdout.read() == ""


def simple(tower: Callable[[Any], Any]) -> Encoder:
    """An encoder of four dimensions, its images by `tower`."""
    info = SimpleNamespace(in_flight=1, embedding_width=4, image=SimpleNamespace(height=2, width=2))
    tokens: Any = lambda prompts, _start=0: np.zeros((len(prompts), 8), np.int64)  # noqa: E731
    tokens.context_length = 8
    images = SimpleNamespace(launch=lambda batch: lambda: tower(batch))
    texts = SimpleNamespace(
        most_prompts=8, at_full_length=lambda ids: np.ones((len(ids), 4), np.float32)
    )
    return Encoder(info, tokens, images, texts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "other",
    [{"threads": 2}, {"threads": 0}, {"backend": "torch"}, {"device": "cuda"}, {"device": "gpu"}],
    ids=str,
)
def test_only_one_thread_of_openvino_on_a_cpu_is_shared(
    other: dict[str, Any], exports: Path
) -> None:
    how: dict[str, Any] = {
        "device": "cpu", "precision": "fp32", "threads": 1, "cores": 0, "backend": "auto",
        "exports": exports,
    }  # fmt: skip
    assert load_to_share("pictogram", **{**how, **other}) is None


def test_where_there_may_be_a_gpu_nothing_is_shared_and_no_driver_asked(
    exports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "may_have_gpu", lambda: True)
    monkeypatch.setattr("models.device.devices", lambda kind: pytest.fail(f"asked for {kind}"))
    how: dict[str, Any] = {
        "precision": "fp32", "threads": 1, "cores": 0, "backend": "auto", "exports": exports,
    }  # fmt: skip
    assert load_to_share("pictogram", device="auto", **how) is None
    encoder = load_to_share("pictogram", device="cpu", **how)
    assert encoder is not None
    encoder.close()


def test_before_the_fork_threads_that_are_awake_are_waited_for() -> None:
    done = threading.Event()

    def work() -> None:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000)  # without the interpreter's lock
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    forking._let_threads_rest()
    assert done.is_set()
    thread.join()
