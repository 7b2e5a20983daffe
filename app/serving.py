"""Serve on a socket in this process. Knows how that begins and ends; nothing of requests."""

import contextlib
import gc
import math
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import uvicorn
from threadpoolctl import threadpool_limits

from app.main import create_app
from app.settings import Settings
from models import EncoderInfo

if TYPE_CHECKING:
    from models.encoder import Encoder

START_ERROR: Final = 1

SWITCH_SECONDS: Final = 0.0001


def serve(
    settings: Settings,
    encoder: "Encoder",
    listener: socket.socket,
    signals: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM),
    ready: Callable[[], None] = lambda: None,
) -> int:
    """Serve until one of the signals; what was accepted is answered first. The exit status."""
    tune_interpreter()
    config = uvicorn.Config(
        create_app(settings, encoder),
        log_level=settings.log_level,
        server_header=False,
        root_path=settings.root_path,
        timeout_graceful_shutdown=math.ceil(settings.request_timeout),
    )
    server = _Server(config, ready)
    for number in signals:
        signal.signal(number, server.end)
    try:
        server.run(sockets=[listener])
    except SystemExit:  # its own status for a failed start is taken by another failure
        return START_ERROR
    finally:
        encoder.close()
        gc.unfreeze()  # or libraries that look for leaks at the end report what was frozen
    return 0


def tune_interpreter() -> None:
    """What a process that serves does once, after the model is loaded.

    The collector spares what is loaded and stays: each look at it stopped all threads for 0.3 s.
    And a thread that wants the interpreter gets it sooner: a forward pass of torch asks for it at
    each of its hundreds of operations, and beside a busy event loop waited 5 ms each time
    (docs/performance.md).
    """
    gc.collect()
    gc.freeze()
    # a product with 1,000 labels takes one thread 0.1 ms; more threads spin for their next one
    # meanwhile and take the cores from the forward pass
    threadpool_limits(1, user_api="blas")
    sys.setswitchinterval(SWITCH_SECONDS)


def described(info: EncoderInfo) -> str:
    """What an encoder is and what it is good for, in a line."""
    how = f"{info.name} on {info.device} in {info.precision} by {info.backend}"
    return f"{how}: {info.provenance.description}"


class _Server(uvicorn.Server):
    """uvicorn with signal handlers that are there before its loop is, so that none is lost."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    def end(self, number: int, _frame: object) -> None:
        """Handle a signal: finish, or at the second Ctrl-C give up what is under way."""
        self.force_exit = self.should_exit and number == signal.SIGINT
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()
