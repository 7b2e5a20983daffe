"""How long the stages of one request took. Knows nothing of HTTP, nor of who reads it."""

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from app import spans

if TYPE_CHECKING:
    from app.tracing import Place


class Stages:
    """Seconds by stage, in the order in which the stages first ended; each is a span of a trace."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time spent inside, also when it ends with an error."""
        begun = time.perf_counter()
        try:
            with spans.span(name):
                yield
        finally:
            self.add(name, time.perf_counter() - begun)

    def add(self, name: str, seconds: float) -> None:
        """Count time that was measured elsewhere."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def ran(self, waited: float, ran: float, size: int, shared: "Place | None") -> None:
        """Count a turn in a batch that has just ended: of `size`, in the span `shared`."""
        self.add("queue", waited)
        self.add("encode", ran)
        spans.passed("queue", waited, ran)
        spans.passed("encode", ran, 0.0, shared, batch_size=size)

    def server_timing(self) -> str:
        """The value of a Server-Timing header, in milliseconds (W3C Server Timing, section 3)."""
        return ", ".join(f"{name};dur={1000 * value:.2f}" for name, value in self.seconds.items())
