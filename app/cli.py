"""The command line: `openvocab serve`, `bench`, `models`. Knows nothing of requests."""

import asyncio
import importlib
import json
import logging
import socket
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from app import (
    cli_classify,
    cli_eval,
    cli_labelset,
    cli_undo,
    cli_version,
    key_commands,
    listening,
    logs,
    telemetry,
)
from app.bench import machine, measured
from app.building import VERSION, guarded_store, load_encoder
from app.keys import BadKeys, KeyRing
from app.serving import described
from app.serving import serve as serve_on
from app.settings import Settings
from app.shell import Ended, say, settings_from
from app.shipped import template_sets
from app.statuses import MODEL_ERROR, START_ERROR, STORE_ERROR, USAGE_ERROR
from app.stores.protocols import StoreAway, StoreUnusable
from app.workers import Supervisor
from models import ModelError, catalog

app = typer.Typer(no_args_is_help=True, help="Open-vocabulary image classification as a service.")
models_app = typer.Typer(no_args_is_help=True, help="The models that can be served.")
app.add_typer(models_app, name="models")
app.add_typer(key_commands.app, name="keys")
app.add_typer(cli_labelset.app, name="labelset")
app.callback()(cli_version.root)
cli_classify.add_to(app)
cli_eval.add_to(app)
app.command("undo")(cli_undo.undo)


@app.command()
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
    settings = _settings(model=model, workers=workers)
    logs.set_up(settings.log_level, settings.log_format)
    _check_heic(settings)
    _check_tracing(settings)
    _check_shared(settings)
    listener = _listener(host, port, uds)
    _check_access(settings, listener)
    _check_store(settings)
    logs.tell(f"openvocab {VERSION}: loading {settings.model}")
    address = listening.shown(listener, tls=settings.tls_cert_file is not None)
    if settings.workers > 1:

        def announce(line: str) -> None:
            logs.tell(f"{line}\nserving on {address} with {settings.workers} workers")

        raise typer.Exit(Supervisor(settings, listener, settings.workers).run(announce))
    encoder = _or_exit(lambda: load_encoder(settings))
    logs.tell(f"{described(encoder.info)}\nserving on {address}")
    raise typer.Exit(serve_on(settings, encoder, listener))


@app.command()
def bench(
    model: Annotated[str | None, typer.Option(help="Model to load; OPENVOCAB_MODEL.")] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="For each figure.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Time the parts of the service on this machine, each alone, as the settings have them.

    Decoding and encoding share a CPU's cores: there a request costs their sum, on a GPU the
    slower of both. Exit status: as for `serve`.
    """
    settings = _settings(model=model)
    logs.set_up(settings.log_level)
    encoder = _or_exit(lambda: load_encoder(settings))
    sets = template_sets()
    templates = sets[encoder.info.provenance.templates].templates
    threads = settings.cores_for_decoding()
    figures = list(
        measured(encoder, templates, settings.max_batch, threads, seconds, settings.exact_jpeg)
    )
    encoder.close()
    info = encoder.info
    about = {"model": info.name, "device": info.device, "precision": info.precision}
    about |= {"backend": info.backend, **machine()}
    if as_json:
        typer.echo(json.dumps({**about, "figures": [asdict(f) for f in figures]}, indent=2))
        return
    table = Table(box=None, pad_edge=False, title=", ".join(f"{k} {v}" for k, v in about.items()))
    for heading in ("", "ms", "10 % to 90 %", "a second"):
        table.add_column(heading, justify="right" if heading else "left")
    for f in figures:
        spread = f"{f.low:.2f} to {f.high:.2f}"
        table.add_row(f.name, f"{f.median:.2f}", spread, f"{f.rate:,.1f} {f.per}")
    Console().print(table)


@models_app.command("list")
def list_models() -> None:
    """The models of the catalogue; every other name that open_clip knows works too."""
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "ImageNet %", "MB", "licence", "good for"):
        table.add_column(heading, no_wrap=heading == "name")
    for entry in catalog().values():
        top1 = entry.provenance.imagenet_top1
        table.add_row(
            entry.name,
            "-" if top1 is None else f"{top1:.1f}",
            str(entry.size_mb),
            entry.provenance.licence,
            entry.provenance.description,
        )
    Console().print(table)


@models_app.command()
def pull(name: Annotated[str, typer.Argument(help="A name as `serve --model` takes it.")]) -> None:
    """Download a model's files, so that `serve` needs no network. Exit status 3: cannot be had."""
    from models.loader import fetch

    _or_exit(lambda: fetch(name))
    typer.echo(f"{name} is on this machine", err=True)


def _check_heic(settings: Settings) -> None:
    if settings.heic and not _is_installed("pi_heif"):
        typer.echo("openvocab: OPENVOCAB_HEIC needs pip install 'openvocab[heic]'", err=True)
        raise typer.Exit(USAGE_ERROR)


def _check_tracing(settings: Settings) -> None:
    """Traces that were asked for here end the start; asked for by the environment, they are not."""
    wrong = telemetry.hindrance(settings.tracing)
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
        return listening.bind(host, port) if uds is None else listening.bind_unix(uds)
    except listening.CannotListen as error:
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
        wrong = listening.check_certificate(settings.tls_cert_file, settings.tls_key_file)
        if wrong is not None:
            typer.echo(f"openvocab: OPENVOCAB_TLS_CERT_FILE: {wrong}", err=True)
            raise typer.Exit(USAGE_ERROR)
    if not keys.required and not listening.is_local(listener):
        detail = "whoever reaches this address may classify, and change and delete label sets"
        logs.tell(
            f"openvocab: WARNING: no API keys: {detail}; see docs/security.md", logging.WARNING
        )


def _settings(**options: Any) -> Settings:
    try:
        return settings_from(**{k: value for k, value in options.items() if value is not None})
    except Ended as ended:
        say(ended.line)
        raise typer.Exit(ended.status) from None


def _or_exit(action: Any) -> Any:
    try:
        return action()
    except ModelError as error:
        typer.echo(f"openvocab: {error}", err=True)
        raise typer.Exit(MODEL_ERROR) from None
