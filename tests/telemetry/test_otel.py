"""Traces: one span for a request, one for each stage, one for a forward pass that many share."""

import asyncio
import contextlib
import gzip
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from app.classify.batching import Batcher, BatchPolicy
from app.server.exit_status import USAGE_ERROR
from app.telemetry import spans
from app.telemetry.otel import Patient, Tracing
from benchmarks.servers import openvocab, wait_until
from models.encoder import Encoder
from tests.conftest import Serve

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
STAGES = {"decode", "queue", "encode", "text", "score"}


class Recorded:
    """What OpenTelemetry's own SDK makes, kept in memory."""

    def __init__(self) -> None:
        self._memory = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._memory))
        self.tracing = Tracing(provider)

    def taken(self, servers: int = 0) -> Sequence[ReadableSpan]:
        """All that ended since the last call, with those of `servers` requests: a request's span
        ends after its client has read the answer."""
        wait_until(lambda: sum(map(is_server, self._memory.get_finished_spans())) >= servers)
        spans_ended = self._memory.get_finished_spans()
        self._memory.clear()
        return spans_ended


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return Recorded()


@pytest.fixture(scope="module")
def client(recorded: Recorded, pictogram: Encoder, serve: Serve) -> Iterator[httpx.Client]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "start", lambda _mode, _version: recorded.tracing)
        serving = serve(pictogram)
        client = serving.__enter__()
    with contextlib.ExitStack() as stack:
        stack.push(serving)
        recorded.taken()
        yield client


def is_server(span: ReadableSpan) -> bool:
    return span.kind is SpanKind.SERVER


def server_span(ended: Sequence[ReadableSpan]) -> ReadableSpan:
    (span,) = filter(is_server, ended)
    return span


def below(finished: Sequence[ReadableSpan], span: ReadableSpan) -> dict[str, ReadableSpan]:
    return {
        candidate.name: candidate
        for candidate in finished
        if candidate.parent is not None and candidate.parent.span_id == span.context.span_id
    }


def test_a_request_is_a_span_in_its_callers_trace_with_one_for_each_stage(
    client: httpx.Client, recorded: Recorded, samples: dict[str, Path]
) -> None:
    answer = client.post(
        "/classify?labels=confidential,cat", content=samples["cat"].read_bytes(), headers=SAMPLED
    )
    finished = recorded.taken(servers=1)
    span = server_span(finished)
    assert span.name == "POST /classify"
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert answer.headers["traceresponse"] == f"00-{TRACE}-{span.context.span_id:016x}-01"
    expected = {
        "http.request.method": "POST", "http.route": "/classify", "url.path": "/classify",
        "http.response.status_code": 200, "http.response.body.size": len(answer.content),
        "openvocab.request_id": answer.headers["x-request-id"], "openvocab.model": "pictogram",
    }  # fmt: skip
    assert expected.items() <= dict(span.attributes).items()
    inside = below(finished, span)
    assert set(inside) == {*STAGES, "forward pass"}
    for stage in inside.values():
        assert span.start_time <= stage.start_time <= stage.end_time <= span.end_time
    assert inside["queue"].end_time <= inside["encode"].end_time
    # from a request to the forward pass that it was in
    (link,) = inside["encode"].links
    assert link.context.span_id == inside["forward pass"].context.span_id
    # nothing of what was sent
    assert "confidential" not in "".join(span.to_json() for span in finished)


def test_requests_that_share_a_forward_pass_are_linked_with_its_one_span(
    recorded: Recorded,
) -> None:
    async def run() -> None:
        async def same(items: Sequence[int]) -> Sequence[int]:
            return items

        batcher = Batcher(same, BatchPolicy(max_batch=8, max_queue=8), model="small")

        async def request(headers: dict[str, str]) -> None:
            place = recorded.tracing.request(headers, "POST", {})
            with spans.at(place):
                batch = await batcher.submit(1)
            assert batch.size == 3
            place.end()

        await asyncio.gather(*map(request, (NOT_SAMPLED, {}, SAMPLED)))

    asyncio.run(run())
    finished = recorded.taken()
    (shared,) = [span for span in finished if span.name == "forward pass"]
    requests = [span for span in finished if span.name == "POST"]
    assert {link.context.span_id for link in shared.links} == {
        request.context.span_id for request in requests
    }
    assert len(requests) == 2
    assert shared.attributes == {"openvocab.batch_size": 3, "openvocab.model": "small"}


