"""Several processes that serve on one socket, and one that watches over them.

Knows how processes begin and end; nothing of requests.
"""

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess
from typing import Any, Final

from app.logs import quiet_logging
from app.main import load_encoder
from app.serving import START_ERROR, described, serve
from app.settings import Settings
from models import ModelError

log = logging.getLogger("openvocab.workers")

# seconds: between two looks at what happened, and before a worker that ended is replaced
LOOK: Final = 0.2
PAUSES: Final = (0.1, 1.0, 5.0, 30.0)

# a worker that served for so many seconds is no failure when it ends
STEADY: Final = 60.0

# seconds beyond the request timeout that a worker may take to end
GRACE: Final = 15.0

MODEL_ERROR: Final = 3
SIGNALLED: Final = 128  # a shell's exit status for a signal is this and its number


def share(settings: Settings, workers: int) -> Settings:
    """The settings of one of several workers: the cores are divided among them."""
    cores = max(1, (os.cpu_count() or 1) // workers)
    return settings.model_copy(
        update={
            "torch_threads": settings.torch_threads or cores,
            "decode_threads": settings.decode_threads or cores,
        }
    )


@dataclass(slots=True)
class _Worker:
    number: int
    process: SpawnProcess
    since: float | None = None  # when it began to serve
    failures: int = 0
    again_at: float | None = None


@dataclass(slots=True)
class Supervisor:
    """Starts workers on one socket, replaces those that die, and ends them all together."""

    settings: Settings
    listener: socket.socket
    count: int
    _workers: list[_Worker] = field(default_factory=list)
    _signal: int = 0

    def run(self, announce: Callable[[str], None]) -> int:
        """Until a signal: exit status 0. If a worker cannot even start: its exit status.

        `announce` is called once, when all workers serve, with what they serve.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        try:
            return self._watch(announce)
        finally:
            self._end()

    def _watch(self, announce: Callable[[str], None]) -> int:
        context = multiprocessing.get_context("spawn")
        ready, told = context.SimpleQueue(), False
        for number in range(self.count):
            self._workers.append(_Worker(number, self._start(context, number, ready)))
        while not self._signal:
            alive = [w.process.sentinel for w in self._workers if w.process.is_alive()]
            multiprocessing.connection.wait(alive, timeout=LOOK)
            while not ready.empty():
                number, line = ready.get()
                self._workers[number].since = time.monotonic()
                if not told and all(worker.since for worker in self._workers):
                    told = True
                    announce(line)
            for worker in self._workers:
                if worker.process.is_alive() or self._signal:
                    continue
                if not told and worker.since is None:
                    # never began to serve: the others will not either
                    code = worker.process.exitcode or START_ERROR
                    return code if code > 0 else SIGNALLED - code
                if self._due(worker):
                    self._replace(context, worker, ready)
        return 0 if told else SIGNALLED + self._signal

    def _start(self, context: Any, number: int, ready: Any) -> SpawnProcess:
        arguments = (share(self.settings, self.count), self.listener, number, ready)
        process: SpawnProcess = context.Process(
            target=_work, args=arguments, name=f"openvocab worker {number}"
        )
        # a terminal's Ctrl-C reaches every process, but it is ours to tell the workers to end
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        return process

    def _due(self, worker: _Worker) -> bool:
        """Whether a dead worker's replacement is to be started; one that keeps dying waits."""
        now = time.monotonic()
        if worker.again_at is None:
            if worker.since is not None and now - worker.since > STEADY:
                worker.failures = 0
            pause = PAUSES[min(worker.failures, len(PAUSES) - 1)]
            log.error(
                "worker %d ended with status %s; a new one starts in %g s",
                worker.number, worker.process.exitcode, pause,
            )  # fmt: skip
            worker.failures += 1
            worker.since, worker.again_at = None, now + pause
        return now >= worker.again_at

    def _replace(self, context: Any, worker: _Worker, ready: Any) -> None:
        worker.again_at = None
        try:
            worker.process = self._start(context, worker.number, ready)
        except OSError as error:  # no memory for a process is no reason to end the others
            log.error("worker %d cannot be started (%s)", worker.number, error)

    def _stop(self, number: int, _frame: object) -> None:
        self._signal = number

    def _end(self) -> None:
        self.listener.close()  # or the kernel goes on accepting what nobody will answer
        for worker in self._workers:
            if worker.process.is_alive():
                worker.process.terminate()
        end = time.monotonic() + self.settings.request_timeout + GRACE
        for worker in self._workers:
            worker.process.join(max(0.0, end - time.monotonic()))
            if worker.process.is_alive():
                log.error("worker %d did not end and is killed", worker.number)
                worker.process.kill()
                worker.process.join()


def _work(settings: Settings, listener: socket.socket, number: int, ready: Any) -> None:
    """One worker, in a process of its own."""
    parent = multiprocessing.parent_process()
    seconds = settings.request_timeout + GRACE
    threading.Thread(target=_end_with, args=(parent, seconds), daemon=True).start()
    quiet_logging(settings.log_level)
    try:
        encoder = load_encoder(settings)
    except ModelError as error:
        sys.stderr.write(f"openvocab: {error}\n")
        sys.exit(MODEL_ERROR)
    line = described(encoder.info)
    told = (number, line)
    sys.exit(serve(settings, encoder, listener, (signal.SIGTERM,), lambda: ready.put(told)))


def _end_with(parent: Any, seconds: float) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(seconds)
    os._exit(START_ERROR)
