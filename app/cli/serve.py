"""`openvocab serve`. Knows nothing of requests."""

import asyncio
import importlib
import logging
import socket
from pathlib import Path
from typing import Annotated

import typer

from app import VERSION
from app.api.middleware.keys import BadKeys, KeyRing
from app.cli.terminal import or_exit, settings_or_exit
from app.server import sockets
from app.server.build import guarded_store, load_encoder
from app.server.exit_status import START_ERROR, STORE_ERROR, USAGE_ERROR
from app.server.run import described
from app.server.run import serve as serve_on
from app.server.settings import Settings
from app.server.workers import Supervisor
from app.stores.protocols import StoreAway, StoreUnusable
from app.telemetry import logs, spans


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    model: Annotated[str | None, typer.Option(help="Model to load; OPENVOCAB_MODEL.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Processes; OPENVOCAB_WORKERS.")
    ] = None,
    uds: Annotated[
        Path | None, typer.Option(help="Unix socket to listen on, in place of host and port.")
    ] = None,
) -> None:
    """Serve the API until a signal ends it.

    Exit status: 0 ended by a signal (130 or 143 before it serves), 1 the address cannot be listened
    on or the server cannot start, 2 a setting is invalid, 3 the model cannot be loaded, 4 the store
    can never be used.
    """
    settings = settings_or_exit(model=model, workers=workers)
    logs.set_up(settings.log_level, settings.log_format)
    _check_heic(settings)
    _check_tracing(settings)
    _check_shared(settings)
    listener = _listener(host, port, uds)
    _check_access(settings, listener)
    _check_store(settings)
    logs.tell(f"openvocab {VERSION}: loading {settings.model}")
    address = sockets.shown(listener, tls=settings.tls_cert_file is not None)
    if settings.workers > 1:

        def announce(line: str) -> None:
            logs.tell(f"{line}\nserving on {address} with {settings.workers} workers")

        raise typer.Exit(Supervisor(settings, listener, settings.workers).run(announce))
    encoder = or_exit(lambda: load_encoder(settings))
    logs.tell(f"{described(encoder.info)}\nserving on {address}")
    raise typer.Exit(serve_on(settings, encoder, listener))


def _check_heic(settings: Settings) -> None:
    if settings.heic and not _is_installed("pi_heif"):
        typer.echo("openvocab: OPENVOCAB_HEIC needs pip install 'openvocab[heic]'", err=True)
        raise typer.Exit(USAGE_ERROR)


def _check_tracing(settings: Settings) -> None:
    """Traces that were asked for here end the start; asked for by the environment, they are not."""
    wrong = spans.hindrance(settings.tracing)
    if wrong is not None and settings.tracing == "on":
        typer.echo(f"openvocab: OPENVOCAB_TRACING: {wrong}", err=True)
        raise typer.Exit(USAGE_ERROR)
    if wrong is not None:
        logs.tell(f"openvocab: WARNING: no traces: {wrong}", logging.WARNING)


def _check_shared(settings: Settings) -> None:
    if settings.workers > 1 and settings.store_url.startswith("memory:"):
        detail = "a store in memory cannot be shared by several workers; use a file or Redis"
        typer.echo(f"openvocab: OPENVOCAB_STORE_URL: {detail}", err=True)
        raise typer.Exit(USAGE_ERROR)


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
            logs.tell(f"openvocab: the store is away for now: {away}", logging.WARNING)
        finally:
            await store.close()

    try:
        asyncio.run(look())
    except StoreUnusable as unusable:
        typer.echo(f"openvocab: {unusable}", err=True)
        raise typer.Exit(STORE_ERROR) from None


def _listener(host: str, port: int, uds: Path | None) -> socket.socket:
    if not host:
        typer.echo("openvocab: --host is empty; 0.0.0.0 stands for every address", err=True)
        raise typer.Exit(USAGE_ERROR)
    try:
        return sockets.bind(host, port) if uds is None else sockets.bind_unix(uds)
    except sockets.CannotListen as error:
        typer.echo(f"openvocab: {error}", err=True)
        raise typer.Exit(START_ERROR) from None


def _check_access(settings: Settings, listener: socket.socket) -> None:
    """Keys and certificate must be readable; being open to a network is said loudly."""
    try:
        keys = KeyRing(settings.api_keys_file, settings.api_keys)
    except BadKeys as error:
        typer.echo(f"openvocab: API keys: {error}", err=True)
        raise typer.Exit(USAGE_ERROR) from None
    if settings.tls_key_file is not None and settings.tls_cert_file is None:
        typer.echo("openvocab: OPENVOCAB_TLS_KEY_FILE needs OPENVOCAB_TLS_CERT_FILE", err=True)
        raise typer.Exit(USAGE_ERROR)
    if settings.tls_cert_file is not None:
        wrong = sockets.check_certificate(settings.tls_cert_file, settings.tls_key_file)
        if wrong is not None:
            typer.echo(f"openvocab: OPENVOCAB_TLS_CERT_FILE: {wrong}", err=True)
            raise typer.Exit(USAGE_ERROR)
    if not keys.required and not sockets.is_local(listener):
        detail = "whoever reaches this address may classify, and change and delete label sets"
        logs.tell(
            f"openvocab: WARNING: no API keys: {detail}; see docs/security.md", logging.WARNING
        )
