"""The command line: which commands there are. Each file of `cli/` defines its own."""

from typing import Annotated

import typer

from app import VERSION
from app.cli import bench, classify, keys, labelset, models, serve
from app.evaluation import command as evaluation

app = typer.Typer(no_args_is_help=True, help="Open-vocabulary image classification as a service.")


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


app.command()(serve.serve)
app.command()(bench.bench)
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
app.add_typer(labelset.app, name="labelset")
classify.add_to(app)
evaluation.add_to(app)
app.command("undo")(classify.undo)

if __name__ == "__main__":
    app(prog_name="openvocab")