def test_a_build_is_in_the_trace_of_who_asked_for_it(
    client: httpx.Client, recorded: Recorded
) -> None:
    body = {"labels": ["confidential", "traced"]}
    client.put("/labelsets/traced", json=body, params={"wait": True}, headers=SAMPLED)
    finished = recorded.taken(servers=1)
    span = server_span(finished)
    assert span.name == "PUT /labelsets/{name}"
    build = below(finished, span)["build label set"]
    assert build.attributes == {"openvocab.labels": 2, "openvocab.model": "pictogram"}
    assert "encode texts" in below(finished, build)
    assert "confidential" not in "".join(span.to_json() for span in finished)


def test_what_nobody_wants_to_read_is_not_traced(
    client: httpx.Client, recorded: Recorded, samples: dict[str, Path]
) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert "traceresponse" not in client.get(path).headers
    picture = samples["cat"].read_bytes()
    answer = client.post("/classify?labels=cat,dog", content=picture, headers=NOT_SAMPLED)
    assert answer.headers["traceresponse"].endswith("-00")
    assert recorded.taken() == ()

    files = [("images", (f"{n}.png", picture)) for n in range(70)]
    answer = client.post("/classify/batch", data={"labels": "cat,dog"}, files=files)
    assert answer.json()["failed"] == 0
    names = [span.name for span in recorded.taken(servers=1)]
    # of a large upload the first pictures stand for the others
    assert (names.count("image"), names.count("decode")) == (64, 64)


def test_only_faults_of_ours_are_errors_of_a_trace(
    client: httpx.Client, recorded: Recorded, samples: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    client.post("/classify?labels=cat,dog", content=b"confidential", headers=SAMPLED)
    span = server_span(recorded.taken(servers=1))
    assert span.status.is_unset
    assert span.attributes["http.response.status_code"] == 415
    assert span.attributes["openvocab.error_type"] == "unsupported_image"

    def broken(*_: object) -> None:
        raise ValueError("confidential")

    monkeypatch.setattr("app.classify.scoring.similarities", broken)
    client.post("/classify?labels=cat,dog", content=samples["cat"].read_bytes())
    finished = recorded.taken(servers=1)
    span = server_span(finished)
    assert not span.status.is_ok
    assert not span.status.is_unset
    assert span.attributes["error.type"] == "internal"
    assert below(finished, span)["score"].attributes["error.type"] == "ValueError"
    assert "confidential" not in "".join(span.to_json() for span in finished)


def test_without_traces_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import sys; from app.server.main import create_app; "
        "from app.server.settings import Settings; "
        "create_app(Settings(model='pictogram')); "
        "print(*sys.modules)"
    )
    completed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(completed.stdout.split())
    # the framework itself imports the names of its API
    assert not {"app.telemetry.otel", "opentelemetry.sdk", "opentelemetry.exporter"} & loaded
    assert "app.telemetry.spans" in loaded


