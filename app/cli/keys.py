"""`openvocab keys`: make an API key. Knows nothing of requests."""

import json
import re
from typing import Annotated, NoReturn

import typer

from app.api.middleware.keys import SCOPES, digest, new_secret
from app.server.exit_status import USAGE_ERROR

app = typer.Typer(no_args_is_help=True, help="API keys.")


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Whose key it is: letters, digits, . _ -")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help=f"What it may do: {', '.join(SCOPES)}; may be repeated."),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(help="Where its label sets live, apart from others'.")
    ] = None,
) -> None:
    """Print a new key for its holder, and below it the lines for the server's file of keys.

    Only its hash is kept: the key itself is shown once.
    """
    scopes = scope or ["classify"]
    for text in scopes:
        if text not in SCOPES:
            _refuse(text, "scope")
    for text in (name, namespace or name):
        if not _is_name(text):
            _refuse(text, "name")
    secret = new_secret()
    typer.echo(f"# the key, for its holder alone: {secret}", err=True)
    lines = [f"[keys.{json.dumps(name)}]", f'sha256 = "{digest(secret)}"']
    lines.append(f"scopes = {json.dumps(scopes)}")
    if namespace:
        lines.append(f"namespace = {json.dumps(namespace)}")
    typer.echo("\n".join(lines))


def _refuse(text: str, what: str) -> NoReturn:
    typer.echo(f"openvocab: {text!r} is no {what} of a key; see --help", err=True)
    raise typer.Exit(USAGE_ERROR)


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", text) is not None
