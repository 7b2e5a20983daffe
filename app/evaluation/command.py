"""`openvocab eval`: options in, an evaluation, figures and a report out. Knows no formulas."""

import contextlib
import re
import shlex
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app import VERSION
from app.classify.templates import OWN
from app.cli.client import Service
from app.cli.help import alone, analysis_option, input_option, label_option, output_option
from app.cli.options import PATIENCE, Jobs, Key, Model, MultiLabel, RetryFor, Truncate, Url
from app.cli.output import TableConsole
from app.cli.terminal import Ended, opened, say, settings_or_exit, status_of
from app.evaluation.analyses import analyses
from app.evaluation.class_labels import Naming
from app.evaluation.class_vectors import Templates
from app.evaluation.dataset_files import REPORT, read
from app.evaluation.evaluate import Order, Steps, evaluate
from app.evaluation.picture_vectors import Progress as Done
from app.evaluation.report import files
from app.evaluation.report.result import Result
from app.evaluation.tables import BadData
from app.server.exit_status import SOME_FAILED, USAGE_ERROR
from prompts import PLACEHOLDER, TemplateError, validate_templates

EXAMPLES: Final = """
openvocab eval photos/ --output report
openvocab eval labels.csv --labels @pets.txt --templates none,simple,imagenet
openvocab eval photos/ --names names.toml --limit 50 --model ViT-B-32-256/datacomp_s34b_b86k
openvocab eval photos/ --url http://127.0.0.1:8000 --format json > figures.json
"""

EXIT_STATUS: Final = (
    "0 all pictures were evaluated, 1 some could not be read, 2 an option or the data is "
    "invalid, 3 the model cannot be loaded, 4 the server cannot be used, 130 interrupted: rerun "
    "to continue, 141 output pipe closed."
)

# of a command line, what nobody else may read
HIDDEN: Final = "--api-key"

# name and password in a URL
USER: Final = re.compile(r"^((?:--url=)?[a-z]+://)[^/?#]*@", re.IGNORECASE)

LARGEST_TEMPLATES: Final = 1_000_000


class Form(StrEnum):
    """How figures are written to standard output."""

    TABLE = "table"
    JSON = "json"


def eval_command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="A folder with one subfolder per class, or a CSV: image,label."
        ),
    ],
    labels: Annotated[
        str | None,
        label_option(
            metavar="WORDS",
            help="Comma-separated, or @FILE: one label a line, a label set as JSON, a vocabulary "
            "(default: the classes).",
        ),
    ] = None,
    names: Annotated[
        Path | None, label_option(metavar="FILE", help="What the folders show: TOML, JSON or CSV.")
    ] = None,
    templates: Annotated[
        list[str] | None,
        label_option(
            metavar="NAMES|FILE|TEXT",
            help="Template sets to compare, comma-separated; files of templates; or a template "
            "with {} (repeat the option).",
        ),
    ] = None,
    multi_label: MultiLabel = False,
    truncate: Truncate = False,
    search_templates: Annotated[
        bool,
        analysis_option(
            "--search-templates", help="Pick templates on half of the pictures, report on the rest."
        ),
    ] = False,
    shots: Annotated[
        str | None,
        analysis_option(
            metavar="0,1,2,...", help="Examples per class: few-shot against zero-shot."
        ),
    ] = None,
    seeds: Annotated[
        int,
        analysis_option(metavar="N", min=1, max=100, help="Random draws of examples for --shots."),
    ] = 5,
    calibrate: Annotated[
        bool, analysis_option("--calibrate", help="Fit a temperature, and when to abstain.")
    ] = False,
    force: Annotated[
        bool,
        analysis_option(
            "--force", help="Write a calibration even if it makes held-out figures worse."
        ),
    ] = False,
    risk: Annotated[
        float,
        analysis_option(metavar="SHARE", min=0, max=1, help="Maximum error rate for --calibrate."),
    ] = 0.05,
    limit: Annotated[
        int | None, input_option(metavar="N", min=1, help="Pictures per class, chosen by name.")
    ] = None,
    seed: Annotated[int, input_option(metavar="N", min=0, help="Random seed.")] = 0,
    kept: Annotated[
        Path | None,
        input_option(
            "--cache",
            metavar="DIR",
            help="Where to cache embeddings (default: in OPENVOCAB_DATA_DIR).",
        ),
    ] = None,
    keep: Annotated[
        bool, input_option("--keep/--no-keep", help="Cache embeddings so that a rerun resumes.")
    ] = True,
    output: Annotated[
        Path | None,
        output_option(
            metavar="DIR", help="Write report.html, report.json and predictions.csv here."
        ),
    ] = None,
    form: Annotated[Form, output_option("--format", help="Format on stdout.")] = Form.TABLE,
    previews: Annotated[bool, output_option(help="Thumbnails of mistakes in the report.")] = True,
    url: Url = "",
    api_key: Key = None,
    model: Model = None,
    jobs: Jobs = None,
    retry_for: RetryFor = PATIENCE,
) -> None:
    """Measure accuracy on your own labelled pictures."""

    def run() -> int:
        sets = _chosen(templates or [])
        try:
            labelled = read(source, Naming(names, labels), multi_label=multi_label, limit=limit)
            chosen = analyses(
                compare=len(sets) > 1,
                search=search_templates,
                shots=shots,
                seeds=seeds,
                risk=risk if calibrate else None,
                seed=seed,
                force=force,
                multi_label=labelled.dataset.multi_label,
            )
        except BadData as error:
            raise Ended(USAGE_ERROR, str(error)) from None
        for note in labelled.notes:
            say(note)
        if output is not None:
            files.begin(output)
        settings = settings_or_exit()
        folder = kept or settings.data_dir.expanduser() / "evaluations"
        variant = "server" if url else "exact" if settings.exact_jpeg else "reduced"
        order = Order(
            source=source,
            labelled=labelled,
            sets=sets,
            analyses=chosen,
            kept=folder if keep else None,
            variant=variant,
            heic=settings.heic,
            previews=previews and output is not None,
            command=_command(sys.argv),
            version=VERSION,
            truncate=truncate or labelled.chosen.definition.truncate,
        )
        service = Service(url, api_key, model, jobs, retry_for)
        with _progress(len(labelled.dataset.files)) as steps:
            result = service.run(lambda reached: evaluate(reached, order, steps), stored=False)
        return _report(result, output, form)

    raise typer.Exit(status_of(run))


