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

from app.cli.terminal import printable

SURROGATE: Final = re.compile("[\ud800-\udfff]")
COLUMNS: Final = ("file", "label", "score", "similarity", "target", "error", "reason")

# what a table says where somebody asked for it, and nothing fits
NONE: Final = "none of these"

# the reason of those who asked for a least score
BELOW: Final = "score_below_threshold"

# width of the column of labels where it is not known what will come
USUAL_WIDTH: Final = 24


class Format(StrEnum):
    """How answers are written; all but `table` are for programs."""

    TABLE = "table"
    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    TSV = "tsv"


@dataclass(frozen=True, slots=True)
class Record:
    """What became of one file: an answer or a problem, and where the file was put."""

    file: str
    answer: Mapping[str, Any] | None = None
    problem: Mapping[str, Any] | None = None
    target: str | None = None

    @property
    def predictions(self) -> Sequence[Mapping[str, Any]]:
        """Best first; none where there is a problem, or a reason to answer nothing."""
        return self.answer["predictions"] if self.answer else ()

    @property
    def reason(self) -> Mapping[str, Any] | None:
        """Why there are no predictions."""
        return self.answer.get("reason") if self.answer else None


class Writer:
    """Writes records to a stream as they come. File names keep their bytes wherever they can."""

    def __init__(self, kind: Format, out: BinaryIO, labels: Sequence[str] = ()) -> None:
        self._kind = kind
        self._out = out
        self._count = 0
        self._width = max(map(cell_len, labels), default=USUAL_WIDTH)

    def begin(self) -> None:
        """What stands before the first record."""
        if self._kind is Format.TABLE:
            self._write(f"score   {_padded('label', self._width)}  file\n")
        elif self._kind is Format.JSON:
            self._write("[")
        elif self._kind is not Format.NDJSON:
            self._write(_separated(COLUMNS, self._kind))

    def write(self, record: Record) -> None:
        """One file's lines."""
        if self._kind is Format.TABLE:
            self._write("".join(_table(record, self._width)))
        elif self._kind is Format.JSON:
            self._write((",\n" if self._count else "\n") + json_text(_object(record)))
        elif self._kind is Format.NDJSON:
            self._write(json_text(_object(record)) + "\n")
        else:
            self._write("".join(_separated(row, self._kind) for row in _rows(record)))
        self._count += 1

    def end(self) -> None:
        """What stands after the last one."""
        if self._kind is Format.JSON:
            self._write("\n]\n" if self._count else "]\n")

    def _write(self, text: str) -> None:
        # fsencode gives the bytes of a name back that is not UTF-8
        self._out.write(text.encode("utf-8", "surrogateescape"))
        self._out.flush()


def json_text(value: Any) -> str:
    """JSON in one line; what is no UTF-8 in a name stays readable by programs, as an escape."""
    text = json.dumps(value, ensure_ascii=False)
    return SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def _object(record: Record) -> dict[str, Any]:
    found: dict[str, Any] = {"file": record.file, **(record.answer or {})}
    if record.problem is not None:
        found["error"] = dict(record.problem)
    if record.target is not None:
        found["target"] = record.target
    return found


def _rows(record: Record) -> Iterator[tuple[str, ...]]:
    """A row for each prediction; one with no label where there is none."""
    error = str(record.problem["detail"]) if record.problem else ""
    target = record.target or ""
    reason = str(record.reason["code"]) if record.reason else ""
    for found in record.predictions or ({"label": "", "score": "", "similarity": ""},):
        numbers = (str(found["score"]), str(found["similarity"]))
        yield record.file, found["label"], *numbers, target, error, reason


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


def _table(record: Record, width: int) -> Iterator[str]:
    """A line for each prediction, the file in the first; a problem is told elsewhere."""
    if record.problem is not None:
        return
    name = printable(os.fspath(record.file))
    if record.target is not None:
        name += f" -> {printable(record.target)}"
    for found in record.predictions or ({"score": None, "label": _none(record)},):
        score = "-" if found["score"] is None else f"{found['score']:.4f}"
        label = _padded(printable(found["label"]), width)
        yield f"{score:<6}  {label}  {name}".rstrip() + "\n"
        name = ""


def _none(record: Record) -> str:
    """What stands in the place of a label: asked to abstain, it is an answer."""
    code = record.reason["code"] if record.reason else BELOW
    return "-" if code == BELOW else NONE


def _padded(text: str, width: int) -> str:
    return text + " " * max(0, width - cell_len(text))
