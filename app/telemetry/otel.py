"""Spans created and exported by OpenTelemetry. Imported only if tracing is on.

Knows neither requests nor settings: the standard variables OTEL_* say where spans go.
"""

import logging
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

log = logging.getLogger("openvocab.tracing")

Attributes: TypeAlias = Mapping[str, str | int | float | bool]

# at exit, spans not exported within this time are lost
FLUSH_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Place:
    """A span as a place for others below it; `context` holds it.

    Not `recorded` is what a sampler, or the caller, does not want kept; nothing below it is either.
    """

    tracer: Tracer
    context: Context
    span: Span
    recorded: bool

    @property
    def trace_id(self) -> str:
        """The id of its trace, 32 hexadecimal digits."""
        return trace.format_trace_id(self.span.get_span_context().trace_id)

    @property
    def response(self) -> str:
        """The value of a `traceresponse` header (W3C Trace Context, level 2)."""
        context = self.span.get_span_context()
        return (
            f"00-{self.trace_id}-{trace.format_span_id(context.span_id)}-{context.trace_flags:02x}"
        )

    def below(
        self,
        name: str,
        attributes: Attributes,
        linked: Iterable["Place"] = (),
        begun: int | None = None,
    ) -> "Place":
        """A span inside this one; `begun` in nanoseconds since 1970, if it was earlier."""
        contexts = (place.span.get_span_context() for place in linked)
        links = {context.span_id: Link(context) for context in contexts}
        span = self.tracer.start_span(
            name,
            self.context,
            attributes=attributes,
            links=list(links.values()),
            start_time=begun,
        )
        within = trace.set_span_in_context(span, self.context)
        return Place(self.tracer, within, span, span.is_recording())

    def end(self, failed: str | None = None, at: int | None = None) -> None:
        """The span is over; `failed` names the kind of its error, never a text."""
        if failed is not None:
            self.span.set_attribute("error.type", failed)
            self.span.set_status(StatusCode.ERROR)
        self.span.end(at)


class Tracing:
    """Makes spans; the provider sends them in the background."""

    def __init__(self, provider: TracerProvider, spans: "Patient | None" = None) -> None:
        self._provider = provider
        self._spans = spans
        self._tracer = provider.get_tracer("openvocab")
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def to_collector(cls, version: str) -> "Tracing":
        """With the exporter, sampler, limits and resource that the variables OTEL_* describe."""
        # of a collector that is away it would tell at every attempt
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        ours: dict[str, str | int] = {"service.name": "openvocab", "service.version": version}
        ours["process.pid"] = os.getpid()
        resource = Resource.create({**ours}).merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        spans = Patient(OTLPSpanExporter())
        provider.add_span_processor(BatchSpanProcessor(spans))
        return cls(provider, spans)

    def request(self, headers: Mapping[str, str], name: str, attributes: Attributes) -> Place:
        """The span of a request, in the caller's trace if its headers name one."""
        caller = self._propagator.extract(headers, Context())
        span = self._tracer.start_span(name, caller, SpanKind.SERVER, attributes)
        within = trace.set_span_in_context(span, caller)
        return Place(self._tracer, within, span, span.is_recording())

    def outside(self) -> Place:
        """The context of work without a request: each span there starts its own trace."""
        return Place(self._tracer, Context(), trace.INVALID_SPAN, recorded=True)

    def close(self) -> None:
        """Send what is queued, within a few seconds. Blocks."""
        if self._spans is not None and self._spans.lost:
            self._spans.shutdown()  # it would wait for a collector that is away
        # what the provider itself promises of time it does not keep
        thread = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        thread.start()
        thread.join(FLUSH_SECONDS)
        if thread.is_alive():
            log.warning("the last traces were not sent within %g s", FLUSH_SECONDS)


class Patient(SpanExporter):
    """Logs once when spans cannot be exported, and once when they can be again; none are kept."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Never raises."""
        try:
            result = self._exporter.export(spans)
        except Exception:
            log.debug("spans cannot be exported", exc_info=True)
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            if self.lost:
                log.warning("traces are exported again; %d spans were lost", self.lost)
            self.lost = 0
            return result
        if not self.lost:
            log.warning("the collector accepts no traces; continuing without them")
        self.lost += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()
