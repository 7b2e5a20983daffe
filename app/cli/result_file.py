"""`classify -o FILE`: what was answered, kept as it comes and written whole at the end.

While it runs a journal stands beside FILE, a line of JSON for each picture, so that an interrupted
run can go on; FILE appears when all is done. Knows nothing of servers.
"""

import contextlib
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from app.cli.files import reason
from app.cli.output import FileAnswer, Format, Shape, Writer
from app.cli.terminal import Ended, say
from app.server.exit_status import SERVER_ERROR, USAGE_ERROR
from models.open_files import lock

JOURNAL: Final = ".part"

# by the ending of FILE
TEXTS: Final[Mapping[str, Format]] = {
    ".csv": Format.CSV,
    ".tsv": Format.TSV,
    ".json": Format.JSON,
    ".ndjson": Format.NDJSON,
    ".jsonl": Format.NDJSON,
}
PARQUET: Final = ".parquet"
ENDINGS: Final = ", ".join((*TEXTS, PARQUET))

# rows that are written to a Parquet file at once: one row group
ROWS: Final = 50_000

Stamp = list[int]


class Sink(Protocol):
    """What records are written to in the end."""

    def begin(self) -> None: ...

    def write(self, record: FileAnswer) -> None: ...

    def end(self) -> None: ...


@dataclass(slots=True)
class ResultFile:
    """The file of results, and its journal while it is not done. Close it in any case.

    `asked` are the options that decide an answer: a journal of others is not gone on with.
    """

    path: Path
    shape: Shape
    asked: Mapping[str, Any]
    resume: bool = False
    _journal: BinaryIO = field(init=False)
    _places: dict[str, tuple[int, Stamp | None]] = field(default_factory=dict, init=False)
    _model: str | None = field(default=None, init=False)
    _done: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        """Raises Ended: it cannot be written, or there is a journal that is not to be resumed."""
        check_ending(self.path)
        path = self._journal_path
        try:
            self._journal = path.open("r+b" if path.exists() else "x+b")
        except OSError as error:
            raise Ended(USAGE_ERROR, f"{path}: {reason(error)}") from None
        try:
            lock(self._journal.fileno(), wait=False)
        except BlockingIOError:
            self._journal.close()
            raise Ended(USAGE_ERROR, f"{path} is being written by another run") from None
        except OSError:
            pass  # not every file system has such locks
        try:
            self._begin()
        except BaseException:
            self._close()
            raise

    @property
    def _journal_path(self) -> Path:
        return self.path.with_name(self.path.name + JOURNAL)

    def knows(self, file: str) -> bool:
        """Whether a file was classified before and has not changed since."""
        _, stamp = self._places.get(file, (0, None))
        return stamp is not None and stamp == _stamp(file)

    def begin(self) -> None:
        """The journal has begun already."""

    def write(self, record: FileAnswer) -> None:
        """Keep a record. Raises Ended: another model answers than before; it cannot be kept."""
        model = record.answer and record.answer.get("model")
        if model:
            self._model = self._model or model
            if model != self._model:
                line = f"the model is now {model}, but earlier results are from {self._model}"
                raise Ended(SERVER_ERROR, f"{line}; {self._journal_path} has its answers")
        # what failed is tried again
        stamp = None if record.problem is not None else _stamp(record.file)
        place = self._journal.seek(0, os.SEEK_END)
        content = [record.file, record.answer, record.problem, record.target, stamp]
        self._append(json.dumps(content).encode() + b"\n")
        # a record that is there already keeps its place in the order
        self._places[record.file] = place, stamp

    def end(self) -> None:
        """Nothing: `finish` writes the file."""

    def records(self) -> Iterator[FileAnswer]:
        """The last record of each file, in the order in which they first came."""
        for place, _ in self._places.values():
            self._journal.seek(place)
            file, answer, problem, target, _ = json.loads(self._journal.readline())
            yield FileAnswer(file, answer, problem, target)

    def finish(self) -> None:
        """Write the file from the journal, which is then gone. Raises Ended."""
        new = self.path.with_name(f".{self.path.name}.new")
        try:
            with new.open("wb") as out:
                sink = _sink(self.path, out, self.shape)
                sink.begin()
                for record in self.records():
                    sink.write(record)
                sink.end()
            new.replace(self.path)
            self._delete()
        except OSError as error:
            raise Ended(USAGE_ERROR, f"{self.path}: {reason(error)}") from None
        finally:
            new.unlink(missing_ok=True)
        self._done = True

    def close(self) -> None:
        """Close the journal, and delete it if it is empty."""
        if not self._done and not self._places:
            with contextlib.suppress(FileNotFoundError):
                self._delete()
        self._close()

    def advice(self) -> str | None:
        """What to do where it was not finished."""
        if self._done or not self._places:
            return None
        count = len(self._places)
        kept = f"{count} answers are kept in {self._journal_path}"
        return f"{kept}; run the same command with --resume to continue"

    def _append(self, line: bytes) -> None:
        try:
            self._journal.write(line)
            self._journal.flush()
        except OSError as error:
            raise Ended(USAGE_ERROR, f"{self._journal_path}: {reason(error)}") from None

    def _delete(self) -> None:
        if os.name == "nt":  # there nothing is deleted that is open
            self._close()
        self._journal_path.unlink()

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # what finds no room was told when it was appended
            self._journal.close()

    def _begin(self) -> None:
        head = json.dumps({"asked": self.asked}, sort_keys=True).encode() + b"\n"
        before = self._journal.readline()
        if not before.endswith(b"\n"):
            self._journal.seek(0)
            self._journal.truncate()
            self._append(head)
            return
        path = self._journal_path
        if not self.resume:
            line = f"{path} is from an interrupted run"
            raise Ended(USAGE_ERROR, f"{line}; continue with --resume, or delete it")
        if before != head:
            line = f"{path} is from a run with other labels, options or model"
            raise Ended(USAGE_ERROR, f"{line}; use the same ones, or delete it")
        self._read()

    def _read(self) -> None:
        """Find the records; what a kill left of the last one goes."""
        place = self._journal.tell()
        while (line := self._journal.readline()).endswith(b"\n"):
            try:
                file, answer, _, _, stamp = json.loads(line)
            except ValueError:
                break
            self._places[file] = place, stamp
            self._model = self._model or (answer or {}).get("model")
            place = self._journal.tell()
        self._journal.truncate(place)


