"""Options that several commands share, and what runs a command on a server. Knows no command."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

import typer

from app.cli.client import Client, http_client
from app.cli.help import label_option, server_option
from app.cli.labelset_client import BadFile, LabelSetClient
from app.cli.terminal import Ended, say, status_of
from app.server.exit_status import SOME_FAILED, USAGE_ERROR
from models.catalog import catalog

Url = Annotated[
    str,
    server_option(
        metavar="URL", envvar="OPENVOCAB_URL", help="Server URL (default: run the model locally)."
    ),
]
Key = Annotated[
    str | None,
    server_option(
        "--api-key", metavar="KEY", envvar="OPENVOCAB_API_KEY", help="API key for the server."
    ),
]
Model = Annotated[
    str | None,
    server_option(
        metavar="NAME",
        autocompletion=lambda: list(catalog()),
        help="Model to load (default: OPENVOCAB_MODEL), or one of the server's models.",
    ),
]
RetryFor = Annotated[
    float,
    server_option(
        metavar="SECONDS",
        min=0,
        help="Keep retrying for this long if the server is busy or unreachable.",
    ),
]
Jobs = Annotated[
    int | None, server_option(metavar="N", min=1, max=1024, help="Number of parallel requests.")
]

ServerModel = Annotated[
    str | None,
    server_option(
        "--model", metavar="NAME", help="Which of the server's models (default: its first)."
    ),
]

Templates = Annotated[
    list[str] | None,
    label_option(
        metavar="NAME|TEXT",
        help="Template set, or your own templates with one {} each (repeat the option).",
    ),
]
MultiLabel = Annotated[
    bool,
    label_option(
        "--multi-label",
        help="Score each label independently: pictures may have several labels, or none.",
    ),
]

Truncate = Annotated[
    bool,
    label_option(
        "--truncate", help="Use the beginning of labels that are longer than the model reads."
    ),
]

DEFAULT_URL: Final = "http://127.0.0.1:8000"

# seconds of retrying while a server is busy or unreachable
RETRY_FOR: Final = 10.0

# the same for commands that send many pictures
PATIENCE: Final = 60.0

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the label set.")]
ServerUrl = Annotated[str, server_option(metavar="URL", envvar="OPENVOCAB_URL", help="Server URL.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


def run(
    url: str,
    api_key: str | None,
    work: Callable[[LabelSetClient], Awaitable[int]],
    model: str | None = None,
) -> None:
    """Do the work with one of the server's models, and exit with its status."""

    async def connected() -> int:
        async with http_client(url, api_key, 1, model) as http:
            return await work(LabelSetClient(Client(http, RETRY_FOR)))

    def status() -> int:
        try:
            return asyncio.run(connected())
        except BadFile as error:
            raise Ended(USAGE_ERROR, f"the file {error}") from None

    raise typer.Exit(status_of(status))


async def goes_on(name: str, awaitable: Awaitable[Any]) -> bool:
    """Whether it worked; a refusal is reported, and only an unusable server ends the command."""
    try:
        await awaitable
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