@pytest.mark.parametrize(
    ("mode", "env", "made", "hindrance"),
    [
        ("auto", {}, False, None),
        ("on", {}, True, None),
        ("auto", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, True, None),
        ("off", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, False, None),
        ("on", {"OTEL_SDK_DISABLED": "true"}, False, None),
        ("on", {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False, "http/protobuf only"),
    ],
)
def test_traces_are_made_where_the_setting_or_the_standard_variables_ask_for_them(
    mode: spans.Mode, env: dict[str, str], made: bool, hindrance: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    tracing = spans.start(mode, "1")
    assert (tracing is not None) is made
    if tracing is not None:
        tracing.close()
    assert (hindrance or "") in (spans.hindrance(mode) or "")
    assert (spans.hindrance(mode) is None) is (hindrance is None)


def test_traces_that_are_asked_for_and_cannot_be_had_end_the_start_with_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = {**os.environ, "OPENVOCAB_TRACING": "on", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    command = [sys.executable, "-c", "from app.__main__ import app; app()", "serve"]
    completed = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert completed.returncode == USAGE_ERROR
    assert completed.stderr.startswith(
        "openvocab: OPENVOCAB_TRACING: traces are exported by http/protobuf"
    )
    assert completed.stderr.count("\n") == 1

    def not_there(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.util.find_spec", not_there)
    assert "pip install 'openvocab[otel]'" in (spans.hindrance("on") or "")
    assert spans.start("on", "1") is None


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_invalid_variable_of_traces_that_must_be_made_ends_the_start_with_a_line(
    workers: str,
) -> None:
    env = {**os.environ, "OPENVOCAB_TRACING": "on", "OTEL_BSP_MAX_QUEUE_SIZE": "256"}
    command = [sys.executable, "-c", "from app.__main__ import app; app()", "serve", "--model"]
    command += ["pictogram", "--port", "0", "--workers", workers]
    completed = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert completed.returncode == USAGE_ERROR, completed.stderr
    assert "openvocab: OPENVOCAB_TRACING: a variable OTEL_… is invalid: max" in completed.stderr
    assert "Traceback" not in completed.stderr


def test_an_invalid_variable_of_traces_that_may_be_made_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "-5")
    with caplog.at_level("WARNING"):
        assert spans.start("auto", "1") is None
    assert "no traces: a variable OTEL_… is invalid: " in caplog.text


@contextlib.contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """Something that speaks OTLP over HTTP; yields its address and what it was sent."""
    exported: list[ExportTraceServiceRequest] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/traces"
            exported.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", exported
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_each_worker_sends_its_spans_before_it_ends_and_writes_lines_of_json(
    data_dir: Path, samples: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = samples["cat"].read_bytes()
    monkeypatch.setenv("OTEL_SERVICE_NAME", "pictures")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")  # only the end sends them
    # spans of the framework's own would be twice as many, and would hold the query
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    with collector() as (url, exported):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        with openvocab("", data_dir, "--workers", "2", log_level="info") as server:
            log = data_dir / "server.log"
            wait_until(lambda: "2 workers)" in log.read_text())

            def ask(_: int) -> None:
                # a connection of its own, so that either worker may take it
                with httpx.Client(base_url=server.client.base_url, timeout=60) as client:
                    answer = client.post(
                        "/classify?labels=cat,confidential", content=picture, headers=SAMPLED
                    )
                    assert answer.status_code == 200

            def answered_by() -> list[str]:
                """The worker of each request so far, by the log."""
                whole, _, _ = log.read_text().rpartition("\n")
                lines = map(json.loads, whole.splitlines())
                return [line["worker"] for line in lines if line["logger"] == "openvocab.access"]

            requests = 0
            with ThreadPoolExecutor(8) as pool:
                # one worker may be so quick that the other gets nothing to do
                while len(set(answered_by())) < 2:
                    assert requests < 800, "one worker takes all connections"
                    list(pool.map(ask, range(8)))
                    requests += 8
                    wait_until(lambda sent=requests: len(answered_by()) == sent)  # type: ignore[misc]
            server.process.terminate()
            assert server.process.wait(120) == 0
    resources = [span for request in exported for span in request.resource_spans]
    described = [
        {
            attribute.key: attribute.value.string_value or attribute.value.int_value
            for attribute in r.resource.attributes
        }
        for r in resources
    ]
    assert {resource["service.name"] for resource in described} == {"pictures"}
    assert len({resource["process.pid"] for resource in described}) == 2
    assert "confidential" not in str(exported)
    names = [s.name for r in resources for scope in r.scope_spans for s in scope.spans]
    assert names.count("POST /classify") == names.count("score") == requests

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    access_lines = [line for line in lines if line["logger"] == "openvocab.access"]
    assert len(access_lines) == requests
    assert {line["worker"] for line in access_lines} == {"0", "1"}
    assert {line["trace_id"] for line in access_lines} == {TRACE}
    assert any(line["logger"] == "uvicorn.error" for line in lines)


def test_a_collector_that_is_away_or_silent_slows_nothing_and_is_told_of_once(
    pictogram: Encoder, serve: Serve, samples: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    export, failed = Patient.export, []

    def noting(exporter: Patient, ended: Sequence[ReadableSpan]) -> object:
        result = export(exporter, ended)
        failed.append(result)
        return result

    monkeypatch.setattr(Patient, "export", noting)
    picture = samples["cat"].read_bytes()
    with socket.socket() as closed, socket.create_server(("127.0.0.1", 0)) as silent:
        closed.bind(("127.0.0.1", 0))
        # for the silent one the end meets an export that waits longer than the end does
        for port, timeout, flush, message in (
            (closed, "0.2", 60.0, "accepts no traces"), (silent, "5", 0.5, "were not sent within"),
        ):  # fmt: skip
            caplog.clear()
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", timeout)
            monkeypatch.setattr("app.telemetry.otel.FLUSH_SECONDS", flush)
            address = f"http://127.0.0.1:{port.getsockname()[1]}"
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
            with serve(pictogram) as client:
                for number in range(1, 4):
                    answer = client.post("/classify?labels=cat,dog", content=picture)
                    assert answer.status_code == 200
                    if port is closed:
                        wait_until(lambda least=number: len(failed) >= least)  # type: ignore[misc]
                start = time.monotonic()
            assert time.monotonic() - start < 50
            lines = [r for r in caplog.records if r.name.startswith(("openvocab", "opentel"))]
            (line,) = [r for r in lines if r.levelno >= logging.WARNING]
            assert message in line.getMessage()
    wait_until(lambda: not any(thread.name == "traces" for thread in threading.enumerate()))
