"""`openvocab classify`: options in, files through a service, answers out.

Knows nothing of how a service answers.
"""

import contextlib
import glob
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from app.classify.scoring import Scoring
from app.cli import help as help_
from app.cli import result_file, sorting
from app.cli.client import Reached, Service
from app.cli.file_queue import Run, Source, Tally
from app.cli.files import Finder
from app.cli.help import input_option, label_option, output_option, sorting_option
from app.cli.label_file import LabelInput, given_labels, split
from app.cli.options import (
    PATIENCE,
    Jobs,
    Key,
    Model,
    MultiLabel,
    RetryFor,
    Templates,
    Truncate,
    Url,
)
from app.cli.output import NONE, FileAnswer, Format, Shape, Writer
from app.cli.result_file import ResultFile, Sink
from app.cli.sorting import Sorter
from app.cli.terminal import STDIN, Ended, check_text, printable, say, status_of
from app.images.views import View
from app.labelsets.definition import Combine
from app.server.exit_status import SOME_FAILED, USAGE_ERROR

# formats that hold all of an answer
WHOLE: Final = (Format.JSON, Format.NDJSON)

# warnings that a terminal is shown, each once
MOST_WARNINGS: Final = 20

# numbers of a box
BOX: Final = 4


def form_fields(**options: Any) -> dict[str, str]:
    """The form fields of a request from options of their names; None and False are left out.

    Lists go as JSON, so that the server takes nothing apart. Raises Ended.
    """
    if options.get("labels") is not None and options.get("labelset") is not None:
        raise Ended(USAGE_ERROR, "give either --labels or --labelset, not both")
    templates = options.get("templates") or ()
    for text in templates:
        if "{}" not in text and (" " in text or len(templates) > 1):
            raise Ended(USAGE_ERROR, f"--templates: {text!r} has no {{}} for the label")
    return {
        name: _field(name, value)
        for name, value in options.items()
        if value is not None and value is not False
    }


def _field(name: str, value: Any) -> str:
    check_text(f"--{name.replace('_', '-')}", json.dumps(value, ensure_ascii=False))
    return value if isinstance(value, str) else json.dumps(value)


def _words(option: str, values: list[str] | None) -> LabelInput | None:
    """Texts of an option that is comma-separated, or repeated. Raises Ended."""
    return split(values[0], option) if values and len(values) == 1 else values


def _boxes(values: list[str] | None) -> list[list[float]] | None:
    """Four numbers each. Raises Ended."""
    if values is None:
        return None
    try:
        boxes = [[float(number) for number in value.split(",")] for value in values]
    except ValueError:
        boxes = [[]]
    if any(len(box) != BOX for box in boxes):
        line = "--boxes takes x,y,width,height in pixels, or as shares of the picture: 0,0,0.5,1"
        raise Ended(USAGE_ERROR, line)
    return boxes


EXAMPLES: Final = """
openvocab classify cat.jpg --labels cat,dog,pizza
openvocab classify photos/ --labels @labels.txt --format csv > answers.csv
openvocab classify photos/ --labelset pets -o answers.parquet --resume
openvocab classify photos/ --labels cat,dog --abstain --move-to sorted --dry-run
openvocab classify photos/ --labelset colour,kind,preset:weather
openvocab classify photos/ --labels cat,dog --not "a blank page" --boxes 0,0,0.5,1
find . -name '*.png' -print0 | openvocab classify --files-from - --labels cat,dog
curl -s https://example.org/cat.png | openvocab classify - --labels cat,dog
"""

EXIT_STATUS: Final = (
    "0 every file was classified ('none of these' is an answer), 1 some were not, or no image was "
    "found, 2 an option is invalid, 3 the model cannot be loaded, 4 the server or the store cannot "
    "be used, 130 interrupted, 141 output pipe closed."
)


