"""`openvocab classify` and `openvocab undo`: options in, files through a service, answers out.

Knows nothing of how a service answers.
"""

import contextlib
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from app.cli import sorting
from app.cli.client import Reached, Service
from app.cli.file_queue import Run, Source, Tally, counted
from app.cli.files import Finder, reason
from app.cli.options import Key, Model, RetryFor, Url
from app.cli.output import NONE, Format, Record, Writer
from app.cli.sorting import Sorter
from app.cli.terminal import STDIN, Ended, printable, say, status_of
from app.server.exit_status import SOME_FAILED, USAGE_ERROR


class Scores(StrEnum):
    """How similarities become scores."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"


class View(StrEnum):
    """What of a picture is looked at."""

    AUTO = "auto"
    CENTER = "center"
    PAD = "pad"
    SQUASH = "squash"
    TILES = "tiles"
    TILES_MEAN = "tiles-mean"


def form_fields(
    labels: list[str] | None,
    labelset: list[str] | None,
    templates: list[str] | None,
    top_k: int | None,
    threshold: float | None,
    *,
    multi_label: bool,
    abstain: bool = False,
    scores: Scores | None = None,
    view: View | None = None,
) -> dict[str, str]:
    """The form fields of a request; lists as JSON, so that the server takes nothing apart."""
    if labels is not None and labelset is not None:
        raise Ended(USAGE_ERROR, "--labels and --labelset are both given; one is enough")
    fields: dict[str, str] = {"multi_label": json.dumps(multi_label)}
    if labels is not None:
        fields["labels"] = json.dumps(_split(labels[0]) if len(labels) == 1 else labels)
    if labelset is not None:
        fields["labelset"] = json.dumps(_split(labelset[0]) if len(labelset) == 1 else labelset)
    if templates is not None:
        fields["templates"] = json.dumps(templates)
    if top_k is not None:
        fields["top_k"] = str(top_k)
    if threshold is not None:
        fields["threshold"] = repr(threshold)
    if abstain:
        fields["abstain"] = "true"
    if scores is not None:
        fields["scores"] = scores.value
    if view is not None:
        fields["view"] = view.value
    return fields


def _split(text: str) -> list[str]:
    """The texts of a JSON list, or those between commas."""
    with contextlib.suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, list) and all(isinstance(one, str) for one in found):
            return found
    return text.split(",")


def _labelsets(fields: dict[str, str]) -> list[str]:
    names: list[str] = json.loads(fields.get("labelset", "[]"))
    return [name.strip() for name in names]


EPILOG: Final = """Examples:

openvocab classify photos/ --labels cat,dog --format csv > found.csv

openvocab classify photos/ --labels cat,dog --abstain --move-to sorted --dry-run

openvocab classify photos/ --labelset colour,kind,preset:weather

find . -name '*.png' -print0 | openvocab classify --files-from - --labels cat,dog

curl -s https://example.org/cat.png | openvocab classify - --labels cat,dog