def check_ending(path: Path) -> None:
    """Raises Ended for a file of no known format, or one that cannot be written here."""
    ending = path.suffix.lower()
    if ending == PARQUET:
        if importlib.util.find_spec("pyarrow") is None:
            raise Ended(USAGE_ERROR, f"{path}: Parquet needs pip install 'openvocab[parquet]'")
    elif ending not in TEXTS:
        raise Ended(USAGE_ERROR, f"--output {path} must end in one of {ENDINGS}")


def _stamp(file: str) -> Stamp | None:
    """Size and modification time of a file; [] if there is none, as for a pipe."""
    try:
        status = os.stat(file)  # noqa: PTH116
    except (OSError, ValueError):
        return []
    return [status.st_size, status.st_mtime_ns]


def _sink(path: Path, out: BinaryIO, shape: Shape) -> Sink:
    kind = TEXTS.get(path.suffix.lower())
    if kind is None:
        return ParquetWriter(out)
    return Writer(kind, out, (), shape)


class ParquetWriter:
    """A row for each prediction; one without a label if there are none."""

    def __init__(self, out: BinaryIO) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        text, number = pa.string(), pa.int32()
        self._schema = pa.schema(
            {
                "file": text, "sha256": text, "width": number, "height": number, "model": text,
                "labelset": text, "rank": number, "label": text, "score": pa.float32(),
                "similarity": pa.float32(), "reason": text, "error": text, "target": text,
                "box": number, "set": pa.list_(text),
            }
        )  # fmt: skip
        self._table = pa.Table
        self._writer = parquet.ParquetWriter(out, self._schema)
        self._rows: list[dict[str, Any]] = []

    def begin(self) -> None:
        """The schema is already fixed."""

    def write(self, record: FileAnswer) -> None:
        """The rows of one picture."""
        self._rows += _long(record)
        if len(self._rows) >= ROWS:
            self._flush()

    def end(self) -> None:
        """What is left, and the end of the file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


def _long(record: FileAnswer) -> Iterator[dict[str, Any]]:
    """A row for each prediction of each label set in each box, best first."""
    answer = record.answer or {}
    image = answer.get("image", {})
    common = {
        "file": _valid(record.file),
        "target": None if record.target is None else _valid(record.target),
        "error": record.problem["detail"] if record.problem else None,
        "model": answer.get("model"),
        **{name: image.get(name) for name in ("sha256", "width", "height")},
    }
    boxes = "boxes" in answer
    results = [
        (number if boxes else None, result)
        for number, part in enumerate(record.parts or ({},))
        for result in part.get("results", {"": part}).values()
    ]
    for box, result in results:
        why = result.get("reason")
        row = {
            **common,
            "labelset": result.get("labelset"),
            "reason": why["code"] if why else None,
            "box": box,
            "set": result.get("set"),
        }
        predictions: Sequence[Mapping[str, Any]] = result.get("predictions") or ({},)
        for rank, prediction in enumerate(predictions, start=1):
            numbers = {name: prediction.get(name) for name in ("label", "score", "similarity")}
            yield {**row, "rank": rank if prediction else None, **numbers}


def _valid(name: str) -> str:
    """A file's name as text; bytes that are no UTF-8 as `\\\\xNN`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@contextlib.contextmanager
def opened(
    path: Path | None,
    shape: Shape,
    request: Mapping[str, Any],
    *,
    resume: bool,
) -> Iterator[ResultFile | None]:
    """The results, if a file is named; says at the end what to do where they are not done.

    Raises Ended.
    """
    if path is None:
        if resume:
            raise Ended(USAGE_ERROR, "--resume needs --output")
        yield None
        return
    results = ResultFile(path, shape, request, resume)
    try:
        yield results
    finally:
        results.close()
        if (advice := results.advice()) is not None:
            say(advice)
