"""The command line: `openvocab serve`, `openvocab models`. Knows nothing of requests."""

import asyncio
import importlib
import logging
import math
import signal
import socket
from typing import Annotated, Any

import typer
import uvicorn
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from app.main import VERSION, create_app, guarded_store, load_encoder
from app.settings import Settings
from app.stores.protocols import StoreAway, StoreUnusable
from models import ModelError, catalog

app = typer.Typer(no_args_is_help=True, help="Open-vocabulary image classification as a service.")
models_app = typer.Typer(no_args_is_help=True, help="The models that can be served.")
app.add_typer(models_app, name="models")

BACKLOG = 2048
PORT_ERROR = 1
USAGE_ERROR = 2
MODEL_ERROR = 3
STORE_ERROR = 4


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    model: Annotated[str | None, typer.Option(help="Model to load; OPENVOCAB_MODEL.")] = None,
) -> None:
    """Serve the API until a signal ends it.

    Exit status: 0 ended by a signal (130 or 143 before it serves), 1 the address cannot be listened
    on, 2 a setting is invalid, 3 the model cannot be loaded, 4 the store can never be used.
    """
    settings = _settings(model)
    _quiet_logging(settings.log_level)
    _check_heic(settings)
    listener = _bind(host, port)
    _check_store(settings)
    typer.echo(f"openvocab {VERSION}: loading {settings.model}", err=True)
    encoder = _or_exit(lambda: load_encoder(settings))
    info = encoder.info
    typer.echo(
        f"{info.name} on {info.device} in {info.precision}: {info.provenance.description}", err=True
    )
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
    shown = f"[{host}]" if ":" in host else host
    typer.echo(f"serving on http://{shown}:{listener.getsockname()[1]}", err=True)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        encoder.close()


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


def _quiet_logging(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for chatty in ("httpx", "httpcore", "PIL"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    # open_clip writes to the root logger what only its developers need
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: record.name != "root")


def _check_heic(settings: Settings) -> None:
    if settings.heic and not _is_installed("pi_heif"):
        typer.echo("openvocab: OPENVOCAB_HEIC needs pip install 'openvocab[heic]'", err=True)
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
            typer.echo(f"openvocab: the store is away for now: {away}", err=True)
        finally:
            await store.close()

    try:
        asyncio.run(look())
    except StoreUnusable as unusable:
        typer.echo(f"openvocab: {unusable}", err=True)
        raise typer.Exit(STORE_ERROR) from None


def _bind(host: str, port: int) -> socket.socket:
    """Take the port before the model is loaded: a wrong one should not cost that wait."""
    if not host:
        typer.echo("openvocab: --host is empty; 0.0.0.0 stands for every address", err=True)
        raise typer.Exit(USAGE_ERROR)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # binding alone reserves nothing: a second server could do the same while this one loads
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        typer.echo(f"openvocab: cannot listen on {host}:{port}: {error.strerror}", err=True)
        raise typer.Exit(PORT_ERROR) from None
    listener.set_inheritable(True)
    return listener


def _settings(model: str | None) -> Settings:
    try:
        return Settings() if model is None else Settings(model=model)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = "OPENVOCAB_" + "_".join(map(str, first["loc"])).upper()
        typer.echo(f"openvocab: {name}: {first['msg']}, got {first['input']!r}", err=True)
        raise typer.Exit(USAGE_ERROR) from None


def _or_exit(action: Any) -> Any:
    try:
        return action()
    except ModelError as error:
        typer.echo(f"openvocab: {error}", err=True)
        raise typer.Exit(MODEL_ERROR) from None
