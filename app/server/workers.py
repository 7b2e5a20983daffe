"""Several processes that serve on one socket, and the supervisor that watches them.

Knows how processes begin and end; nothing of requests.
"""

import contextlib
import gc
import logging
import multiprocessing
import os
import platform
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, Final

from app.server.build import load_encoder, load_shared_encoder
from app.server.cpus import available_cores
from app.server.exit_status import HUNG, MODEL_ERROR, SIGNALLED, START_ERROR
from app.server.gauges import watch_process
from app.server.run import FIRST_THREADS, described, permits, serve
from app.server.settings import Settings
from app.server.signals import REPLACED, give_up
from app.telemetry import logs
from app.telemetry.metrics import EVERY, Metrics
from app.telemetry.shared_memory import Board
from models import ModelError
from models.device import openvino_ran
from models.pages import limit_arenas

if TYPE_CHECKING:
    from models.encoder import Encoder

# seconds beyond those of a request and of draining that a worker may take to end
GRACE: Final = 15.0

# a worker that is spawned imports everything anew: other code too, if it was replaced
SPAWN: Final = "spawn"
# one that is forked shares what was imported; elsewhere system libraries do not survive a fork
FORK: Final = "fork"
START_METHOD: Final = FORK if platform.system() == "Linux" else SPAWN

# what ends or renews the process that watches; a worker decides for itself once it runs
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class WorkerProcess:
    """A worker as the one that watches sees it; it says `line` of itself when it serves."""

    process: BaseProcess
    pipe: Connection
    line: str | None = None

    @classmethod
    def start(
        cls,
        settings: Settings,
        listener: socket.socket,
        name: str,
        lifeline: "Lifeline",
        board: Board,
        page: int,
        method: str = START_METHOD,
        encoder: "Encoder | None" = None,
    ) -> "WorkerProcess":
        """Begin to load a model and to serve, and count on a page of the board.

        A worker that is forked can go on with an encoder that is loaded already.

        Raises OSError if there is no room for a process.
        """
        context: Any = multiprocessing.get_context(method)
        pipe, end = context.Pipe(duplex=False)
        process = context.Process(
            target=_work, args=(settings, listener, end, lifeline, board, page, encoder), name=name
        )
        # until it has handlers of its own a forked worker has ours
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            process.start()
        except OSError:
            pipe.close()
            raise
        finally:
            end.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return cls(process, pipe)

    def look(self) -> None:
        """Read its message, if there is one."""
        if self.line is None and self.pipe.poll():
            with contextlib.suppress(EOFError, OSError):  # it ended without a word
                self.line = self.pipe.recv()

    def leave(self) -> None:
        """Let it answer what it took, and end; its successor takes the rest."""
        pid = self.process.pid
        if self.alive and pid is not None:
            os.kill(pid, REPLACED)

    @property
    def serves(self) -> bool:
        """Whether it reported that it serves, and is alive."""
        return self.line is not None and self.alive

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self.process.is_alive()

    @property
    def status(self) -> int | None:
        """How it ended; minus a signal's number."""
        return self.process.exitcode


class Lifeline:
    """A pipe that nobody writes to: its end tells workers that the process that watches is gone.

    Not multiprocessing's own sentinel: each later worker that is forked would keep it open.
    """

    def __init__(self) -> None:
        self._end, self._start = multiprocessing.Pipe(duplex=False)

    def hold(self) -> None:
        """In a worker: leave the other end to the process that watches."""
        self._start.close()

    def wait(self) -> None:
        """Until that process is gone."""
        with contextlib.suppress(EOFError, OSError):
            self._end.recv_bytes()


def time_to_end(settings: Settings) -> float:
    """Seconds that a worker has to exit after it was told to."""
    return settings.request_timeout + settings.drain_seconds + GRACE


def _work(
    settings: Settings,
    listener: socket.socket,
    pipe: Connection,
    lifeline: Lifeline,
    board: Board,
    page: int,
    encoder: "Encoder | None",
) -> None:
    # a terminal's Ctrl-C and hang-up reach every process, but it is not theirs to end a worker
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    lifeline.hold()
    if not permits(FIRST_THREADS):
        sys.exit(START_ERROR)
    limit_arenas()
    threading.Thread(target=_end_with, args=(lifeline, time_to_end(settings)), daemon=True).start()
    number = multiprocessing.current_process().name.rsplit(" ", 1)[-1]
    logs.set_up(settings.log_level, settings.log_format, number)
    if encoder is not None:
        encoder.restart()
    else:
        try:
            encoder = load_encoder(settings)
        except ModelError as error:
            sys.exit(_no_model(error))
    line = described(settings, encoder.info)
    ends, counted = (signal.SIGTERM, REPLACED), Metrics(board, page)
    sys.exit(serve(settings, encoder, listener, ends, lambda: pipe.send(line), counted))


