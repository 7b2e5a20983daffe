"""`openvocab models`: the models that can be served."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from app.cli.terminal import or_exit
from models import catalog

app = typer.Typer(no_args_is_help=True, help="The models that can be served.")


@app.command("list")
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


@app.command()
def pull(name: Annotated[str, typer.Argument(help="A name as `serve --model` takes it.")]) -> None:
    """Download a model's files, so that `serve` needs no network. Exit status 3: cannot be had."""
    from models.loader import fetch

    or_exit(lambda: fetch(name))
    typer.echo(f"{name} is on this machine", err=True)
