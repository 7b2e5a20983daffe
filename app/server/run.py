"""Serve on a socket in this process. Knows start and shutdown; nothing of requests."""

import asyncio
import contextlib
import functools
import gc
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from fastapi import FastAPI
from threadpoolctl import threadpool_limits

from app.server.cpus import available_cores
from app.server.exit_status import HUNG, START_ERROR, USAGE_ERROR
from app.server.http_protocol import protocol
from app.server.main import create_app
from app.server.settings import Settings
from app.server.signals import REPLACED, hears_hang_ups, warn
from app.server.sockets import remove_files
from app.telemetry.metrics import Metrics
from app.telemetry.spans import CannotTrace
from models import EncoderInfo

if TYPE_CHECKING:
    from models.encoder import Encoder


log = logging.getLogger("openvocab")


# for threads at the end
LAST_SECONDS: Final = 10.0

SWITCH_SECONDS: Final = 0.0001

# threads that a process starts with: those of the store, of the first picture, and the watchdog's
FIRST_THREADS: Final = 8


def serve(
    settings: Settings,
    encoder: "Encoder",
    listener: socket.socket,
    signals: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM),
    ready: Callable[[], None] = lambda: None,
    metrics: Metrics | None = None,
) -> int:
    """Serve until a signal; accepted requests are answered first. Returns the exit status."""
    if not permits(FIRST_THREADS):
        encoder.close()
        return START_ERROR
    tune_interpreter()
    try:
        app = create_app(settings, encoder, metrics)
    except CannotTrace as error:
        sys.stderr.write(f"openvocab: OPENVOCAB_TRACING: {error}\n")
        encoder.close()
        return USAGE_ERROR
    server = _Server(app, uvicorn_config(app, settings), ready, settings)
    for number in signals:
        signal.signal(number, server.end)
    if signal.SIGINT in signals and hears_hang_ups():
        # a terminal that is gone ends it as Ctrl-C does; without one somebody wants it renewed
        hung_up = server.end if sys.stderr.isatty() else _not_renewed
        signal.signal(signal.SIGHUP, hung_up)
    try:
        server.run(sockets=[listener])
    except SystemExit:  # its own status for a failed start is taken by another failure
        return START_ERROR
    finally:
        threading.Thread(target=_end_anyway, daemon=True).start()
        encoder.close()
        gc.unfreeze()  # or libraries that look for leaks at the end report what was frozen
    return 0


def permits(count: int) -> bool:
    """Whether so many more threads can run at once: a start that lacks one ends in a traceback.

    Says so in one line if not.
    """
    done = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(count):
            thread = threading.Thread(target=done.wait)
            thread.start()
            started.append(thread)
    except RuntimeError:
        sys.stderr.write(
            f"openvocab: {count} more threads are needed, and the system does not permit them: "
            "raise its limit of tasks (TasksMax=, pids.max, `ulimit -u`) or `ulimit -v`\n"
        )
        return False
    finally:
        done.set()
        for thread in started:
            thread.join()
    return True


def _not_renewed(_number: int, _frame: object) -> None:
    warn(
        "SIGHUP renews worker processes, and this server is one process (--workers 1): nothing was "
        "done; API keys are read again by themselves"
    )


def _end_anyway() -> None:
    """At exit Python joins every thread, and would wait forever for one that hangs."""
    time.sleep(LAST_SECONDS)
    log.critical("a thread does not finish; the process exits without it")
    os._exit(HUNG)


def uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """The uvicorn configuration, however the server is run."""
    proxies = settings.listed("trusted_proxies")
    return uvicorn.Config(
        app,
        http=protocol(
            settings.head_timeout,
            settings.keep_alive,
            settings.max_connections,
            app.state.metrics,
            settings.max_pending_bytes,
        ),
        timeout_keep_alive=math.ceil(settings.keep_alive),
        ws="none",
        log_config=None,  # its lines read as ours do
        log_level=settings.log_level,
        access_log=False,  # ours names the caller and the request
        server_header=False,
        root_path=settings.root_path,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies,
        ssl_certfile=settings.tls_cert_file,
        ssl_keyfile=settings.tls_key_file,
        timeout_graceful_shutdown=math.ceil(settings.request_timeout),
    )


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


def described(settings: Settings, info: EncoderInfo) -> str:
    """What serves, in a line, and by how many threads, in another."""
    how = f"{info.name} on {info.device} in {info.precision} by {info.backend}"
    cores = available_cores()
    decoding, computing = settings.cores_for_decoding(), info.threads or cores
    threads = f"{decoding} to decode images, {computing} for the model; {cores} CPU cores"
    return f"{how}: {info.provenance.description}\nthreads: {threads}"


class _Server(uvicorn.Server):
    """uvicorn with signal handlers that are there before its loop is, so that none is lost."""

    def __init__(
        self, app: FastAPI, config: uvicorn.Config, ready: Callable[[], None], settings: Settings
    ) -> None:
        super().__init__(config)
        self._app = app
        self._ready = ready
        self._drain = settings.drain_seconds
        self._handshake_seconds = settings.head_timeout
        self._ends_at: float | None = None

    def end(self, number: int, _frame: object) -> None:
        """Handle a signal: finish, or on a second Ctrl-C end at once, whatever is in progress.

        After SIGTERM requests are taken for some seconds more, while /readyz says not to send any;
        a worker that is replaced says nothing of the kind, for others take its requests.
        """
        if number == REPLACED:
            self.should_exit = True
            return
        if self.should_exit and number == signal.SIGINT:
            # uvicorn would log each request that it abandons as an error, and answer it with a 500
            remove_files()  # what stands at a process's end is passed over
            os._exit(0)
        self._app.state.draining = True
        if number != signal.SIGTERM or not self._drain:
            self.should_exit = True
        elif self._ends_at is None:  # systemd sends a worker one as well, beside the supervisor's
            self._ends_at = time.monotonic() + self._drain

    async def on_tick(self, counter: int) -> bool:
        if self._ends_at is not None and time.monotonic() >= self._ends_at:
            self.should_exit = True
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        bounds = _handshakes_within(self._handshake_seconds) if self.config.is_ssl else None
        with bounds or contextlib.nullcontext():
            await super().startup(sockets)
        self._ready()


@contextlib.contextmanager
def _handshakes_within(seconds: float) -> Iterator[None]:
    """Servers made meanwhile close connections whose TLS handshake takes longer than this.

    uvicorn has no option for it, and leaves them the loop's own 60 seconds.
    """
    loop: Any = asyncio.get_running_loop()
    loop.create_server = functools.partial(loop.create_server, ssl_handshake_timeout=seconds)
    try:
        yield
    finally:
        del loop.create_server
