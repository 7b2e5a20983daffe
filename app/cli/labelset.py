"""`openvocab labelset`: the label sets of a server. Knows nothing of how they are kept."""

import os
from typing import Annotated, Any, Final

import typer
from rich.table import Column, Table

from app.cli import labelset_examples
from app.cli.help import add, group
from app.cli.labelset_client import (
    LARGEST,
    BadFile,
    LabelSetClient,
    backed_up,
    definition,
    exported,
    imported,
    restore,
)
from app.cli.options import (
    DEFAULT_URL,
    AsJson,
    Key,
    Name,
    ServerModel,
    ServerUrl,
    Templates,
    goes_on,
    out,
    run,
)
from app.cli.output import TableConsole, json_text
from app.cli.terminal import STDIN, Ended, check_text, opened, printable, say
from app.server.exit_status import SOME_FAILED, USAGE_ERROR

EXIT_STATUS: Final = (
    "0 done, 1 the server refused, 2 an option or a file is invalid, 4 the server cannot be "
    "reached, or not with this key."
)

app = group("Manage the label sets of a server.")
app.add_typer(labelset_examples.app, name="examples")

File = Annotated[str, typer.Argument(metavar="FILE", help="One label a line, or JSON; - is stdin.")]
Description = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Description of the label set.")
]
Truncate = Annotated[
    bool, typer.Option("--truncate", help="Cut texts that are longer than the model reads.")
]
Wait = Annotated[bool, typer.Option(help="Wait until the label set is ready.")]


def list_labelsets(
    url: ServerUrl = DEFAULT_URL,
    api_key: Key = None,
    model: ServerModel = None,
    as_json: AsJson = False,
) -> None:
    """List label sets by name."""

    async def work(sets: LabelSetClient) -> int:
        headings = ("version", "labels", "status", "templates", "description")
        table = Table(Column("name", no_wrap=True), *headings, box=None, pad_edge=False)
        async for labelset in sets.all():
            if as_json:
                out(json_text(labelset))
                continue
            numbers = (str(labelset["version"]), str(labelset["label_count"]))
            texts = (labelset["status"], labelset["templates"], printable(labelset["description"]))
            table.add_row(labelset["name"], *numbers, *texts)
        if not as_json:
            TableConsole(markup=False).print(table)
        return 0

    run(url, api_key, work, model)


def show(
    name: Name,
    url: ServerUrl = DEFAULT_URL,
    api_key: Key = None,
    model: ServerModel = None,
    as_json: AsJson = False,
) -> None:
    """Print a label set with synonyms and prompts."""

    async def work(sets: LabelSetClient) -> int:
        labelset = await sets.get(name)
        if as_json:
            out(json_text(labelset))
            return 0
        about = (
            f"{name}, version {labelset['version']}, {labelset['status']}, {labelset['templates']}"
        )
        say(f"{about}: {labelset['label_count']} labels. {labelset['description']}".rstrip())
        for model_name, state in labelset.get("models", {}).items():
            say(f"{model_name}: {state}")
        for label in labelset["labels"]:
            texts = labelset["prompts"].get(label) or labelset["synonyms"].get(label)
            out("\t".join(map(printable, (label, *([", ".join(texts)] if texts else [])))))
        return 0

    run(url, api_key, work, model)


def create(
    name: Name,
    file: File = STDIN,
    templates: Templates = None,
    description: Description = None,
    truncate: Truncate = False,
    wait: Wait = True,
    url: ServerUrl = DEFAULT_URL,
    api_key: Key = None,
    model: ServerModel = None,
) -> None:
    """Create a new label set."""

    async def work(sets: LabelSetClient) -> int:
        content = _content(name, file, templates, description, truncate=truncate)
        return await _print_state(sets, await sets.create(content), wait)

    run(url, api_key, work, model)


def replace(
    name: Name,
    file: File = STDIN,
    templates: Templates = None,
    description: Description = None,
    truncate: Truncate = False,
    wait: Wait = True,
    url: ServerUrl = DEFAULT_URL,
    api_key: Key = None,
    model: ServerModel = None,
) -> None:
    """Replace a label set.

    The old version serves until the new one is built.
    """

    async def work(sets: LabelSetClient) -> int:
        content = _content(name, file, templates, description, truncate=truncate)
        return await _print_state(sets, await sets.put(content, must_exist=True), wait)

    run(url, api_key, work, model)