def classify(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH", help="Files, folders or patterns; - reads an image from stdin."
        ),
    ] = None,
    labels: Annotated[
        list[str] | None,
        label_option(
            metavar="WORDS",
            help="Comma-separated, or @FILE with one label a line; repeat the option for labels "
            "that contain commas.",
        ),
    ] = None,
    labelset: Annotated[
        list[str] | None,
        label_option(
            metavar="NAMES",
            help="Registered label sets or preset:NAME instead of --labels, comma-separated: a "
            "column each (default without --labels: tags of everyday nouns).",
        ),
    ] = None,
    combine: Annotated[
        Combine | None,
        label_option(
            help='For labels with several texts ({"dog": ["corgi", "poodle"], "cat": []}): '
            "use their mean, or let the best one decide."
        ),
    ] = None,
    nots: Annotated[
        list[str] | None,
        label_option(
            "--not",
            metavar="WORDS",
            help='What pictures may show instead: "none of these" where one of them fits better '
            "(comma-separated, or repeat the option).",
        ),
    ] = None,
    templates: Templates = None,
    top_k: Annotated[
        int | None,
        label_option(
            metavar="N",
            min=1,
            help="Predictions per image (default: the best in a table of several images, else up "
            "to 5).",
        ),
    ] = None,
    threshold: Annotated[
        float | None, label_option(metavar="SCORE", min=0, max=1, help="Minimum score.")
    ] = None,
    multi_label: MultiLabel = False,
    abstain: Annotated[
        bool,
        label_option(
            "--abstain", help='Answer "none of these" if no label fits or two are too close.'
        ),
    ] = False,
    coverage: Annotated[
        float | None,
        label_option(
            metavar="SHARE",
            min=0.01,
            max=0.99,
            help="For a calibrated label set: the smallest set of labels that contains the right "
            "one in this share of pictures.",
        ),
    ] = None,
    truncate: Truncate = False,
    scores: Annotated[
        Scoring | None,
        label_option(help="Scores share 1 (softmax), or each label has its own (sigmoid)."),
    ] = None,
    view: Annotated[
        View | None, input_option(help="How the picture is fitted to the model (default: auto).")
    ] = None,
    boxes: Annotated[
        list[str] | None,
        input_option(
            "--boxes",
            metavar="X,Y,W,H",
            help="A part of each picture to classify separately, in pixels or as fractions "
            "(repeat the option).",
        ),
    ] = None,
    background: Annotated[
        str | None,
        input_option(
            metavar="COLOUR",
            help="Background for transparent pictures: a colour name or #rrggbb (default: auto).",
        ),
    ] = None,
    recursive: Annotated[bool, input_option(help="Search subfolders.")] = True,
    all_files: Annotated[
        bool,
        input_option("--all-files", help="In folders, also take files without an image extension."),
    ] = False,
    files_from: Annotated[
        str | None,
        input_option(metavar="FILE", help="Read file names from FILE, one a line; - is stdin."),
    ] = None,
    null: Annotated[
        bool, input_option("--null", "-0", help="Names in --files-from are NUL-separated.")
    ] = False,
    form: Annotated[Format, output_option("--format", help="Output format.")] = Format.TABLE,
    output: Annotated[
        Path | None,
        output_option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write to FILE; its extension sets the format: .csv, .tsv, .json, .ndjson or "
            ".parquet.",
        ),
    ] = None,
    resume: Annotated[
        bool, output_option("--resume", help="Resume an interrupted run with this --output.")
    ] = False,
    move_to: Annotated[
        Path | None, sorting_option(metavar="DIR", help="Move each file to DIR/BEST-LABEL/.")
    ] = None,
    copy_to: Annotated[
        Path | None, sorting_option(metavar="DIR", help="Copy each file to DIR/BEST-LABEL/.")
    ] = None,
    undo_file: Annotated[
        Path | None,
        sorting_option(metavar="FILE", help="Where to write the undo log (default: in DIR)."),
    ] = None,
    dry_run: Annotated[
        bool, sorting_option("--dry-run", help="Only print what --move-to or --copy-to would do.")
    ] = False,
    url: Url = "",
    api_key: Key = None,
    model: Model = None,
    jobs: Jobs = None,
    retry_for: RetryFor = PATIENCE,
) -> None:
    """Classify pictures with your own labels.

    With --move-to or --copy-to, sort the files by the answer.
    """

    def run() -> int:
        names = paths or []
        source = _source(names, move_to or copy_to, recursive, all_files, files_from, null)
        if output is not None and form is not Format.TABLE:
            raise Ended(
                USAGE_ERROR, "--output takes its format from the file extension; leave out --format"
            )
        shown = form is Format.TABLE and output is None
        one_line = shown and top_k is None and not source.single
        fields = form_fields(
            labels=given_labels(labels), labelset=_words("--labelset", labelset), combine=combine,
            templates=templates, top_k=1 if one_line else top_k, threshold=threshold,
            multi_label=multi_label, abstain=abstain, coverage=coverage, truncate=truncate,
            scores=scores, view=view, boxes=_boxes(boxes), background=background,
            **{"not": _words("--not", nots)},
        )  # fmt: skip
        shape = _shape(fields)
        if (move_to or copy_to) and (shape.boxes or shape.labelsets):
            raise Ended(USAGE_ERROR, "files can be sorted by one label set only, and not by boxes")
        _check_names(names, labels)
        service = Service(url, api_key, model, jobs, retry_for)
        request = {**fields, "model": model}
        with (
            result_file.opened(output, shape, request, resume=resume) as results,
            _sorter(move_to, copy_to, undo_file, dry_run) as sorter,
        ):
            return _classify(service, fields, shape, source, sorter, form, results)

    raise typer.Exit(status_of(run))


app = help_.alone(classify, EXAMPLES, EXIT_STATUS)


