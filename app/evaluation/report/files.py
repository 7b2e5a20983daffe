"""Write a report into a folder, and its figures to a terminal. Knows nothing of models.

A file is there whole or not at all.
"""

import base64
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from app.cli.files import read, reason
from app.cli.output import csv_line, figures_table, json_text
from app.cli.terminal import Ended, printable, say
from app.errors import Problem
from app.evaluation.dataset_files import REPORT
from app.evaluation.report.html import NO_VALUE, percent, span
from app.evaluation.report.page import page
from app.evaluation.report.result import Result
from app.evaluation.tables import BETWEEN
from app.images.decode import FORMATS, HEIC, decode, enable_heic, quieten
from app.images.limits import ImageLimits
from app.server.exit_status import USAGE_ERROR
from models import ImageSpec

FIGURES: Final = "report.json"
PREDICTIONS: Final = "predictions.csv"

# what an analysis leaves beside the report
TEMPLATES: Final = "templates.txt"
CALIBRATION: Final = "calibration.json"
LABELSET: Final = "labelset.json"

# rows of the tables on a terminal
SHOWN: Final = 10


def begin(folder: Path) -> None:
    """See that files can be written there; new folders go again. Raises Ended."""
    try:
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for each in missing:  # among pictures they would be classes, if this ends before the report
            each.rmdir()
    except OSError as error:
        raise Ended(USAGE_ERROR, f"--output {folder}: {reason(error)}") from None


def write(result: Result, folder: Path) -> None:
    """The report, its figures and the answer for each picture. Raises Ended."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _whole(folder / FIGURES, json_report(result))
        _whole(folder / PREDICTIONS, "".join(_predictions(result)))
        for name, text in result.files.items():
            _whole(folder / name, text)
        _whole(folder / REPORT, page(result))
    except OSError as error:
        raise Ended(USAGE_ERROR, f"--output {folder}: {reason(error)}") from None
    for name in (TEMPLATES, CALIBRATION, LABELSET):
        if name not in result.files and (folder / name).exists():
            say(f"{folder / name} was there before; this evaluation did not write it")


def json_report(result: Result) -> str:
    """report.json."""
    return json_text(result.json(), indent=1) + "\n"


def _whole(file: Path, text: str) -> None:
    waiting = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        waiting.write_bytes(text.encode("utf-8", "surrogateescape"))
        waiting.replace(file)
    finally:
        waiting.unlink(missing_ok=True)


def _predictions(result: Result) -> Iterator[str]:
    """A line for each picture, copies too: its label, the prediction, and the scores of both."""
    data, predicted, scores = result.encoded.dataset, result.figures.predicted, result.scores
    yield csv_line(("image", "label", "predicted", "score", "similarity", "right"))
    best = scores.cosines.argmax(axis=1)
    for place, name in enumerate(result.names):
        truth = np.flatnonzero(data.truth[place])
        answered = np.flatnonzero(predicted[place])
        top = best[place]
        cells = (
            BETWEEN.join(data.classes[place_of_class] for place_of_class in truth),
            BETWEEN.join(data.classes[place_of_class] for place_of_class in answered),
            f"{scores.probabilities[place, top]:.6f}",
            f"{scores.cosines[place, top]:.6f}",
            str(bool(np.array_equal(data.truth[place], predicted[place]))).lower(),
        )
        for file in (name, *result.copies.get(place, ())):
            yield csv_line((file, *cells))


def show(result: Result, console: Console) -> None:
    """The figures as tables."""
    info, data = result.encoded.info, result.encoded.dataset
    about = f"{len(data.files):,} pictures, {len(data.classes):,} classes, {info.name}, "
    parts: list[tuple[str, RenderableType]] = [
        (f"{about}templates {result.template_set}", _summary(result)),
        ("Worst classes", _worst(result)),
    ]
    if result.figures.confused:
        parts.append(("Most confused", _confused(result)))
    parts += [(section.title, section.table()) for section in result.sections]
    for place, (title, table) in enumerate(parts):
        console.print(*[""] * bool(place), Text(title, style="bold"), table, sep="\n")


def _summary(result: Result) -> Table:
    figures = result.figures
    table = figures_table("", "%", "95 % interval")
    for name, share in figures.tops():
        table.add_row(name, *_numbers(share.value), span(*share.interval).rstrip(" %\xa0"))
    table.add_row("mean per class", *_numbers(figures.classes.mean_recall), "")
    table.add_row("mean average precision", *_numbers(figures.classes.mean_average_precision), "")
    table.add_row("macro F1", *_numbers(figures.classes.macro_f1), "")
    table.add_row("expected calibration error", *_numbers(figures.calibration.error), "")
    return table


def _worst(result: Result) -> Table:
    per_class, labels = result.figures.classes, result.encoded.dataset.classes
    table = figures_table("class", "pictures", "right %", "precision %", "F1 %")
    there = [place for place in range(len(labels)) if per_class.count[place]]
    for place in sorted(there, key=lambda class_place: per_class.recall[class_place])[:SHOWN]:
        numbers = (per_class.recall[place], per_class.precision[place], per_class.f1[place])
        count = f"{per_class.count[place]:,}"
        table.add_row(Text(printable(labels[place])), count, *_numbers(*numbers))
    return table


def _confused(result: Result) -> Table:
    labels = result.encoded.dataset.classes
    table = figures_table("what it is", "taken for", "pictures", "of its class %")
    table.columns[1].justify = "left"
    for pair in result.figures.confused[:SHOWN]:
        names = (Text(printable(labels[place])) for place in (pair.truth, pair.predicted))
        table.add_row(*names, f"{pair.count:,}", *_numbers(pair.share))
    return table


def _numbers(*values: float) -> list[str]:
    return [percent(value).rstrip(" %\xa0") or NO_VALUE for value in values]


# the middle square, as most models see it; sharp on a phone where it is shown at half of that
SPEC: Final = ImageSpec(256, 256, "shortest", "bicubic", 255)
QUALITY: Final = 74


def thumbnail(file: Path, limits: ImageLimits, *, heic: bool) -> str | None:
    """A picture file as a small JPEG; None where it cannot be read any more.

    It is decoded with the same care as that of a request.
    """
    quieten()
    if heic:
        enable_heic()
    formats = (*FORMATS, HEIC) if heic else FORMATS
    try:
        decoded = decode(read(str(file), limits.bytes), SPEC, limits, formats)
    except (OSError, ValueError, Problem):
        return None
    out = io.BytesIO()
    image = Image.fromarray(decoded.pixels.transpose(1, 2, 0))
    image.save(out, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"
