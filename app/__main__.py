"""The command line: which commands there are. Each file of `cli/` defines its own."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import typer

from app import VERSION
from app.cli.help import Root, group


class Commands(Root):
    """Every command, by the module that defines it."""

    modules: ClassVar[Mapping[str, str]] = {
        "serve": "app.cli.serve",
        "classify": "app.cli.classify",
        "undo": "app.cli.undo",
        "eval": "app.evaluation.command",
        "bench": "app.cli.bench",
        "labelset": "app.cli.labelset",
        "models": "app.cli.models",
        "keys": "app.cli.keys",
    }


app = group(
    "Open-vocabulary image classification: which of your words fit a picture, as a service "
    "and on the command line.",
    epilog="\b\nExamples:\n"
    "  openvocab serve --model everyday\n"
    "  openvocab classify photos/ --labels cat,dog,pizza --model everyday\n"
    "  openvocab classify -h",
    cls=Commands,
)


def _print_version(asked_for: bool) -> None:
    if asked_for:
        typer.echo(f"openvocab {VERSION}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None: ...


if __name__ == "__main__":
    app(prog_name="openvocab")
