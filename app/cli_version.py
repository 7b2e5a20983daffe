"""`openvocab --version`. Knows no command."""

from typing import Annotated

import typer

from app.building import VERSION


def _shown(wanted: bool) -> None:
    if wanted:
        typer.echo(f"openvocab {VERSION}")
        raise typer.Exit


def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_shown, is_eager=True, help="Print the version."),
    ] = False,
) -> None: ...
