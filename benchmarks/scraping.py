"""Read a server's /metrics, and count in a process of its own. Knows nothing of what is asked."""

from multiprocessing.synchronize import Event

import httpx
from prometheus_client.parser import text_string_to_metric_families

from app.telemetry.metrics import Metrics
from app.telemetry.shared_memory import Board
from app.telemetry.spans import Stages

Labels = frozenset[tuple[str, str]]

# metrics with these suffixes only grow
COUNTS = ("_total", "_count", "_sum", "_bucket")


class Scraped:
    """What a text says, by name and labels; 0 for what it does not name."""

    def __init__(self, text: str) -> None:
        self.found: dict[tuple[str, Labels], float] = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        return self.found.get((name, frozenset(labels.items())), 0.0)

    def fell(self, before: "Scraped") -> list[str]:
        """The counts that are less than they were."""
        return [
            name
            for (name, labels), value in before.found.items()
            if name.endswith(COUNTS) and self(name, **dict(labels)) < value
        ]


def scrape(url: str) -> Scraped:
    """On a connection of its own: any worker may answer."""
    return Scraped(httpx.get(f"{url}/metrics", timeout=60).raise_for_status().text)


def count_until_killed(board: Board, page: int, ready: Event, times: int) -> None:
    """So many requests that went well, then failures without end, and three under way."""
    metrics = Metrics(board, page)
    for _ in range(times):
        metrics.answered("/classify", 200, 0.01, Stages(), None)
    metrics.watch("openvocab_in_service", "", lambda: 3)
    metrics.text()
    ready.set()
    while True:
        metrics.answered("/classify", 500, 0.01, Stages(), None)
