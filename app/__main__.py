"""The command line: which commands there are. Each file of `cli/` defines its own."""

from typing import Annotated

import typer

from app import VERSION
from app.cli import bench, classify, keys, labelset, models, serve
from app.cli.help import Root, group
from app.evaluation import command as evaluation

app = group(
    "Open-vocabulary image classification: which of your words fit a picture, as a service "
    "and on the command line.",
    cls=Root,
)


def _print_version(wanted: bool) -> None:
    if wanted:
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


serve.add_to(app)
classify.add_to(app)
evaluation.add_to(app)
app.add_typer(labelset.app, name="labelset")
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
bench.add_to(app)

if __name__ == "__main__":
    app(prog_name="openvocab")
