"""`openvocab labelset examples`: pictures that sharpen labels. Knows nothing of how they do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from app.cli.client import LARGEST_FILE
from app.cli.files import Finder, read, reason
from app.cli.help import add as add_command
from app.cli.help import group
from app.cli.labelset_client import LabelSetClient, Picture, send
from app.cli.options import DEFAULT_URL, AsJson, Key, Name, ServerModel, ServerUrl, out, run
from app.cli.output import TableConsole, json_text
from app.cli.terminal import Ended, printable, say
from app.server.exit_status import SOME_FAILED, USAGE_ERROR

EXIT_STATUS: Final = (
    "0 done, 1 some pictures failed or the server refused, 2 an option or a file is invalid, 4 the "
    "server cannot be reached, or not with this key."
)

app = group("Manage the example pictures of a label set (few-shot).")

Label = Annotated[
    str | None,
    typer.Option(metavar="LABEL", help="Label of all files (default: each file's folder)."),
]


def add(
    name: Name,
    sources: Annotated[
        list[str],
        typer.Argument(metavar="PATH", help="A folder with one subfolder per label, or pictures."),
    ],
    label: Label = None,
    url: ServerUrl = DEFAULT_URL,
    api_key: Key = None,
    model: ServerModel = None,
) -> None:
    """Add example pictures, and show what they are worth."""

    async def work(sets: LabelSetClient) -> int:
        failed: list[str] = []
        report = await send(sets, name, _pictures(sources, label, failed), say)
        for path, why in report.refused:
            say(f"{path}: {why}")
        for warning in report.warnings:
            say(f"warning: {warning}")
        if report.answer is None:
            raise Ended(SOME_FAILED if failed else USAGE_ERROR, "no pictures to send")
        _show(await sets.ready(await sets.get(name)))
        return SOME_FAILED if failed or report.refused else 0

    run(url, api_key, work, model)


def list_examples(
    name: Name, url: ServerUrl = DEFAULT_URL, api_key: Key = None, as_json: AsJson = False
) -> None:
    """List examples: id, label, size in pixels and bytes, date added."""

    async def work(sets: LabelSetClient) -> int:
        async for example in sets.examples(name):
            size = f"{example['width']}x{example['height']}"
            row = (example["id"], example["label"], size, str(example["bytes"]), example["added"])
            out(json_text(example) if as_json else "\t".join(map(printable, row)))
        return 0

    run(url, api_key, work)


def remove(
    name: Name,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Ids, as `list` prints them.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="LABEL", help="All examples of this label.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All examples.")] = False,
    url: ServerUrl = DEFAULT_URL,
    api_key: Key = None,
) -> None:
    """Remove examples and their pictures."""
    if sum((bool(ids), label is not None, all_)) != 1:
        raise typer.BadParameter("give ids, --label or --all (one of them)")

    chosen: list[str | None] = [*ids] if ids else [None]

    async def work(sets: LabelSetClient) -> int:
        count = 0
        for id_ in chosen:
            count += (await sets.remove_examples(name, id_, label))["removed"]
        say(f"{name}: {count} examples removed")
        return 0

    run(url, api_key, work)


def _pictures(sources: list[str], label: str | None, failed: list[str]) -> Iterator[Picture]:
    """The pictures of the sources; unreadable ones are reported and added to `failed`."""
    finder = Finder()
    for file in finder.found(sources):
        path = Path(file.path)
        try:
            if file.error is not None:
                raise ValueError(file.error)
            yield Picture(label or _folder(path), file.path, read(file.path, LARGEST_FILE))
        except (OSError, ValueError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            say(f"{file.path}: {why}")
            failed.append(file.path)
    for line in finder.passed_over():
        say(line)


def _folder(path: Path) -> str:
    folder = path.parent.name or path.absolute().parent.name
    if not folder:
        raise ValueError("it is in no folder; use --label")
    return folder


def _show(answer: dict[str, Any]) -> None:
    """How many each label has, and what they are worth."""
    table = Table("label", "examples", box=None, pad_edge=False)
    for label in answer["labels"]:
        table.add_row(printable(label), str(answer["examples"].get(label, 0)))
    TableConsole(markup=False).print(table)
    blend = answer["blend"]
    if blend is None:
        return
    line = f"weight {blend['weight']:g}"
    if blend["reason"]:
        line += f": {blend['reason']}"
    if blend["text"]:
        line += f"; correct, leave-one-out: {blend['text']['accuracy']:.1%} by text"
        line += f" alone, {blend['blend']['accuracy']:.1%} with examples"
    say(line)


ADD: Final = """
openvocab labelset examples add pets pictures/
openvocab labelset examples add pets --label cat cats/*.jpg
"""

add_command(app, add, "add", ADD, EXIT_STATUS)
add_command(app, list_examples, "list", "openvocab labelset examples list pets", EXIT_STATUS)
add_command(
    app, remove, "remove", "openvocab labelset examples remove pets --label cat", EXIT_STATUS
)
