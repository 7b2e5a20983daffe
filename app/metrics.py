"""How long the stages of one request took. Knows neither HTTP nor what the stages do."""

import contextlib
import time
from collections.abc import Iterator


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