def _no_model(error: ModelError) -> int:
    """Say why a model cannot be loaded; the exit status."""
    sys.stderr.write(f"openvocab: {error}\n")
    return MODEL_ERROR


def _end_with(lifeline: Lifeline, seconds: float) -> None:
    lifeline.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(seconds)
    os._exit(START_ERROR)


log = logging.getLogger("openvocab.workers")

# seconds: between two checks, and before a worker that ended is replaced
LOOK: Final = 0.2
PAUSES: Final = (0.1, 1.0, 5.0, 30.0)
# at most, where no other worker serves
ALONE: Final = 5.0

# a worker, its successor, and those before it that have not ended yet
PAGES_A_WORKER: Final = 4

# a worker that served this many seconds does not count as failed when it ends
STEADY: Final = 60.0


def share(settings: Settings, workers: int) -> Settings:
    """The settings of one of several workers: the cores are divided among them."""
    cores = max(1, available_cores() // workers)
    return settings.model_copy(
        update={
            "torch_threads": settings.torch_threads or cores,
            "decode_threads": settings.decode_threads or cores,
        }
    )


@dataclass(slots=True)
class _Worker:
    number: int
    current: WorkerProcess
    since: float | None = None  # when it began to serve
    successor: WorkerProcess | None = None  # loads, and takes its place when it serves
    failures: int = 0
    again_at: float | None = None


@dataclass(slots=True)
class Supervisor:
    """Starts workers on one socket, replaces those that die, and ends them all together.

    SIGHUP replaces them one after the other, each when its successor serves: that reads new files
    of weights, certificates and code, and no request is lost. Until then workers are forked (on
    Linux) from this process, which imports all that they need and loads the default model once
    where they can share it. Python has no threads here, which a fork would not copy.
    """

    settings: Settings
    listener: socket.socket
    count: int
    _workers: list[_Worker] = field(default_factory=list)
    _leaving: list[tuple[WorkerProcess, float]] = field(default_factory=list)
    _to_renew: list[_Worker] = field(default_factory=list)
    _signal: int = 0
    _renew: bool = False
    _board: Board = field(init=False)
    _metrics: Metrics = field(init=False)
    _pages: list[tuple[WorkerProcess, int]] = field(default_factory=list)
    _lifeline: Lifeline = field(default_factory=Lifeline)
    _published: float = 0.0
    _method: str = START_METHOD
    _encoder: "Encoder | None" = None

    def __post_init__(self) -> None:
        self._board = Board(PAGES_A_WORKER * self.count + 1)
        self._metrics = Metrics(self._board, self._board.take() or 0)
        watch_process(self._metrics, self.settings, first=True)

    def run(self, announce: Callable[[str], None]) -> int:
        """Until a signal: exit status 0. If a worker cannot even start: its exit status.

        `announce` is called once, when all workers serve, with what they serve.
        """
        if self._method == FORK:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, give_up)
            try:
                self._encoder = load_shared_encoder(share(self.settings, self.count))
            except ModelError as error:
                return _no_model(error)
            if self._encoder is None and openvino_ran():
                self._method = SPAWN  # whoever loads it again after a fork waits for its threads
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        if not sys.stderr.isatty():  # there it means that the terminal is gone
            signal.signal(signal.SIGHUP, self._ask_to_renew)
        # a collection in a worker would write to every page of what it shares with this process
        gc.collect()
        gc.freeze()
        try:
            return self._watch(announce)
        finally:
            self._end()

    def _watch(self, announce: Callable[[str], None]) -> int:
        announced = False
        for number in range(self.count):
            try:
                self._workers.append(_Worker(number, self._start(number)))
            except OSError as error:
                sys.stderr.write(f"openvocab: worker {number} cannot be started ({error})\n")
                return START_ERROR
        while not self._signal:
            self._wait()
            self._publish()
            self._give_pages_back()
            for worker in self._workers:
                self._look(worker)
                if worker.current.alive or self._signal:
                    continue
                if not announced and worker.since is None and not worker.failures:
                    # never began to serve: the others will not either
                    code = worker.current.status or START_ERROR
                    return code if code > 0 else SIGNALLED - code
                if self._due(worker):
                    self._replace(worker)
            if not announced and all(worker.since for worker in self._workers):
                announced = True
                announce(self._workers[0].current.line or "")
            if announced:
                self._go_on_renewing()
        return 0 if announced else SIGNALLED + self._signal

    def _wait(self) -> None:
        """Until something happens, or it is time to look."""
        processes = [w.current for w in self._workers]
        processes += [w.successor for w in self._workers if w.successor is not None]
        alive = [process for process in processes if process.alive]
        silent = [process.pipe for process in alive if process.line is None]
        wait([*(process.process.sentinel for process in alive), *silent], timeout=LOOK)

    def _publish(self) -> None:
        """What is read of this process; without a thread, which a fork would not survive."""
        now = time.monotonic()
        if now - self._published >= EVERY:
            self._published = now
            self._metrics.publish()

    def _start(self, number: int) -> WorkerProcess:
        page = self._board.take()
        if page is None:
            raise OSError("too many replaced workers have not exited")
        settings, name = share(self.settings, self.count), f"openvocab worker {number}"
        try:
            process = WorkerProcess.start(
                settings, self.listener, name, self._lifeline, self._board, page, self._method,
                self._encoder,
            )  # fmt: skip
        except OSError:
            self._board.give_back(page)
            raise
        self._pages.append((process, page))
        return process

    def _give_pages_back(self) -> None:
        """The next process continues the counts of the one that ended."""
        for process, page in self._pages[:]:
            if not process.alive:
                self._pages.remove((process, page))
                self._board.give_back(page)

    def _look(self, worker: _Worker) -> None:
        """Note who began to serve; when a successor does, the process before it may go."""
        worker.current.look()
        if worker.successor is not None:
            worker.successor.look()
            if worker.successor.serves:
                worker.current.leave()
                end = time.monotonic() + time_to_end(self.settings)
                self._leaving.append((worker.current, end))
                worker.current, worker.successor = worker.successor, None
                worker.since, worker.failures, worker.again_at = None, 0, None
                self._metrics.renewed("renewed")
        if worker.since is None and worker.current.serves:
            worker.since = time.monotonic()

    def _go_on_renewing(self) -> None:
        """One successor at a time; one that cannot serve ends it, and the others stay."""
        for leaving, end in self._leaving[:]:
            if not leaving.alive:
                self._leaving.remove((leaving, end))
            elif time.monotonic() > end:
                log.error("a replaced worker did not exit and is killed")
                leaving.process.kill()
                leaving.process.join()
        if self._renew:
            self._renew = False
            # what is imported and loaded here may be another release's by now, or another model's
            self._method, self._encoder = SPAWN, None
            self._to_renew = list(self._workers)
            log.warning("replacing all workers, one by one")
        for worker in self._workers:
            if worker.successor is not None and worker.successor.alive:
                return
            if worker.successor is not None:
                self._renewing_failed(f"it exited with status {worker.successor.status}")
                worker.successor = None
        if self._to_renew:
            worker = self._to_renew.pop(0)
            try:
                worker.successor = self._start(worker.number)
            except OSError as error:
                self._renewing_failed(str(error))

    def _renewing_failed(self, why: str) -> None:
        log.error("the new worker cannot serve (%s); the current ones stay", why)
        self._to_renew.clear()

    def _due(self, worker: _Worker) -> bool:
        """Whether to start a dead worker's replacement now; one that keeps dying waits."""
        now = time.monotonic()
        if worker.again_at is None:
            if worker.since is not None and now - worker.since > STEADY:
                worker.failures = 0
            pause = PAUSES[min(worker.failures, len(PAUSES) - 1)]
            if not any(other.current.serves for other in self._workers):
                pause = min(pause, ALONE)
            log.error(
                "worker %d exited with status %s; starting a new one in %g s",
                worker.number, worker.current.status, pause,
            )  # fmt: skip
            self._metrics.renewed("hung" if worker.current.status == HUNG else "died")
            worker.failures += 1
            worker.since, worker.again_at = None, now + pause
        return now >= worker.again_at

    def _replace(self, worker: _Worker) -> None:
        worker.again_at = None
        if worker.successor is not None:  # it is being replaced already
            worker.current, worker.successor = worker.successor, None
            return
        try:
            worker.current = self._start(worker.number)
        except OSError as error:  # no memory for a process is no reason to end the others
            log.error("worker %d cannot be started (%s)", worker.number, error)

    def _stop(self, number: int, _frame: object) -> None:
        """Handle a signal: end all, or on a second Ctrl-C at once, whatever is in progress."""
        if self._signal == number == signal.SIGINT:
            for process in self._processes():
                process.process.kill()
        self._signal = number

    def _ask_to_renew(self, _number: int, _frame: object) -> None:
        self._renew = True

    def _end(self) -> None:
        self.listener.close()  # or the kernel goes on accepting what nobody will answer
        processes = self._processes()
        for process in processes:
            if process.alive:
                process.process.terminate()
        end = time.monotonic() + time_to_end(self.settings)
        for process in processes:
            process.process.join(max(0.0, end - time.monotonic()))
            if process.alive:
                log.error("%s did not exit and is killed", process.process.name)
                process.process.kill()
                process.process.join()

    def _processes(self) -> list[WorkerProcess]:
        processes = [w.current for w in self._workers] + [process for process, _ in self._leaving]
        return processes + [w.successor for w in self._workers if w.successor is not None]
