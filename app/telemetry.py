"""Whether traces are made, and why not. Knows nothing of spans."""

import importlib.util
import os
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from app.tracing import Tracing

Mode = Literal["auto", "on", "off"]

PROTOCOL: Final = "http/protobuf"


def hindrance(mode: Mode) -> str | None:
    """Why traces that are asked for cannot be made; None if they can, or if nobody asks."""
    if not _asked(mode):
        return None
    if not _installed():
        return "traces need pip install 'openvocab[otel]'"
    protocol = _first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in ("", PROTOCOL):
        return f"traces are sent by {PROTOCOL} only, OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}"
    return None


def start(mode: Mode, version: str) -> "Tracing | None":
    """What makes spans, if it is asked for and can be had."""
    if not _asked(mode) or hindrance(mode) is not None:
        return None
    from app.tracing import Tracing  # half a second, and an extra: only who wants traces pays

    return Tracing.to_collector(version)


def _asked(mode: Mode) -> bool:
    if mode == "off" or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if mode == "on":
        return True
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "otlp")
    endpoint = _first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return bool(endpoint) and exporter == "otlp"


def _installed() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # not even what it would be a part of
        return False


def _first(*names: str) -> str:
    return next(filter(None, map(os.environ.get, names)), "")
