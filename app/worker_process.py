"""One worker: a process that serves on a socket it is given. Knows nothing of the other workers."""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Final

from app import logs
from app.building import load_encoder
from app.cells import Board
from app.metrics import Metrics
from app.serving import described, serve
from app.settings import Settings
from app.statuses import MODEL_ERROR, START_ERROR
from models import ModelError

# seconds beyond those of a request and of draining that a worker may take to end
GRACE: Final = 15.0


@dataclass(slots=True)
class WorkerProcess:
    """A worker as the one that watches sees it; it says `line` of itself when it serves."""

    process: SpawnProcess
    pipe: Connection
    line: str | None = None

    @classmethod
    def start(
        cls, settings: Settings, listener: socket.socket, name: str, board: Board, page: int
    ) -> "WorkerProcess":
        """Begin to load a model and to serve, and count on a page of the board.

        Raises OSError if there is no room for a process.
        """
        context = multiprocessing.get_context("spawn")
        pipe, end = context.Pipe(duplex=False)
        process = context.Process(
            target=_work, args=(settings, listener, end, board, page), name=name
        )
        # a terminal's Ctrl-C and hang-up reach every process, but it is ours to tell the workers
        before = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGHUP)}
        try:
            process.start()
        except OSError:
            pipe.close()
            raise
        finally:
            end.close()
            for number, handler in before.items():
                signal.signal(number, handler)
        return cls(process, pipe)

    def look(self) -> None:
        """Read what it said, if it did."""
        if self.line is None and self.pipe.poll():
            with contextlib.suppress(EOFError, OSError):  # it ended without a word
                self.line = self.pipe.recv()

    @property
    def serves(self) -> bool:
        """Whether it said that it does, and lives."""
        return self.line is not None and self.alive

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self.process.is_alive()

    @property
    def status(self) -> int | None:
        """How it ended; minus a signal's number."""
        return self.process.exitcode


def patience(settings: Settings) -> float:
    """Seconds that a worker has to end, once it is told."""
    return settings.request_timeout + settings.drain_seconds + GRACE


def _work(
    settings: Settings, listener: socket.socket, pipe: Connection, board: Board, page: int
) -> None:
    parent = multiprocessing.parent_process()
    threading.Thread(target=_end_with, args=(parent, patience(settings)), daemon=True).start()
    number = multiprocessing.current_process().name.rsplit(" ", 1)[-1]
    logs.set_up(settings.log_level, settings.log_format, number)
    try:
        encoder = load_encoder(settings)
    except ModelError as error:
        sys.stderr.write(f"openvocab: {error}\n")
        sys.exit(MODEL_ERROR)
    line = described(encoder.info)
    ends, counted = (signal.SIGTERM,), Metrics(board, page)
    sys.exit(serve(settings, encoder, listener, ends, lambda: pipe.send(line), counted))


def _end_with(parent: Any, seconds: float) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(seconds)
    os._exit(START_ERROR)
