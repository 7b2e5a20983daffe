"""One process that serves on a socket, or several with one to watch over them.

Knows how processes begin and end; nothing of requests.
"""

import gc
import logging
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from app.logs import quiet_logging
from app.main import create_app, load_encoder
from app.settings import Settings
from models import ModelError

if TYPE_CHECKING:
    from models.encoder import Encoder

log = logging.getLogger("openvocab.workers")

# seconds: between two looks at a signal, and before a worker that ended is replaced
LOOK: Final = 0.2
PAUSES: Final = (0.1, 1.0, 5.0, 30.0)

# seconds beyond the request timeout that a worker may take to end
GRACE: Final = 15.0

MODEL_ERROR: Final = 3


def serve(settings: Settings, encoder: "Encoder", listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; what was accepted is answered first."""
    rest_garbage()
    config = uvicorn.Config(
        create_app(settings, encoder),
        log_level=settings.log_level,
        server_header=False,
        root_path=settings.root_path,
        timeout_graceful_shutdown=math.ceil(settings.request_timeout),
    )
    # the server raises the signal that ended it once more; a clean end is exit status 0
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        encoder.close()


def rest_garbage() -> None:
    """Spare the collector what is loaded and stays: each look at it stopped all for 0.3 s."""
    gc.collect()
    gc.freeze()


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
    ready: bool = False
    failures: int = 0
    again_at: float = 0.0


@dataclass(slots=True)
class Supervisor:
    """Starts workers on one socket, replaces those that die, and ends them all together."""

    settings: Settings
    listener: socket.socket
    count: int
    _workers: list[_Worker] = field(default_factory=list)
    _stopping: bool = False

    def run(self, announce: Any) -> int:
        """Until a signal: exit status 0. If a worker cannot even start: its exit status.

        `announce` is called once, when all workers serve.
        """
        context = multiprocessing.get_context("spawn")
        ready, told = context.SimpleQueue(), False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        self._workers = [
            _Worker(number, self._start(context, number, ready)) for number in range(self.count)
        ]
        status = 0
        while not self._stopping:
            alive = [w.process.sentinel for w in self._workers if w.process.is_alive()]
            multiprocessing.connection.wait(alive, timeout=LOOK)
            while not ready.empty():
                worker = self._workers[ready.get()]
                worker.ready, worker.failures = True, 0
            if not told and all(worker.ready for worker in self._workers):
                told = True
                announce()
            for worker in self._workers:
                if worker.process.is_alive() or self._stopping:
                    continue
                if not told and not worker.ready:
                    # never began to serve: the others will not either
                    status, self._stopping = worker.process.exitcode or 1, True
                elif self._due(worker):
                    worker.process = self._start(context, worker.number, ready)
        self._end()
        return status

    def _start(self, context: Any, number: int, ready: Any) -> SpawnProcess:
        arguments = (share(self.settings, self.count), self.listener, number, ready)
        process: SpawnProcess = context.Process(
            target=_work, args=arguments, name=f"openvocab worker {number}"
        )
        process.start()
        return process

    def _due(self, worker: _Worker) -> bool:
        """Whether a dead worker's replacement is to be started; one that keeps dying waits."""
        if worker.again_at == 0.0:
            pause = PAUSES[min(worker.failures, len(PAUSES) - 1)]
            log.error(
                "worker %d ended with status %s; a new one starts in %g s",
                worker.number, worker.process.exitcode, pause,
            )  # fmt: skip
            worker.failures += 1
            worker.ready, worker.again_at = False, time.monotonic() + pause
        if time.monotonic() < worker.again_at:
            return False
        worker.again_at = 0.0
        return True

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _end(self) -> None:
        for worker in self._workers:
            if worker.process.is_alive():
                worker.process.terminate()
        end = time.monotonic() + self.settings.request_timeout + GRACE
        for worker in self._workers:
            worker.process.join(max(0.0, end - time.monotonic()))
            if worker.process.is_alive():
                log.error("worker %d did not end and is killed", worker.number)
                worker.process.kill()


def _work(settings: Settings, listener: socket.socket, number: int, ready: Any) -> None:
    """One worker, in a process of its own."""
    # a terminal's Ctrl-C reaches every process; whoever watches over this one tells it to end
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    quiet_logging(settings.log_level)
    try:
        encoder = load_encoder(settings)
    except ModelError as error:
        sys.stderr.write(f"openvocab: {error}\n")
        sys.exit(MODEL_ERROR)
    ready.put(number)
    serve(settings, encoder, listener)


def _end_with(parent: Any) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
