"""`openvocab keys`: make an API key. Knows nothing of requests."""

import json
import re
from typing import Annotated

import typer

from app.api.middleware.keys import NAME, SCOPES, digest, new_secret
from app.cli.help import add, group
from app.cli.terminal import end

app = group("Make API keys.")


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Holder of the key: letters, digits, . _ -")
    ],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCOPE", help=f"{', '.join(SCOPES)} (default: classify; repeat the option)."
        ),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Keep its label sets apart from those of other keys."),
    ] = None,
) -> None:
    """Print a new key, and what to add to the server's key file or to `OPENVOCAB_API_KEYS`.

    Only its hash is kept: the key itself is shown once.
    """
    scopes = scope or ["classify"]
    for text in scopes:
        if text not in SCOPES:
            end(f"invalid scope {text!r}; see --help")
    for text in (name, namespace or name):
        if not re.fullmatch(NAME, text):
            end(f"invalid name {text!r}; see --help")
    secret = new_secret()
    if namespace is None:  # the variable has no room for one
        entry = f"{name}:{'+'.join(scopes)}:{digest(secret)}"
        typer.echo(f"# without a file: OPENVOCAB_API_KEYS={entry}", err=True)
    typer.echo(f"# API key (shown once): {secret}", err=True)
    lines = [f"[keys.{json.dumps(name)}]", f'sha256 = "{digest(secret)}"']
    lines.append(f"scopes = {json.dumps(scopes)}")
    if namespace:
        lines.append(f"namespace = {json.dumps(namespace)}")
    typer.echo("\n".join(lines))


add(app, new, examples="openvocab keys new alice --scope labelsets:write >> keys.toml")
