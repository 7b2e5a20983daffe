"""Options that commands share which work here or on a server. Knows no command."""

from typing import Annotated

import typer

from models.catalog import catalog

Url = Annotated[
    str, typer.Option(envvar="OPENVOCAB_URL", help="A server to ask; without: in this process.")
]
Key = Annotated[
    str | None,
    typer.Option("--api-key", envvar="OPENVOCAB_API_KEY", help="The server's key for you."),
]
Model = Annotated[
    str | None,
    typer.Option(help="Model to load; OPENVOCAB_MODEL.", autocompletion=lambda: list(catalog())),
]
RetryFor = Annotated[
    float, typer.Option(min=0, help="Seconds to try again while a server is busy or away.")
]
