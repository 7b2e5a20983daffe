"""`openvocab serve`. Knows nothing of requests."""

import asyncio
import contextlib
import importlib
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from app import VERSION
from app.api.middleware.keys import BadKeys, KeyRing
from app.cli import help as help_
from app.cli.imports import uncollected
from app.cli.terminal import end, or_exit, settings_or_exit
from app.images.limits import BYTES_OF_A_PIXEL
from app.server import sockets
from app.server.certificates import check_certificate
from app.server.exit_status import START_ERROR, STORE_ERROR
from app.server.settings import Settings, unknown_variables
from app.server.signals import hear_signals
from app.server.store import guarded_store
from app.stores.protocols import StoreAway, StoreUnusable
from app.telemetry import logs, spans
from models.catalog import catalog
from models.pages import limit_arenas

EXAMPLES: Final = """
openvocab serve --model everyday
openvocab serve --host 0.0.0.0 --port 80 --workers 4
openvocab serve --uds /run/openvocab.sock
"""

# files of a process beside its connections: those that are being refused, the store, pictures
OTHER_FILES: Final = 200

# files that a server opens before it answers anything, and those that each of its workers adds
LEAST_FILES: Final = 64
FILES_A_WORKER: Final = 4

EXIT_STATUS: Final = (
    "0 stopped by a signal (130 or 143 before it was ready), 1 the address is already in use or "
    "not permitted, or the server cannot start, 2 a setting is invalid, 3 the model cannot be "
    "loaded, 4 the store can never be used, 70 the model or a decoder hung, 71 the GPU failed."
)


def serve(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = (
        "127.0.0.1"
    ),
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="Port to listen on.")
    ] = 8000,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Model to load (default: OPENVOCAB_MODEL). Repeat the option for further models.",
            autocompletion=lambda: list(catalog()),
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, max=256, help="Worker processes (default: OPENVOCAB_WORKERS)."
        ),
    ] = None,
    uds: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Unix socket to listen on instead of host and port."),
    ] = None,
) -> None:
    """Run the API server (Ctrl-C stops it).

    All other settings are environment variables: see docs/settings.md.
    """
    limit_arenas()
    _fill_streams()
    settings = settings_or_exit(
        model=model[0] if model else None,
        more_models=",".join(model[1:]) if model and model[1:] else None,
        workers=workers,
    )
    logs.set_up(settings.log_level, settings.log_format)
    hear_signals()
    for line in unknown_variables(os.environ):
        _warn(line)
    _check_formats(settings)
    _check_tracing(settings)
    _check_shared(settings)
    _raise_file_limit(settings.max_connections, settings.workers)
    _check_memory(settings)
    listener = _listener(host, port, uds)
    _check_access(settings, listener)
    _check_store(settings)
    logs.tell(f"openvocab {VERSION}: loading {', '.join(settings.models)}")
    address = sockets.shown(listener, tls=settings.tls_cert_file is not None)
    with uncollected():  # the whole service: what is wrong above is told sooner without it
        from app.server import run
        from app.server.build import load_encoder

        if settings.workers > 1:
            from app.server.workers import Supervisor

    if settings.workers > 1:

        def announce(line: str) -> None:
            logs.tell(f"{line}\n{_ready(address, f'{settings.workers} workers')}")

        raise typer.Exit(Supervisor(settings, listener, settings.workers).run(announce))
    encoder = or_exit(lambda: load_encoder(settings))
    logs.tell(run.described(settings, encoder.info))
    raise typer.Exit(
        run.serve(settings, encoder, listener, ready=lambda: logs.tell(_ready(address)))
    )


app = help_.alone(serve, EXAMPLES, EXIT_STATUS)


def _warn(text: str) -> None:
    logs.tell(f"openvocab: WARNING: {text}", logging.WARNING)


def _fill_streams() -> None:
    """A stream that is closed leads nowhere; else the next file or socket would take its number."""
    for number in range(3):
        with contextlib.suppress(OSError):
            os.fstat(number)
            continue
        # inherited, as streams are: workers that are started later have them, too
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


def _ready(address: str, note: str = "") -> str:
    notes = ["playground"] * address.startswith("http") + [note] * bool(note)
    shown = f" ({', '.join(notes)})" if notes else ""
    return f"Ready: {address}{shown} · Ctrl-C stops"