app = alone(eval_command, EXAMPLES, EXIT_STATUS, name="eval")


def _report(result: Result, output: Path | None, form: Form) -> int:
    try:
        if form is Form.JSON:
            sys.stdout.buffer.write(files.json_report(result).encode())
            sys.stdout.buffer.flush()
        else:
            files.show(result, TableConsole(markup=False, highlight=False))
    finally:  # a reader who has seen enough still gets the files, and a full disk the figures
        if output is not None:
            files.write(result, output)
            say(f"the report: {output / REPORT}")
    return SOME_FAILED if result.encoded.unread or result.missing else 0


def _chosen(values: list[str]) -> tuple[str | Templates, ...]:
    """Names of template sets, and sets of own templates: those of a file, those given here."""
    chosen: dict[str, str | Templates] = {}
    own = tuple(dict.fromkeys(text for text in values if PLACEHOLDER in text))
    for text in values:
        if PLACEHOLDER in text:
            chosen[OWN] = Templates(OWN, _checked(own, "--templates"))
            continue
        for name in map(str.strip, text.split(",")):
            file = Path(name)
            if not name:
                line = "--templates: a name is empty; give a set's, a file's, or one with {}"
                raise Ended(USAGE_ERROR, line)
            chosen[name] = _of_file(file) if file.suffix and file.is_file() else name
    return tuple(chosen.values())


def _of_file(file: Path) -> Templates:
    """One template a line, as --search-templates leaves them."""
    with opened(str(file)) as lines:
        try:
            text = lines.read(LARGEST_TEMPLATES).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise Ended(USAGE_ERROR, f"{file} is not UTF-8 text") from None
    texts = tuple(line.strip() for line in text.splitlines() if line.strip())
    return Templates(str(file), _checked(texts, str(file)))


def _checked(texts: tuple[str, ...], where: str) -> tuple[str, ...]:
    try:
        return validate_templates(texts)
    except TemplateError as error:
        raise Ended(USAGE_ERROR, f"{where}: {error}") from None


def _command(words: list[str]) -> str:
    """What was typed, without the key or what a URL has for a password."""
    command_line = ["openvocab"]
    hide = False
    for word in words[1:]:
        command_line.append("***" if hide else USER.sub(r"\1***@", word))
        hide = word == HIDDEN
        if word.startswith(f"{HIDDEN}="):
            command_line[-1] = f"{HIDDEN}=***"
    return shlex.join(command_line)


@contextlib.contextmanager
def _progress(count: int) -> Iterator[Steps]:
    """A bar on a terminal; nothing where standard error is read by a program."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
        TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True,
    )  # fmt: skip
    with bar:
        task = bar.add_task("pictures", total=count)

        def encoding(state: Done) -> None:
            bar.update(task, completed=state.done)

        def step(what: str) -> None:
            bar.update(task, description=what, completed=0, total=None)

        yield Steps(encoding, step)
