"""Results, one after the other, in the requested format. Knows nothing of servers."""

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO, Final

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table

from app.classify.score_text import score_text
from app.cli.terminal import printable

SURROGATE: Final = re.compile("[\ud800-\udfff]")
COLUMNS: Final = ("file", "label", "score", "similarity", "target", "error", "reason")

# shown in a table if nothing fits
NONE: Final = "none of these"

# the reason of those who asked for a least score
BELOW: Final = "score_below_threshold"

# columns of the number of a box
BOX_WIDTH: Final = 5

# columns of labels and of file names, where it is not known what will come
USUAL_WIDTH: Final = 24
LONGEST_FILE: Final = 100


class TableConsole(Console):
    """Standard output for tables; whoever closes the pipe ends the command as in other formats."""

    def on_broken_pipe(self) -> None:
        """Leave it to `status_of`: rich would end the process with status 1."""
        raise BrokenPipeError


def figures_table(*headings: str, title: str | None = None) -> Table:
    """A table without lines whose first column has words, and the others figures."""
    columns = (Column(h, justify="right" if at else "left") for at, h in enumerate(headings))
    return Table(*columns, box=None, pad_edge=False, title=title)


class Format(StrEnum):
    """Output formats; all but `table` are for programs."""

    TABLE = "table"
    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    TSV = "tsv"


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """What became of one file: an answer or a problem, and where the file was put."""

    file: str
    answer: Mapping[str, Any] | None = None
    problem: Mapping[str, Any] | None = None
    target: str | None = None

    @property
    def predictions(self) -> Sequence[Mapping[str, Any]]:
        """Best first; none where there is a problem, or a reason to answer nothing."""
        return self.answer.get("predictions", ()) if self.answer else ()

    @property
    def parts(self) -> Sequence[Mapping[str, Any]]:
        """What was answered for each box, in their order, or for the whole picture."""
        if self.answer is None:
            return ()
        boxes: Sequence[Mapping[str, Any]] = self.answer.get("boxes", (self.answer,))
        return boxes

    @property
    def warnings(self) -> list[str]:
        """What was guessed or left out, each once."""
        results = [
            result for part in self.parts for result in (part, *part.get("results", {}).values())
        ]
        return list(
            dict.fromkeys(text for result in results for text in result.get("warnings", ()))
        )


@dataclass(frozen=True, slots=True)
class Shape:
    """What answers have: the names of `labelsets` where there are several, each in columns of its
    own; an answer for each of some `boxes`; `sets` of labels that hold the right one.
    """

    labelsets: Sequence[str] = ()
    boxes: bool = False
    sets: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of values with commas or tabs between."""
        ends = ("box",) * self.boxes
        if not self.labelsets:
            return (*COLUMNS, *("set",) * self.sets, *ends)
        several = [
            column
            for name in self.labelsets
            for column in (name, f"{name} score", *(f"{name} set",) * self.sets)
        ]
        return ("file", *several, "target", "error", *ends)


PLAIN: Final = Shape()


class Writer:
    """Writes records to a stream as they come. File names keep their bytes wherever they can."""

    def __init__(
        self,
        kind: Format,
        out: BinaryIO,
        labels: Sequence[str] = (),
        shape: Shape = PLAIN,
        widest: int | None = None,
        *,
        single: bool = False,
    ) -> None:
        """`widest` is the longest file name in columns; a `single` image goes without its name."""
        self._shape = shape
        self._kind = kind
        self._out = out
        self._count = 0
        self._label_width = max(map(cell_len, labels), default=USUAL_WIDTH)
        self._file_width = min(widest or USUAL_WIDTH, LONGEST_FILE)
        self._single = single

    def begin(self) -> None:
        """The text before the first record."""
        if self._kind is Format.JSON:
            self._write("[")
        elif self._kind in (Format.CSV, Format.TSV):
            self._write(_separated(self._shape.columns, self._kind))

    def write(self, record: FileAnswer) -> None:
        """One file's lines."""
        if self._kind is Format.TABLE:
            if self._shape.labelsets and not self._count:
                self._write(self._heading())
            self._write("".join(self._table(record)))
        elif self._kind is Format.JSON:
            self._write((",\n" if self._count else "\n") + json_text(_object(record)))
        elif self._kind is Format.NDJSON:
            self._write(json_text(_object(record)) + "\n")
        else:
            rows = _rows(record, self._shape)
            self._write("".join(_separated(row, self._kind) for row in rows))
        self._count += 1

    def end(self) -> None:
        """The text after the last record."""
        if self._kind is Format.JSON:
            self._write("\n]\n" if self._count else "]\n")

    def _table(self, record: FileAnswer) -> Iterator[str]:
        """A line for each rank, the file before the first; problems are printed elsewhere."""
        if record.problem is not None:
            return
        target = f"  -> {printable(record.target)}" if record.target is not None else ""
        for number, part in enumerate(record.parts):
            name = "" if self._single else printable(os.fspath(record.file))
            if self._shape.boxes:
                name = f"{name} [{number}]".strip()
            columns = [
                result["predictions"] or (_none(result.get("reason")),)
                for result in _results(part, self._shape)
            ]
            sets = "".join(f"  {_set_text(each)}" for each in _sets(part, self._shape))
            for rank in range(max(map(len, columns))):
                cells = "  ".join(self._cell(column, rank) for column in columns)
                yield f"{self._display_name(name)}{cells}{sets}{target}".rstrip() + "\n"
                name = target = sets = ""

    def _heading(self) -> str:
        """Which column is which, where there are several."""
        width = self._label_width + 8
        names = "  ".join(_padded(printable(name), width) for name in self._shape.labelsets)
        file = "" if self._single else "file"
        return f"{self._display_name(file)}{names}".rstrip() + "\n"

    def _display_name(self, name: str) -> str:
        """The column of names, if there is one."""
        if self._single:
            return _padded(name, BOX_WIDTH) if self._shape.boxes else ""
        width = self._file_width + (BOX_WIDTH if self._shape.boxes else 0)
        return _padded(name, width) + "  "

    def _cell(self, column: Sequence[Mapping[str, Any]], rank: int) -> str:
        if rank >= len(column):
            return " " * (self._label_width + 8)
        score = column[rank]["score"]
        label = _padded(printable(column[rank]["label"]), self._label_width)
        return f"{label}  {'-' if score is None else score_text(score, 4):<6}"

    def _write(self, text: str) -> None:
        # fsencode gives the bytes of a name back that is not UTF-8
        self._out.write(text.encode("utf-8", "surrogateescape"))
        self._out.flush()


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON; what is no UTF-8 in a name stays readable by programs, as an escape."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def _object(record: FileAnswer) -> dict[str, Any]:
    line: dict[str, Any] = {"file": record.file, **(record.answer or {})}
    if record.problem is not None:
        line["error"] = dict(record.problem)
    if record.target is not None:
        line["target"] = record.target
    return line


