"""One answer after the other in the form a command was asked for. Knows nothing of servers."""

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

from app.classify.score_text import score_text
from app.cli.terminal import printable

SURROGATE: Final = re.compile("[\ud800-\udfff]")
COLUMNS: Final = ("file", "label", "score", "similarity", "target", "error", "reason")

# what a table says where somebody asked for it, and nothing fits
NONE: Final = "none of these"

# the reason of those who asked for a least score
BELOW: Final = "score_below_threshold"

# columns of labels and of file names, where it is not known what will come
USUAL_WIDTH: Final = 24
LONGEST_FILE: Final = 100


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
    def results(self) -> Mapping[str, Mapping[str, Any]]:
        """Of several label sets the result of each, by its name."""
        return self.answer.get("results", {}) if self.answer else {}

    @property
    def warnings(self) -> list[str]:
        """What was guessed or left out, each once."""
        answers = (self.answer or {}, *self.results.values())
        return list(dict.fromkeys(text for one in answers for text in one.get("warnings", ())))

    @property
    def reason(self) -> Mapping[str, Any] | None:
        """Why there are no predictions."""
        return self.answer.get("reason") if self.answer else None


class Writer:
    """Writes records to a stream as they come. File names keep their bytes wherever they can."""

    def __init__(
        self,
        kind: Format,
        out: BinaryIO,
        labels: Sequence[str] = (),
        labelsets: Sequence[str] = (),
        widest: int | None = None,
        *,
        single: bool = False,
    ) -> None:
        """`labelsets` are those of answers that have several: each gets columns of its own.

        `widest` is the longest file name in columns; a `single` image goes without its name.
        """
        self._labelsets = labelsets
        self._kind = kind
        self._out = out
        self._count = 0
        self._label_width = max(map(cell_len, labels), default=USUAL_WIDTH)
        self._file_width = min(widest or USUAL_WIDTH, LONGEST_FILE)
        self._single = single

    def begin(self) -> None:
        """What stands before the first record."""
        if self._kind is Format.JSON:
            self._write("[")
        elif self._kind in (Format.CSV, Format.TSV):
            several = (column for name in self._labelsets for column in (name, f"{name} score"))
            columns = ("file", *several, "target", "error") if self._labelsets else COLUMNS
            self._write(_separated(columns, self._kind))

    def write(self, record: FileAnswer) -> None:
        """One file's lines."""
        if self._kind is Format.TABLE:
            if self._labelsets and not self._count:
                self._write(self._heading())
            self._write("".join(self._table(record)))
        elif self._kind is Format.JSON:
            self._write((",\n" if self._count else "\n") + json_text(_object(record)))
        elif self._kind is Format.NDJSON:
            self._write(json_text(_object(record)) + "\n")
        else:
            rows = _rows_of_several(record, self._labelsets) if self._labelsets else _rows(record)
            self._write("".join(_separated(row, self._kind) for row in rows))
        self._count += 1

    def end(self) -> None:
        """What stands after the last one."""
        if self._kind is Format.JSON:
            self._write("\n]\n" if self._count else "]\n")

    def _table(self, record: FileAnswer) -> Iterator[str]:
        """A line for each rank, the file before the first; a problem is told elsewhere."""
        if record.problem is not None:
            return
        name = printable(os.fspath(record.file))
        target = f"  -> {printable(record.target)}" if record.target is not None else ""
        columns = self._columns(record)
        for rank in range(max(map(len, columns))):
            cells = "  ".join(self._cell(column, rank) for column in columns)
            file = "" if self._single else _padded(name, self._file_width) + "  "
            yield f"{file}{cells}{target}".rstrip() + "\n"
            name = target = ""

    def _heading(self) -> str:
        """Which column is which, where there are several."""
        width = self._label_width + 8
        names = "  ".join(_padded(printable(name), width) for name in self._labelsets)
        file = "" if self._single else _padded("file", self._file_width) + "  "
        return f"{file}{names}".rstrip() + "\n"

    def _columns(self, record: FileAnswer) -> list[Sequence[Mapping[str, Any]]]:
        """The predictions of each label set, or what stands in their place."""
        if not self._labelsets:
            return [record.predictions or (_none(record.reason),)]
        return [
            result["predictions"] or (_none(result["reason"]),)
            for result in record.results.values()
        ]

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


def json_text(value: Any) -> str:
    """JSON in one line; what is no UTF-8 in a name stays readable by programs, as an escape."""
    text = json.dumps(value, ensure_ascii=False)
    return SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def _object(record: FileAnswer) -> dict[str, Any]:
    found: dict[str, Any] = {"file": record.file, **(record.answer or {})}
    if record.problem is not None:
        found["error"] = dict(record.problem)
    if record.target is not None:
        found["target"] = record.target
    return found


def _rows(record: FileAnswer) -> Iterator[tuple[str, ...]]:
    """A row for each prediction; one with no label where there is none."""
    error = str(record.problem["detail"]) if record.problem else ""
    target = record.target or ""
    reason = str(record.reason["code"]) if record.reason else ""
    for found in record.predictions or ({"label": "", "score": "", "similarity": ""},):
        numbers = (str(found["score"]), str(found["similarity"]))
        yield record.file, found["label"], *numbers, target, error, reason


def _rows_of_several(record: FileAnswer, labelsets: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The best of each label set in the first row, the second best in the next, …"""
    error = str(record.problem["detail"]) if record.problem else ""
    for place in range(_depth(record)):
        cells: list[str] = []
        for name in labelsets:
            predictions = record.results.get(name, {}).get("predictions", ())
            found = predictions[place] if place < len(predictions) else {"label": "", "score": ""}
            cells += (found["label"], str(found["score"]))
        yield record.file, *cells, record.target or "", error


def _depth(record: FileAnswer) -> int:
    """Rows of a file: one at least."""
    lengths = (len(result["predictions"]) for result in record.results.values())
    return max(lengths, default=0) or 1


def _separated(row: Sequence[str], kind: Format) -> str:
    """A line as RFC 4180 has it, or with tabs between and escapes inside the values."""
    if kind is Format.TSV:
        return "\t".join(map(_escaped, row)) + "\n"
    line = io.StringIO()
    csv.writer(line).writerow(row)
    return line.getvalue()


def _escaped(text: str) -> str:
    for plain, escape in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(plain, escape)
    return text


def _none(reason: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What stands in the place of a prediction: asked to abstain, it is an answer."""
    code = reason["code"] if reason else BELOW
    return {"score": None, "label": "-" if code == BELOW else NONE}


def _padded(text: str, width: int) -> str:
    return text + " " * max(0, width - cell_len(text))