def _classify(
    service: Service,
    fields: dict[str, str],
    shape: Shape,
    source: Source,
    sorter: Sorter | None,
    form: Format,
    results: ResultFile | None,
) -> int:
    words = list(json.loads(fields.get("labels", "[]")))
    words += [NONE] * (bool(words) and bool({"abstain", "not"} & fields.keys()))
    # only a table has columns, and to know their width every folder is walked
    widest = source.widest if form is Format.TABLE and results is None else None
    writer: Sink = results or Writer(
        form, sys.stdout.buffer, words, shape, widest, single=source.single
    )
    known = results.knows if results else None

    async def work(reached: Reached) -> Tally:
        run = Run(reached.client, fields, reached.jobs, reached.limit, sorter, known)
        with _printed(source, writer, form, to_file=results is not None) as show:
            return await run.over(source, show)

    tally = service.run(work, stored="labelset" in fields, asks=not source.is_empty)
    if results is not None:
        tally = Tally()
        for record in results.records():
            tally.count(record)
        if tally.files:
            results.finish()
    for line in source.finder.passed_over(" (use --all-files)"):
        say(line)
    if not tally.files:
        say(f"no images found in {', '.join(source.names) or source.lists}")
        return SOME_FAILED
    if form is Format.TABLE and tally.files > 1 and not (shape.labelsets or shape.boxes):
        say(tally.summary())
    return SOME_FAILED if tally.failed else 0


def _shape(fields: dict[str, str]) -> Shape:
    """What answers to the fields have; label sets get a column each where there are several."""
    names = [name.strip() for name in json.loads(fields.get("labelset", "[]"))]
    return Shape(names if len(names) > 1 else (), "boxes" in fields, "coverage" in fields)


def _check_names(names: list[str], labels: list[str] | None) -> None:
    """Say what a name that leads nowhere was probably meant to be. Raises Ended."""
    for name in names:
        if re.match(r"https?://", name, re.IGNORECASE):
            line = f"{name} is a URL; pipe it: curl -s {shlex.quote(name)} | openvocab classify -"
            raise Ended(USAGE_ERROR, line)
        is_word = name != STDIN and not os.path.lexists(name) and not glob.has_magic(name)
        if is_word and labels and len(labels) == 1 and "," not in labels[0] and name.isalpha():
            line = f"{name!r} was read as a file, which does not exist; separate labels with "
            raise Ended(USAGE_ERROR, f"{line}commas: --labels {labels[0]},{name}")


def _source(
    paths: list[str],
    folder: Path | None,
    recursive: bool,
    all_files: bool,
    files_from: str | None,
    null: bool,
) -> Source:
    if not paths and files_from is None:
        raise Ended(USAGE_ERROR, "give files or folders, or use --files-from; - is stdin")
    if (*paths, files_from).count(STDIN) > 1:
        raise Ended(USAGE_ERROR, "stdin can hold either an image or the file names, not both")
    if folder is not None and STDIN in paths:
        raise Ended(USAGE_ERROR, "an image from stdin cannot be moved or copied")
    finder = Finder(recursive, all_files, folder.resolve() if folder else None)
    return Source(tuple(paths), finder, files_from, null)


@contextlib.contextmanager
def _sorter(
    move_to: Path | None, copy_to: Path | None, undo_file: Path | None, dry: bool
) -> Iterator[Sorter | None]:
    """Moves or copies files if requested; at the end tells how to undo it."""
    folder = move_to or copy_to
    if move_to and copy_to:
        raise Ended(USAGE_ERROR, "use either --move-to or --copy-to, not both")
    if folder is None:
        if dry or undo_file:
            raise Ended(USAGE_ERROR, "--dry-run and --undo-file need --move-to or --copy-to")
        yield None
        return
    if undo_file is not None and undo_file.exists():
        raise Ended(USAGE_ERROR, f"--undo-file {undo_file} already exists; name another file")
    log = sorting.UndoLog(undo_file) if undo_file else sorting.default_log(folder)
    try:
        yield Sorter(folder, log, copy=move_to is None, dry=dry)
    finally:
        log.close()
        if log.begun:
            say(f"to undo: openvocab undo {shlex.quote(str(log.path))}")


@contextlib.contextmanager
def _printed(
    source: Source, writer: Sink, form: Format, *, to_file: bool
) -> Iterator[Callable[[FileAnswer], None]]:
    """Write records, and problems to standard error; a bar where neither would disturb it.

    Warnings go there too, where the format has no place for them.
    """
    console = Console(stderr=True)
    bar = Progress(
        BarColumn(), MofNCompleteColumn(),
        TimeRemainingColumn(), console=console,
        disable=not console.is_terminal or (sys.stdout.isatty() and not to_file),
    )  # fmt: skip
    shown_warnings: set[str] = set()
    with bar:
        task = bar.add_task("", total=None if bar.disable else source.count)

        def report(record: FileAnswer, text: str) -> None:
            line = printable(f"openvocab: {record.file}: {text}")
            bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

        def show(record: FileAnswer) -> None:
            writer.write(record)
            for text in record.warnings if form not in WHOLE else ():
                # most are of the labels, and so the same for every file
                if text not in shown_warnings and len(shown_warnings) < MOST_WARNINGS:
                    report(record, f"warning: {text}")
                shown_warnings.add(text)
            if record.problem is not None:
                report(record, record.problem["detail"])
            bar.advance(task)

        writer.begin()
        try:
            yield show
        finally:
            writer.end()
    if len(shown_warnings) > MOST_WARNINGS:
        say(f"{len(shown_warnings) - MOST_WARNINGS} more warnings; --format json has them all")
