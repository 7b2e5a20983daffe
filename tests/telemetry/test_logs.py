"""The log: JSON and text, what a line tells of a request, and what it never does."""

import contextlib
import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.telemetry import logs
from benchmarks.servers import wait_until
from models.encoder import Encoder
from tests.conftest import Serve

# what would end a line, or change what a terminal shows of it
FORGED = "harmless\r\n2026-01-01T00:00:00.000Z INFO openvocab: forged\u2028\x85\x1b[2K\u202e"
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Lines(logging.StreamHandler[io.StringIO]):
    """What a server writes, read back."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__(io.StringIO())
        self.setFormatter(formatter)

    def text(self, requests: int = 0) -> str:
        """All since the last call; waits for so many requests, whose lines follow their answers."""
        wait_until(lambda: self.stream.getvalue().count('"logger": "openvocab.access"') >= requests)
        text = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        return text

    def read(self, requests: int = 0) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text(requests).splitlines()]


@pytest.fixture
def written() -> Iterator[Lines]:
    """What the service logs, as lines of JSON."""
    lines = Lines(logs.JsonLines())
    logger = logging.getLogger("openvocab")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(lines)
    yield lines
    logger.removeHandler(lines)
    logger.setLevel(level)


@pytest.fixture(scope="module")
def server(pictogram: Encoder, serve: Serve) -> Iterator[httpx.Client]:
    with serve(pictogram) as client:
        yield client


def logged(formatter: logging.Formatter, message: str, error: Exception | None = None) -> str:
    lines = Lines(formatter)
    exc_info = (type(error), error, error.__traceback__) if error is not None else None
    lines.handle(logging.LogRecord("openvocab.x", logging.ERROR, "", 0, message, None, exc_info))
    return lines.text()


def test_nothing_that_a_caller_sends_makes_a_line_of_its_own() -> None:
    error = ValueError(FORGED)
    for formatter in (logs.JsonLines(), logs.TextLines()):
        with logs.about(logs.Request("one")):
            text = logged(formatter, FORGED)
            failed = logged(formatter, "broken", error)
        assert len(text.splitlines()) == 1
        assert text.isprintable() or text[:-1].isprintable()
        # a line that does not begin with its time is a part of the one before
        assert [bool(TIMESTAMP.match(line)) for line in failed.splitlines()[1:]].count(True) == 0
        assert "\x1b" not in failed
    assert json.loads(logged(logs.JsonLines(), FORGED))["message"] == FORGED


def test_an_exception_is_one_line_with_its_stack_in_a_field() -> None:
    try:
        raise KeyError("inner")
    except KeyError as error:
        text = logged(logs.JsonLines(worker="1"), "it broke", error)
    line = json.loads(text)
    assert text.count("\n") == 1
    assert TIMESTAMP.fullmatch(line["timestamp"])
    assert {k: line[k] for k in ("level", "logger", "message", "worker")} == {
        "level": "error", "logger": "openvocab.x", "message": "it broke", "worker": "1",
    }  # fmt: skip
    assert line["exception"].startswith("Traceback")
    assert "KeyError: 'inner'" in line["exception"]


def test_an_access_line_tells_all_of_a_request_but_labels(
    server: httpx.Client, written: Lines, samples: dict[str, Path]
) -> None:
    body = samples["cat"].read_bytes()
    answer = server.post(
        "/classify?labels=confidential&labels=cat",
        content=body,
        headers={"X-Request-ID": "mine-1", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"},
    )
    text = written.text(requests=1)
    (line,) = [json.loads(entry) for entry in text.splitlines()]
    assert TIMESTAMP.fullmatch(line.pop("timestamp"))
    assert line.pop("ms") >= line["stages_ms"]["decode"] > 0
    assert set(line.pop("stages_ms")) == {"decode", "queue", "encode", "text", "score"}
    assert line.pop("message").startswith("127.0.0.1 POST /classify 200 ")
    assert line == {
        "level": "info", "logger": "openvocab.access", "request_id": "mine-1", "trace_id": TRACE,
        "method": "POST", "route": "/classify", "path": "/classify", "status": 200,
        "bytes_in": len(body), "bytes_out": len(answer.content), "caller": "127.0.0.1",
        "model": "pictogram",
    }  # fmt: skip
    assert "confidential" not in text

    server.get("/labelsets/a%0Ab?labels=confidential")
    text = written.text(requests=1)
    line = json.loads(text)
    assert (line["path"], line["status"]) == ("/labelsets/a%0Ab", 400)
    assert (line["route"], line["error_type"]) == ("/labelsets/{name}", "bad_request")
    assert "confidential" not in text


def test_labels_are_written_where_they_are_asked_for(
    pictogram: Encoder, serve: Serve, written: Lines, samples: dict[str, Path]
) -> None:
    with serve(pictogram, log_labels=True) as client:
        written.text()
        picture = samples["cat"].read_bytes()
        many = ["cat", *(f"thing {n}" for n in range(149))]
        client.post("/classify", content=picture, params={"labels": many})
        client.post("/classify", content=picture, params={"labelset": "unknown"})
        client.post(
            "/hf/zero-shot-image-classification",
            content=picture, params={"candidate_labels": ["cat", "dog"]},
        )  # fmt: skip
        first, second, third = (
            x for x in written.read(requests=3) if x["logger"] == "openvocab.access"
        )
    assert (first["labels"], first["label_count"]) == (many[:100], 150)
    assert (second["labelset"], second["error_type"]) == ("unknown", "unknown_labelset")
    assert third.get("labels") == ["cat", "dog"], third


def test_a_line_from_deep_inside_has_the_id_of_the_request_and_no_label(
    server: httpx.Client, written: Lines
) -> None:
    labels = ["cat", "confidential " * 15]
    body = {"labels": labels, "templates": ["a b " * 45 + "{}"]}
    answer = server.put(
        "/labelsets/deep", json=body, params={"wait": True}, headers={"X-Request-ID": "mine-2"}
    )
    assert answer.json()["error_type"] == "too_large"
    lines = {line["logger"]: line for line in written.read(requests=1)}
    assert lines["openvocab.labelsets"]["request_id"] == "mine-2"
    assert lines["openvocab.labelsets"]["message"].endswith(": too_large")
    assert "confidential" not in json.dumps(lines)


def test_probes_are_told_of_only_when_they_fail(server: httpx.Client, written: Lines) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert server.get(path).status_code == 200
    server.post("/healthz")
    # the one line there is, of the last request
    assert [line["status"] for line in written.read(requests=1)] == [405]


SAYS = """
import logging, threading, warnings
from app.telemetry import logs
logs.set_up("info", "auto")
logs.tell("serving\\non all")
logging.getLogger("uvicorn.error").info("Started")
warnings.warn("old")
thread = threading.Thread(target=lambda: 1 / 0, name="worker")
thread.start(); thread.join()
"""


def test_a_terminal_gets_text_and_whatever_else_reads_gets_json() -> None:
    command = [sys.executable, "-c", SAYS]
    piped = subprocess.run(command, capture_output=True, text=True, check=True)
    messages = [json.loads(line)["message"] for line in piped.stderr.splitlines()]
    assert messages[:3] == ["serving", "on all", "Started"]
    assert "UserWarning: old" in messages[3]
    assert messages[4:] == ["the thread worker failed"]

    controller, terminal = os.openpty()
    subprocess.run(command, stderr=terminal, check=True)
    os.close(terminal)
    output = b""
    with contextlib.suppress(OSError):  # how Linux says that the other side is closed
        while piece := os.read(controller, 10_000):
            output += piece
    os.close(controller)
    text = output.decode()
    assert text.startswith("serving\r\non all\r\n20")
    assert " INFO uvicorn.error: Started\r\n" in text
    assert "\r\n    ZeroDivisionError: division by zero\r\n" in text


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_message_that_a_full_disk_does_not_take_ends_nothing() -> None:
    script = """
from app.telemetry import logs
logs.set_up("info", "text")
logs.tell("loading")
print("serving", flush=True)
"""
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE, stderr=full, text=True, timeout=240, check=False,
        )  # fmt: skip
    assert process.stdout == "serving\n"
