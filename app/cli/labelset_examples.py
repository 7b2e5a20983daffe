"""`openvocab labelset examples`: pictures that sharpen labels. Knows nothing of how they do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from app.cli.files import Finder, read, reason
from app.cli.labelset_client import LabelSets, Picture, send
from app.cli.options import DEFAULT_URL, AsJson, Name, ServerKey, ServerUrl, out, run
from app.cli.output import json_text
from app.cli.terminal import Ended, printable, say
from app.server.exit_status import SOME_FAILED, USAGE_ERROR

EPILOG: Final = """Examples:

openvocab labelset examples add pets pictures/

openvocab labelset examples add pets --label cat cats/*.jpg

openvocab labelset examples remove pets --label cat

Exit status: 0 done, 1 some pictures or the server refused, 2 an option or a file is wrong, \
4 the server cannot be used, or not with this key.
"""

app = typer.Typer(
    no_args_is_help=True, help="Pictures that sharpen the labels of a set.", epilog=EPILOG
)

# no server takes a larger picture unless it is told to
LARGEST: Final = 100_000_000

Label = Annotated[str | None, typer.Option(help="The label; without, each file's folder.")]


@app.command(epilog=EPILOG)
def add(
    name: Name,
    sources: Annotated[
        list[str], typer.Argument(help="A folder with one folder for each label, or pictures.")
    ],
    label: Label = None,
    url: ServerUrl = DEFAULT_URL,
    api_key: ServerKey = None,
) -> None:
    """Add pictures, and show what they are worth."""

    async def work(sets: LabelSets) -> int:
        failed: list[str] = []
        sent = await send(sets, name, _pictures(sources, label, failed), say)
        for path, why in sent.refused:
            say(f"{path}: {why}")
        if sent.answer is None:
            raise Ended(SOME_FAILED if failed else USAGE_ERROR, "there was no picture to send")
        _show(await sets.ready(await sets.get(name)))
        return SOME_FAILED if failed or sent.refused else 0

    run(url, api_key, work)


@app.command("list", epilog=EPILOG)
def list_examples(
    name: Name, url: ServerUrl = DEFAULT_URL, api_key: ServerKey = None, as_json: AsJson = False
) -> None:
    """List examples: id, label, size, file's bytes and when each was added."""

    async def work(sets: LabelSets) -> int:
        async for found in sets.examples(name):
            size = f"{found['width']}x{found['height']}"
            row = (found["id"], found["label"], size, str(found["bytes"]), found["added"])
            out(json_text(found) if as_json else "\t".join(map(printable, row)))
        return 0

    run(url, api_key, work)


@app.command(epilog=EPILOG)
def remove(
    name: Name,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids, as `list` prints them.")] = None,
    label: Annotated[str | None, typer.Option(help="Those of this label.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    url: ServerUrl = DEFAULT_URL,
    api_key: ServerKey = None,
) -> None:
    """Remove examples, pictures and all."""
    if sum((bool(ids), label is not None, all_)) != 1:
        raise typer.BadParameter("name ids, or --label, or --all")

    wanted: list[str | None] = [*ids] if ids else [None]

    async def work(sets: LabelSets) -> int:
        count = 0
        for id_ in wanted:
            count += (await sets.remove_examples(name, id_, label))["removed"]
        say(f"{name}: {count} examples removed")
        return 0

    run(url, api_key, work)


def _pictures(sources: list[str], label: str | None, failed: list[str]) -> Iterator[Picture]:
    """The pictures of the sources; what cannot be read is told and `failed`."""
    for found in Finder().found(sources):
        path = Path(found.path)
        try:
            if found.error is not None:
                raise ValueError(found.error)
            yield Picture(label or _folder(path), found.path, read(found.path, LARGEST))
        except (OSError, ValueError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            say(f"{found.path}: {why}")
            failed.append(found.path)


def _folder(path: Path) -> str:
    folder = path.parent.name or path.absolute().parent.name
    if not folder:
        raise ValueError("it lies in no folder; --label says what it shows")
    return folder


def _show(found: dict[str, Any]) -> None:
    """How many each label has, and what they are worth."""
    table = Table(box=None, pad_edge=False)
    for heading in ("label", "examples"):
        table.add_column(heading)
    for label in found["labels"]:
        table.add_row(printable(label), str(found["examples"].get(label, 0)))
    Console(markup=False).print(table)
    blend = found["blend"]
    if blend is None:
        return
    line = f"weight {blend['weight']:g}"
    if blend["reason"]:
        line += f": {blend['reason']}"
    if blend["text"]:
        line += f"; told right, left out one at a time: {blend['text']['accuracy']:.1%} by the text"
        line += f" alone, {blend['blend']['accuracy']:.1%} with examples"
    say(line)