def _results(part: Mapping[str, Any], shape: Shape) -> Sequence[Mapping[str, Any]]:
    """The result for each label set, or the one that there is."""
    if not shape.labelsets:
        return (part,)
    return [part["results"][name] for name in shape.labelsets]


def _sets(part: Mapping[str, Any], shape: Shape) -> Sequence[Sequence[str]]:
    """For each label set the labels of which one is right."""
    return [result["set"] for result in _results(part, shape)] if shape.sets else ()


def _set_text(labels: Sequence[str]) -> str:
    return "{" + ", ".join(map(printable, labels)) + "}"


def _set_cell(result: Mapping[str, Any]) -> str:
    return json_text(result["set"]) if result else ""


def _rows(record: FileAnswer, shape: Shape) -> Iterator[tuple[str, ...]]:
    """A row for each rank of each part; one without a label if there are no predictions."""
    error = str(record.problem["detail"]) if record.problem else ""
    target = record.target or ""
    for number, part in enumerate(record.parts or ({},)):
        box = (str(number) if part else "",) * shape.boxes
        if shape.labelsets:
            rows = _ranks_of_several(part, shape)
            yield from ((record.file, *row, target, error, *box) for row in rows)
            continue
        reason = str(part["reason"]["code"]) if part.get("reason") else ""
        sets = (_set_cell(part),) if shape.sets else ()
        for prediction in part.get("predictions") or (
            {"label": "", "score": "", "similarity": ""},
        ):
            numbers = (str(prediction["score"]), str(prediction["similarity"]))
            yield record.file, prediction["label"], *numbers, target, error, reason, *sets, *box


def _ranks_of_several(part: Mapping[str, Any], shape: Shape) -> Iterator[tuple[str, ...]]:
    """The best of each label set in the first row, the second best in the next, …"""
    results = [part.get("results", {}).get(name, {}) for name in shape.labelsets]
    depth = max((len(result.get("predictions", ())) for result in results), default=0) or 1
    for place in range(depth):
        cells: list[str] = []
        for result in results:
            predictions = result.get("predictions", ())
            prediction = (
                predictions[place] if place < len(predictions) else {"label": "", "score": ""}
            )
            cells += (prediction["label"], str(prediction["score"]))
            cells += (_set_cell(result),) if shape.sets else ()
        yield tuple(cells)


def _separated(row: Sequence[str], kind: Format) -> str:
    """A line of CSV, or with tabs between and escapes inside the values."""
    return "\t".join(map(_escaped, row)) + "\n" if kind is Format.TSV else csv_line(row)


def csv_line(row: Sequence[str]) -> str:
    """A line as RFC 4180 has it."""
    line = io.StringIO()
    csv.writer(line).writerow(row)
    return line.getvalue()


def _escaped(text: str) -> str:
    for plain, escape in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(plain, escape)
    return text


def _none(reason: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Printed instead of a prediction: with --abstain, that is an answer."""
    code = reason["code"] if reason else BELOW
    return {"score": None, "label": "-" if code == BELOW else NONE}


def _padded(text: str, width: int) -> str:
    return text + " " * max(0, width - cell_len(text))
