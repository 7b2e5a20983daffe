"""How long the stages of one request took, and what the process counts. Knows nothing of HTTP."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

MEDIA_TYPE: Final = CONTENT_TYPE_LATEST

# seconds; from a cached image to a cold build
BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

# why work was given up before it was done
Reason = Literal["left", "expired"]


class Metrics:
    """What one application counts, for Prometheus to fetch."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "openvocab_requests", "Requests answered.", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "openvocab_request_seconds",
            "Seconds from the first byte of a request to its answer.",
            ["route"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._stages = Histogram(
            "openvocab_stage_seconds",
            "Seconds of a request's stages: decode, queue, encode, text, score.",
            ["stage"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._problems = Counter(
            "openvocab_problems", "Requests refused or failed.", ["error_type"],
            registry=self._registry,
        )  # fmt: skip
        self._dropped = Counter(
            "openvocab_dropped",
            "Requests given up: their client left, or their time passed.",
            ["reason"],
            registry=self._registry,
        )

    def answered(
        self, route: str, status: int, seconds: float, stages: "Stages", problem: str | None
    ) -> None:
        """One request, with the code of its problem if it had one."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        for name, spent in stages.seconds.items():
            self._stages.labels(name).observe(spent)
        if problem is not None:
            self._problems.labels(problem).inc()

    def dropped(self, reason: Reason) -> None:
        """One request whose work was given up."""
        self._dropped.labels(reason).inc()

    def watch(self, name: str, about: str, read: Callable[[], float]) -> None:
        """A value that is read whenever the metrics are fetched."""
        Gauge(f"openvocab_{name}", about, registry=self._registry).set_function(read)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)


class Stages:
    """Seconds by stage, in the order in which the stages first ended."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time spent inside, also when it ends with an error."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - begun)

    def add(self, name: str, seconds: float) -> None:
        """Count time that was measured elsewhere."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def server_timing(self) -> str:
        """The value of a Server-Timing header, in milliseconds (W3C Server Timing, section 3)."""
        return ", ".join(f"{name};dur={1000 * value:.2f}" for name, value in self.seconds.items())