def _check_formats(settings: Settings) -> None:
    for enabled, package, setting, extra in (
        (settings.heic, "pi_heif", "HEIC", "heic"),
        (settings.svg, "resvg_py", "SVG", "svg"),
        (settings.jpeg_xl, "pillow_jxl", "JPEG_XL", "jxl"),
    ):
        if enabled and not _is_installed(package):
            end(f"OPENVOCAB_{setting} needs pip install 'openvocab[{extra}]'")


def _check_tracing(settings: Settings) -> None:
    """Tracing requested by a setting must be available; by OTEL_…, it is optional."""
    wrong = spans.hindrance(settings.tracing)
    if wrong is not None and settings.tracing == "on":
        end(f"OPENVOCAB_TRACING: {wrong}")
    if wrong is not None:
        _warn(f"no traces: {wrong}")


def _check_shared(settings: Settings) -> None:
    if settings.workers > 1 and settings.store_url.startswith("memory:"):
        detail = "an in-memory store cannot be shared by several workers; use a file or Redis"
        end(f"OPENVOCAB_STORE_URL: {detail}")


def _raise_file_limit(connections: int, workers: int) -> None:
    """Open files as many as the connections of a process need, where the system permits them.

    Ends the start where there are too few for anything.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    least = LEAST_FILES + FILES_A_WORKER * workers
    needed = max(connections + OTHER_FILES, least)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft < least:
        end(
            f"{soft} open files are permitted, and a start needs {least}: raise `ulimit -n`",
            START_ERROR,
        )
    if soft < needed:
        _warn(
            f"{soft} open files are permitted, and OPENVOCAB_MAX_CONNECTIONS={connections} needs "
            f"{needed}; connections beyond them are reset. Raise `ulimit -n` or lower the setting"
        )


def _check_memory(settings: Settings) -> None:
    """Warn of settings that permit more than fits into memory."""
    there = settings.memory_for_decoding()
    largest = settings.max_image_pixels * BYTES_OF_A_PIXEL
    for name, what, needed, fits in (
        ("MAX_IMAGE_PIXELS", "the largest image", largest, there / BYTES_OF_A_PIXEL),
        ("MAX_PENDING_BYTES", "requests under way", settings.max_pending_bytes, there / 2),
    ):
        if needed > there:
            _warn(
                f"{what} may take {needed // 10**6} MB, and half of a worker's memory is "
                f"{there // 10**6:.0f} MB: the system may end it. Lower OPENVOCAB_{name}, to "
                f"{fits:.0f} for example"
            )


def _is_installed(module: str) -> bool:
    try:
        return importlib.import_module(module) is not None
    except ImportError:
        return False


def _check_store(settings: Settings) -> None:
    """End with one line if the store can never be used; one that is merely away is no reason."""

    async def look() -> None:
        store = guarded_store(settings)
        try:
            await store.open()
        except StoreAway as away:
            logs.tell(f"openvocab: the store is not reachable yet: {away}", logging.WARNING)
        finally:
            await store.close()

    try:
        asyncio.run(look())
    except StoreUnusable as unusable:
        end(str(unusable), STORE_ERROR)


def _listener(host: str, port: int, uds: Path | None) -> socket.socket:
    if not host:
        end("--host is empty; 0.0.0.0 listens on every address")
    try:
        return sockets.bind(host, port) if uds is None else sockets.bind_unix(uds)
    except sockets.CannotListen as error:
        end(str(error), START_ERROR)


def _check_access(settings: Settings, listener: socket.socket) -> None:
    """Keys and certificate must be readable; warns if the server is open to a network."""
    try:
        keys = KeyRing(settings.api_keys_file, settings.api_keys)
    except BadKeys as error:
        end(f"API keys: {error}")
    if settings.tls_key_file is not None and settings.tls_cert_file is None:
        end("OPENVOCAB_TLS_KEY_FILE needs OPENVOCAB_TLS_CERT_FILE")
    if settings.tls_cert_file is not None:
        wrong = check_certificate(settings.tls_cert_file, settings.tls_key_file)
        if wrong is not None:
            end(f"OPENVOCAB_TLS_CERT_FILE: {wrong}")
    if not keys.required and not sockets.is_local(listener):
        _warn(
            "no API keys: anyone who can reach this address can classify, and change or delete "
            "label sets; see docs/security.md"
        )