def delete(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Label sets to delete.")],
    url: ServerUrl = DEFAULT_URL,
    api_key: Key = None,
) -> None:
    """Delete label sets."""

    async def work(sets: LabelSetClient) -> int:
        failed = 0
        for name in names:
            failed += not await goes_on(name, sets.delete(name))
        return SOME_FAILED if failed else 0

    run(url, api_key, work)


def export_labelsets(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Label sets to export (default: all)."),
    ] = None,
    examples: Annotated[bool, typer.Option(help="Include example pictures, in base64.")] = True,
    url: ServerUrl = DEFAULT_URL,
    api_key: Key = None,
) -> None:
    """Print label sets as JSON lines for `import`."""

    async def work(sets: LabelSetClient) -> int:
        async def export(name: str) -> None:
            content = exported(labelset := await sets.get(name))
            if examples:  # none is told, too: a restored set has those of its backup and no others
                has_any = labelset.get("examples")
                content["examples"] = await backed_up(sets, name) if has_any else []
            out(json_text(content))

        failed = 0
        chosen = names or [labelset["name"] async for labelset in sets.all()]
        for name in chosen:
            failed += not await goes_on(name, export(name))
        return SOME_FAILED if failed else 0

    run(url, api_key, work)


def import_labelsets(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Backup that `export` printed; - is stdin.")
    ],
    overwrite: Annotated[
        bool, typer.Option("--replace", help="Overwrite existing label sets.")
    ] = False,
    url: ServerUrl = DEFAULT_URL,
    api_key: Key = None,
) -> None:
    """Create label sets from a backup.

    They are built in the background.
    """

    async def work(sets: LabelSetClient) -> int:
        async def imports(sets: LabelSetClient, content: dict[str, Any]) -> None:
            kept = content.pop("examples", None)
            if overwrite:
                await sets.put(content, must_exist=False)
            else:
                await sets.create(content)
            if kept is not None:
                await restore(sets, content["name"], kept, say)

        imported_sets, failed = 0, 0
        with opened(file) as lines:
            for content in imported(lines):
                worked = await goes_on(content["name"], imports(sets, content))
                imported_sets, failed = imported_sets + worked, failed + (not worked)
        say(f"imported {imported_sets} label sets, {failed} refused")
        return SOME_FAILED if failed else 0

    run(url, api_key, work)


async def _print_state(sets: LabelSetClient, answer: dict[str, Any], wait: bool) -> int:
    state = await sets.ready(answer) if wait else answer
    say(f"{state['name']}, version {state['version']}, {state['status']}")
    # the first answer alone tells of labels that were merged
    for warning in dict.fromkeys((*answer.get("warnings", ()), *state.get("warnings", ()))):
        say(f"warning: {warning}")
    return 0


def _content(
    name: str, file: str, templates: list[str] | None, description: str | None, *, truncate: bool
) -> dict[str, Any]:
    options = {"NAME": [name], "--templates": templates, "--description": [description or ""]}
    for option, texts in options.items():
        for text in texts or ():
            check_text(option, text)
    if "," in file and not os.path.lexists(file):
        line = f"{file!r} was read as a file, which does not exist; FILE has one label a line"
        raise Ended(USAGE_ERROR, line)
    with opened(file) as source:
        content = definition(source.read(LARGEST + 1))
    if content.get("name", name) != name:
        raise BadFile(f"names the label set {content['name']!r}, not {name!r}")
    content["name"] = name
    if content.get("examples") == []:  # the line of an export
        del content["examples"]
    if templates is not None:
        content["templates"] = templates
    if description is not None:
        content["description"] = description
    if truncate:
        content["truncate"] = True
    return content


CREATE: Final = """
openvocab labelset create pets pets.txt
printf 'cat\\ndog\\n' | openvocab labelset create pets --templates simple
"""

add(app, list_labelsets, "list", "openvocab labelset list --url http://127.0.0.1:8000", EXIT_STATUS)
add(app, show, "show", "openvocab labelset show pets --json", EXIT_STATUS)
add(app, create, "create", CREATE, EXIT_STATUS)
add(app, replace, "replace", "openvocab labelset replace pets pets.json --no-wait", EXIT_STATUS)
add(app, delete, "delete", "openvocab labelset delete pets colours", EXIT_STATUS)
add(app, export_labelsets, "export", "openvocab labelset export > backup.jsonl", EXIT_STATUS)
add(
    app, import_labelsets, "import", "openvocab labelset import backup.jsonl --replace", EXIT_STATUS
)
