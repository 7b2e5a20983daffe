"""Options and helpers of commands that ask a server for its label sets. Knows no command."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

import typer

from app.cli.client import Client, http_client
from app.cli.labelset_client import BadFile, LabelSets
from app.cli.terminal import Ended, say, status_of
from app.server.exit_status import SOME_FAILED, USAGE_ERROR
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


DEFAULT_URL: Final = "http://127.0.0.1:8000"

# seconds to try again while a server is busy or away
RETRY_FOR: Final = 10.0

Name = Annotated[str, typer.Argument(help="The label set's name.")]
ServerUrl = Annotated[str, typer.Option(envvar="OPENVOCAB_URL", help="The server.")]
ServerKey = Annotated[
    str | None, typer.Option("--api-key", envvar="OPENVOCAB_API_KEY", help="Its key for you.")
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON lines.")]


def run(url: str, api_key: str | None, work: Callable[[LabelSets], Awaitable[int]]) -> None:
    """Do the work with the server, and exit with its status."""

    async def asked() -> int:
        async with http_client(url, api_key, jobs=1) as http:
            return await work(LabelSets(Client(http, RETRY_FOR)))

    def status() -> int:
        try:
            return asyncio.run(asked())
        except BadFile as error:
            raise Ended(USAGE_ERROR, f"the file {error}") from None

    raise typer.Exit(status_of(status))


async def goes_on(name: str, asked: Awaitable[Any]) -> bool:
    """Whether it worked; a refusal is told, and only a server that cannot be used ends all."""
    try:
        await asked
    except Ended as ended:
        if ended.status != SOME_FAILED:
            raise
        say(f"{name}: {ended.line}")
        return False
    return True


def out(line: str) -> None:
    """A line of data to standard output."""
    sys.stdout.buffer.write(line.encode() + b"\n")
    sys.stdout.buffer.flush()
