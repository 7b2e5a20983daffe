"""A table of labels as people keep it: CSV from an editor or a spreadsheet. Knows no pictures."""

import contextlib
import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from app.cli.files import reason
from app.errors import shown

# between columns: the first by which the header has those that are needed
SEPARATORS: Final = {",": "commas", "\t": "tabs", ";": "semicolons"}

# between the labels of one cell
BETWEEN: Final = "|"

LARGEST: Final = 1_000_000_000


class BadData(ValueError):
    """Labelled data, or a file about it, that cannot be used; a line for a person."""


def rows(file: Path, *columns: str) -> Iterator[tuple[int, list[str]]]:
    """The line where each row begins that is not blank, and its cells of `columns`.

    Raises BadData.
    """
    content = text(file)
    (first,) = re.findall(r"\A[^\r\n]*", content)
    separator = _separator(first, columns)
    lines = io.StringIO(content, newline="")
    reader = csv.reader(lines, _Dialect, delimiter=separator, strict=True)
    begins = 1
    try:
        header = _names(next(reader, []))
        places = [_column(file, header, name) for name in columns]
        begins = reader.line_num + 1
        for cells in reader:
            line, begins = begins, reader.line_num + 1
            if not any(cells):
                continue
            if len(cells) <= max(places) or any(cells[len(header) :]):
                count = f"{len(cells)} column{'' if len(cells) == 1 else 's'}"
                problem = f"has {count}, the header {len(header)}"
                if len(cells) > len(header):  # the rest of a label would be lost
                    problem += f"; quote labels that contain {SEPARATORS[separator]}"
                raise BadData(f"{file}, line {line}: {problem}")
            yield line, [cells[place] for place in places]
    except csv.Error as error:
        wanted = f"; a header with {' and '.join(columns)} is needed" if begins == 1 else ""
        raise BadData(f"{file}, line {begins}: {error}{wanted}") from None


def texts(cell: str, where: str) -> list[str]:
    """The labels of one cell, none of them empty. Raises BadData."""
    parts = [part.strip() for part in cell.split(BETWEEN)] if cell.strip() else []
    if "" in parts:
        raise BadData(f"{where}: empty beside {BETWEEN!r}")
    return parts


def text(file: Path) -> str:
    """All of a text file. Raises BadData."""
    try:
        with file.open("rb") as source:
            data = source.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise BadData(f"{file}: is over {LARGEST:,} bytes, the limit")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise BadData(f"{file}: {reason(error)}") from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadData(f"{file}, line {line}: is not UTF-8 text ({error.reason})") from None


class _Dialect(csv.excel):
    """A space after a comma is not of the value; else a quote after it would be."""

    skipinitialspace = True


def _separator(header: str, columns: Sequence[str]) -> str:
    for separator in SEPARATORS:
        with contextlib.suppress(csv.Error):  # a cell that is longer than csv reads
            names = _names(next(csv.reader([header], _Dialect, delimiter=separator)))
            if set(columns) <= set(names):
                return separator
    return ","


def _names(header: Sequence[str]) -> list[str]:
    return [name.strip().lower() for name in header]


def _column(file: Path, header: Sequence[str], name: str) -> int:
    if header.count(name) != 1:
        names = ", ".join(map(shown, header[:8])) or "nothing"
        what = f"one column {name!r} is needed in the header, which is {names}"
        raise BadData(f"{file}, line 1: {what}")
    return header.index(name)
