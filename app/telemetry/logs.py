"""The format of log lines: text for people, or JSON. Knows nothing of the events."""

import contextlib
import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Format = Literal["auto", "text", "json"]

# libraries that tell what only their developers need
CHATTY: Final = ("httpx", "httpcore", "httpx2", "httpcore2", "PIL", "python_multipart")

# what a terminal or a reader of lines would take for more than a character
CONTROLS: Final = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F),
                 *range(0x2066, 0x206A))
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """The request that a line belongs to; `noted` is what was learned about it on the way."""

    request_id: str
    trace_id: str = ""
    noted: dict[str, Any] = field(default_factory=dict)


_request: ContextVar[Request | None] = ContextVar("openvocab_request", default=None)


@contextlib.contextmanager
def about(request: Request) -> Iterator[None]:
    """Lines logged inside, however deep, carry the IDs of this request."""
    token = _request.set(request)
    try:
        yield
    finally:
        _request.reset(token)


def note(**noted: Any) -> None:
    """Remember something of the current request for its access line."""
    request = _request.get()
    if request is not None:
        request.noted.update(noted)


def fields(**values: Any) -> dict[str, Any]:
    """`extra` of a log call: fields of its JSON line, without those that are None."""
    return {"fields": {name: value for name, value in values.items() if value is not None}}


class JsonLines(logging.Formatter):
    """A record as a JSON object on one line, in ASCII, whatever is in it."""

    def __init__(self, worker: str | None = None) -> None:
        super().__init__()
        self._fixed = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "timestamp": _timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._fixed,
        }
        request = _request.get()
        if request is not None:
            line["request_id"] = request.request_id
            if request.trace_id:
                line["trace_id"] = request.trace_id
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return json.dumps(line, default=repr)


class TextLines(logging.Formatter):
    """A record for people; what follows its first line, as stacks do, is indented."""

    def format(self, record: logging.LogRecord) -> str:
        head = f"{_timestamp(record.created)} {record.levelname} {record.name}: "
        text = head + record.getMessage().translate(CONTROLS)
        request = _request.get()
        # an access line has it already
        if request is not None and not hasattr(record, "fields"):
            text += f" [request {request.request_id}]"
        more = self.formatException(record.exc_info) if record.exc_info else ""
        if record.stack_info:
            more += "\n" + self.formatStack(record.stack_info)
        lines = (line.translate(CONTROLS) for line in more.splitlines() if line)
        return "\n    ".join([text, *lines])


def set_up(level: str, form: Format = "text", worker: str | None = None) -> None:
    """Log our own lines from `level` on, and of others only what an operator needs, to stderr.

    `auto` is text on a terminal, where a person reads, and JSON wherever else it goes.
    """
    as_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(worker) if as_json else TextLines())
    ours = logging.getLevelNamesMapping()[level.upper()]
    # what libraries tell of their insides fills pages
    for before in logging.getLogger().handlers[:]:
        if isinstance(before.formatter, JsonLines | TextLines):  # a forked worker has its parent's
            logging.getLogger().removeHandler(before)
    logging.basicConfig(level=max(ours, logging.INFO), handlers=[handler])
    logging.getLogger("openvocab").setLevel(ours)
    # open_clip writes to the root logger what only its developers need
    for installed in logging.getLogger().handlers:
        installed.addFilter(lambda record: record.name != "root")
    logging.captureWarnings(True)
    threading.excepthook = _thread_failed
    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel(logging.ERROR)


def tell(text: str, level: int = logging.INFO) -> None:
    """Print a message for the operator, as text or as lines of JSON.

    It is said whatever level is logged.
    """
    handlers = [h for h in logging.getLogger().handlers if isinstance(h.formatter, JsonLines)]
    if not handlers:
        with contextlib.suppress(OSError):  # a full disk must not end the start
            sys.stderr.write(f"{text}\n")
    for line in text.splitlines():
        record = logging.LogRecord("openvocab", level, "", 0, line, None, None)
        for handler in handlers:
            handler.handle(record)


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    name = failed.thread.name if failed.thread is not None else "that is gone"
    if failed.exc_value is not None and failed.exc_type is not SystemExit:
        exc_info = (failed.exc_type, failed.exc_value, failed.exc_traceback)
        logging.getLogger("openvocab").critical("the thread %s failed", name, exc_info=exc_info)


def _timestamp(seconds: float) -> str:
    """RFC 3339, in UTC, to the millisecond."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"
