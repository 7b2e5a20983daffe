"""`openvocab models`: the models that can be served."""

from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from app.cli.terminal import or_exit
from models import catalog

app = typer.Typer(no_args_is_help=True, help="The models that can be served.")


# columns that a table needs; narrower, its last one would be a word wide
WIDTH: Final = 150


@app.command("list")
def list_models(
    free: Annotated[
        bool, typer.Option("--free", help="Only models whose licence allows commercial use.")
    ] = False,
) -> None:
    """The models of the catalogue; every other name that open_clip knows works too."""
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "ImageNet %", "GFLOPs", "MB", "languages", "licence", "good for"):
        table.add_column(heading, no_wrap=heading in ("name", "licence"))
    for entry in catalog().values():
        if free and not entry.free:
            continue
        origin = entry.provenance
        top1 = origin.imagenet_top1
        pick = f"First choice ({entry.pick}). " if entry.pick else ""
        table.add_row(
            entry.name,
            "-" if top1 is None else f"{top1:.1f}",
            f"{entry.gflops:,.1f}",
            str(entry.size_mb),
            "many" if "mul" in origin.languages else ", ".join(origin.languages),
            origin.licence if entry.free else f"{origin.licence} (not free)",
            pick + origin.description,
        )
    console = Console()
    console = Console(width=max(console.width, WIDTH))
    console.print(table)
    typer.echo(
        "\nImageNet %: published zero-shot accuracy. GFLOPs: of the image tower, for one picture."
        "\nnot free: the licence allows research or other non-commercial use alone.",
    )


@app.command()
def pull(name: Annotated[str, typer.Argument(help="A name as `serve --model` takes it.")]) -> None:
    """Download a model's files, so that `serve` needs no network. Exit status 3: cannot be had."""
    from models.loader import fetch

    or_exit(lambda: fetch(name))
    typer.echo(f"{name} is on this machine", err=True)