Exit status: 0 all were classified (none of these is an answer), 1 some were not, \
2 an option is wrong, 3 the model cannot be loaded, 4 the server or the store cannot be used, \
130 interrupted, 141 the reader of the answers left.
"""


def classify(
    paths: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders, patterns; - is an image on standard input."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(help="With commas between; or repeated, then each as it is."),
    ] = None,
    labelset: Annotated[
        list[str] | None,
        typer.Option(
            help="A registered label set, or preset:NAME, in place of --labels; several, repeated "
            "or comma-separated, get a column each. Without labels: tags, everyday nouns."
        ),
    ] = None,
    templates: Annotated[
        list[str] | None,
        typer.Option(help="A template set, or own templates with one {} each; may be repeated."),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Predictions for each image; 5 at most by default.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least score that counts.")
    ] = None,
    multi_label: Annotated[
        bool, typer.Option("--multi-label", help="Score each label on its own.")
    ] = False,
    abstain: Annotated[
        bool, typer.Option("--abstain", help="None of these, where no label fits or two fit alike.")
    ] = False,
    scores: Annotated[
        Scores | None,
        typer.Option(help="Labels share 1 (softmax), or each has a score of its own (sigmoid)."),
    ] = None,
    view: Annotated[
        View | None, typer.Option(help="What of the picture is looked at (default: auto).")
    ] = None,
    url: Url = "",
    api_key: Key = None,
    model: Model = None,
    form: Annotated[Format, typer.Option("--format", help="How to answer.")] = Format.TABLE,
    recursive: Annotated[bool, typer.Option(help="Enter the folders in folders.")] = True,
    all_files: Annotated[
        bool,
        typer.Option("--all-files", help="Of folders, not only files called like images."),
    ] = False,
    files_from: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Names, one a line or with NUL between; - is stdin."),
    ] = None,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="In --files-from NUL stands between names.")
    ] = False,
    jobs: Annotated[int | None, typer.Option(min=1, max=1024, help="Images at once.")] = None,
    retry_for: RetryFor = 60.0,
    move_to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Move each file to DIR/BEST-LABEL/.")
    ] = None,
    copy_to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Copy each file to DIR/BEST-LABEL/.")
    ] = None,
    undo_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="For `openvocab undo`; usually in DIR.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what --move-to or --copy-to would do.")
    ] = False,
) -> None:
    """Say which of your words fit each picture, and sort files by the answer."""

    def run() -> int:
        fields = form_fields(
            labels,
            labelset,
            templates,
            top_k,
            threshold,
            multi_label=multi_label,
            abstain=abstain,
            scores=scores,
            view=view,
        )
        if len(_labelsets(fields)) > 1 and (move_to or copy_to):
            raise Ended(USAGE_ERROR, "files can be sorted by one label set only")
        source = _source(paths or [], move_to or copy_to, recursive, all_files, files_from, null)
        service = Service(url, api_key, model, jobs, retry_for)
        with _sorter(move_to, copy_to, undo_file, dry_run) as sorter:
            return _classify(service, fields, source, sorter, form)

    raise typer.Exit(status_of(run))


def add_to(app: typer.Typer) -> None:
    """The command, with its examples below its options."""
    app.command("classify", epilog=EPILOG)(classify)


def _classify(
    service: Service,
    fields: dict[str, str],
    source: Source,
    sorter: Sorter | None,
    form: Format,
) -> int:
    labels, labelsets = json.loads(fields.get("labels", "[]")), _labelsets(fields)
    writer = Writer(
        form,
        sys.stdout.buffer,
        labels + [NONE] * (bool(labels) and "abstain" in fields),
        labelsets if len(labelsets) > 1 else (),
    )

    async def work(reached: Reached) -> Tally:
        run = Run(reached.client, fields, reached.jobs, reached.limit, sorter)
        with _shown(source, writer) as show:
            return await run.over(source, show)

    tally = service.run(work, stored="labelset" in fields)
    if source.finder.skipped:
        say(f"files not called like images, passed over: {source.finder.skipped}; --all-files")
    if not tally.files:
        say("there is no image")
    return SOME_FAILED if tally.failed else 0


def _source(
    paths: list[str],
    folder: Path | None,
    recursive: bool,
    all_files: bool,
    files_from: str | None,
    null: bool,
) -> Source:
    if not paths and files_from is None:
        raise Ended(USAGE_ERROR, "name files or folders, or --files-from; - is standard input")
    if (*paths, files_from).count(STDIN) > 1:
        raise Ended(USAGE_ERROR, "standard input can be only one of them: an image, or the names")
    if folder is not None and STDIN in paths:
        raise Ended(USAGE_ERROR, "an image on standard input is no file that could be sorted")
    finder = Finder(recursive, all_files, folder.resolve() if folder else None)
    return Source(tuple(paths), finder, files_from, null)


@contextlib.contextmanager
def _sorter(
    move_to: Path | None, copy_to: Path | None, undo_file: Path | None, dry: bool
) -> Iterator[Sorter | None]:
    """Puts files in their place, if asked to; says at the end how to take it back."""
    folder = move_to or copy_to
    if move_to and copy_to:
        raise Ended(USAGE_ERROR, "--move-to and --copy-to are both given; one is enough")
    if folder is None:
        if dry or undo_file:
            raise Ended(USAGE_ERROR, "--dry-run and --undo-file need --move-to or --copy-to")
        yield None
        return
    if undo_file is not None and undo_file.exists():
        raise Ended(USAGE_ERROR, f"--undo-file {undo_file} exists, and is not written over")
    log = sorting.UndoLog(undo_file) if undo_file else sorting.default_log(folder)
    try:
        yield Sorter(folder, log, copy=move_to is None, dry=dry)
    finally:
        log.close()
        if log.begun:
            say(f"to take it back: openvocab undo {shlex.quote(str(log.path))}")


@contextlib.contextmanager
def _shown(source: Source, writer: Writer) -> Iterator[Callable[[Record], None]]:
    """Write records, and problems to standard error; a bar where neither would disturb it."""
    console = Console(stderr=True)
    bar = Progress(
        BarColumn(), MofNCompleteColumn(),
        TimeRemainingColumn(), console=console,
        disable=not console.is_terminal or sys.stdout.isatty(),
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=None if bar.disable else counted(source))

        def show(record: Record) -> None:
            writer.write(record)
            if record.problem is not None:
                line = f"openvocab: {record.file}: {record.problem['detail']}"
                bar.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
            bar.advance(task)

        writer.begin()
        try:
            yield show
        finally:
            writer.end()


def undo(
    file: Annotated[Path, typer.Argument(help="What `openvocab classify` named at its end.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
) -> None:
    """Put files back where `openvocab classify --move-to` found them; remove copies it made.

    May be interrupted and run again, such as: openvocab undo sorted/openvocab-undo-….jsonl

    Exit status: 0 all are back, 1 some are not, 2 the file is none of ours.
    """

    def run() -> int:
        done, failed = 0, 0
        try:
            for step in sorting.undo(file, dry=dry_run):
                if step.error is None:
                    done += 1
                    typer.echo(f"{printable(step.target)} -> {printable(step.path)}")
                else:
                    failed += 1
                    say(f"{step.path}: {step.error}")
        except sorting.BadUndoFile as error:
            raise Ended(USAGE_ERROR, str(error)) from None
        except OSError as error:
            raise Ended(USAGE_ERROR, f"{file}: {reason(error)}") from None
        say(f"{done} {'would be' if dry_run else 'are'} back, {failed} not")
        return SOME_FAILED if failed else 0

    raise typer.Exit(status_of(run))
