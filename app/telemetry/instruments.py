"""Counters, gauges and histograms, of all processes together, in Prometheus' text format.

Knows nothing of what is counted. Counters and histograms are for one thread each.
"""

import bisect
import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.telemetry.shared_memory import Board, Page, pages_of

log = logging.getLogger("openvocab.metrics")

# how the gauges of several processes become one; counters and histograms are summed
Together = Literal["sum", "max", "min"]
MERGE: Final[Mapping[Together, Callable[[Iterable[float]], float]]] = {
    "sum": math.fsum,
    "max": max,
    "min": min,
}

Labels = tuple[str, ...]
Read = Callable[[], "float | Mapping[Labels, float] | None"]


@dataclass(frozen=True, slots=True)
class Family:
    """What one metric is: its name as it is shown, its labels, and the bounds of its buckets."""

    name: str
    about: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: Labels = ()
    bounds: tuple[float, ...] = ()
    together: Together = "sum"

    @property
    def cells(self) -> int:
        """Numbers of one series: of a histogram the buckets, those beyond them, and the sum."""
        return len(self.bounds) + 2 if self.kind == "histogram" else 1


class Counter:
    """A number that only grows."""

    def __init__(self, family: Family, page: Page) -> None:
        self._name = family.name
        self._page = page
        self._words = page.words
        self._places: dict[Labels, int] = {}

    def inc(self, *labels: str, by: float = 1.0) -> None:
        """Count one more, or `by` more; 0 makes the series known."""
        place = self._places.get(labels)
        if place is None:
            place = self._places[labels] = self._page.place((self._name, *labels), 1)
        self._words[place] += by


class Histogram:
    """How often values fell between bounds, and their sum."""

    def __init__(self, family: Family, page: Page) -> None:
        self._name = family.name
        self._bounds = family.bounds
        self._cells = family.cells
        self._page = page
        self._words = page.words
        self._places: dict[Labels, int] = {}

    def observe(self, value: float, *labels: str) -> None:
        """One more value."""
        place = self._places.get(labels)
        if place is None:
            place = self._places[labels] = self._page.place((self._name, *labels), self._cells)
        self._words[place + bisect.bisect_left(self._bounds, value)] += 1
        self._words[place + self._cells - 1] += value


@dataclass(slots=True)
class _Reading:
    """A function whose value is shown: as it is, or for a counter what it grew by."""

    family: Family
    read: Read
    before: dict[Labels, float]


class Instruments(Collector):
    """The metrics of one process, and the way to read those of all."""

    def __init__(self, board: Board, page: Page) -> None:
        self._board = board
        self._page = page
        self._families: dict[str, Family] = {}
        self._readings: list[_Reading] = []
        self._publishing = threading.Lock()
        self._collecting = threading.Lock()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        page.open()

    @property
    def families(self) -> Sequence[Family]:
        """What is counted here."""
        return tuple(self._families.values())

    def counter(self, name: str, about: str, *labels: str) -> Counter:
        """Its name ends with _total."""
        return Counter(self._declare(Family(name, about, "counter", labels)), self._page)

    def histogram(self, name: str, about: str, bounds: Iterable[float], *labels: str) -> Histogram:
        """Its name ends with a unit."""
        family = Family(name, about, "histogram", labels, tuple(bounds))
        return Histogram(self._declare(family), self._page)

    def follow(self, name: str, about: str, read: Read, *labels: str) -> None:
        """A count that is kept elsewhere in this process, and only grows.

        Keys of its values may go on after the labels, to tell sources apart that are summed; a
        source that was gone may begin again.
        """
        family = self._declare(Family(name, about, "counter", labels))
        self._readings.append(_Reading(family, read, {}))

    def watch(
        self, name: str, about: str, read: Read, *labels: str, together: Together = "sum"
    ) -> None:
        """A value that is read; with `labels`, a mapping of their values. None if there is none."""
        family = self._declare(Family(name, about, "gauge", labels, together=together))
        self._forget(family)
        self._readings.append(_Reading(family, read, {}))

    def publish(self) -> None:
        """Read what is watched and followed, and write it down for all processes."""
        with self._publishing:
            for reading in self._readings:
                value: float | Mapping[Labels, float] | None = None
                try:
                    value = reading.read()
                except Exception:  # one broken value must not take the others away
                    log.exception("%s cannot be read", reading.family.name)
                self._write(reading, dict(value) if isinstance(value, Mapping) else {(): value})
            self._page.sign()

    def text(self) -> bytes:
        """What all processes count, in Prometheus' text format, for a thread: it takes some ms."""
        self.publish()
        with self._collecting:
            return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """For the exposition: every family with what all pages say."""
        cells_by_name: dict[str, dict[Labels, list[list[float]]]] = {
            name: {} for name in self._families
        }
        for page in pages_of(self._board):
            for record in page.records():
                family = self._families.get(record.name[0])
                if family is None or family.cells != record.count:
                    continue  # of another release
                if family.kind == "gauge" and not page.owned:
                    continue
                cells = [float(word) for word in page.words[record.place :][: record.count]]
                if not math.isnan(cells[0]):
                    cells_by_name[family.name].setdefault(record.name[1:], []).append(cells)
        for name, series in cells_by_name.items():
            yield _metric(self._families[name], series)

    def silent(self) -> float:
        """Seconds since the last sign of the process that is silent the longest."""
        return max((p.silent for p in pages_of(self._board) if p.owned), default=0.0)

    def _declare(self, family: Family) -> Family:
        if self._families.get(family.name, family) != family:
            raise ValueError(f"the metric {family.name} is another already. This is a bug.")
        # declared again where an application is started again: what was read is gone
        self._readings = [
            reading for reading in self._readings if reading.family.name != family.name
        ]
        self._families[family.name] = family
        return family

    def _forget(self, family: Family) -> None:
        """Values of the page's previous owner do not apply to this one."""
        for record in self._page.records():
            if record.name[0] == family.name:
                self._page.words[record.place] = math.nan

    def _write(self, reading: _Reading, values: Mapping[Labels, float | None]) -> None:
        family, before = reading.family, reading.before
        for labels, value in values.items():
            place = self._page.place((family.name, *labels[: len(family.labels)]), 1)
            if family.kind == "gauge":
                self._page.words[place] = before[labels] = math.nan if value is None else value
            elif value is not None:
                self._page.words[place] += max(0.0, value - before.get(labels, 0.0))
                before[labels] = value
        for gone in before.keys() - values.keys():
            del before[gone]
            if family.kind == "gauge":
                self._page.words[self._page.place((family.name, *gone), 1)] = math.nan


def _metric(family: Family, series: Mapping[Labels, Sequence[Sequence[float]]]) -> Metric:
    metric = Metric(family.name.removesuffix("_total"), family.about, family.kind)
    for values, cells in sorted(series.items()):
        labels = dict(zip(family.labels, values, strict=True))
        if family.kind == "histogram":
            _add_buckets(
                metric, family, labels, [math.fsum(cell) for cell in zip(*cells, strict=True)]
            )
        else:
            merge = MERGE[family.together]
            metric.add_sample(family.name, labels, merge(cell[0] for cell in cells))
    return metric


def _add_buckets(
    metric: Metric, family: Family, labels: dict[str, str], cells: Sequence[float]
) -> None:
    so_far = 0.0
    for bound, count in zip((*family.bounds, math.inf), cells, strict=False):
        so_far += count
        le = {**labels, "le": "+Inf" if math.isinf(bound) else str(float(bound))}
        metric.add_sample(f"{family.name}_bucket", le, so_far)
    metric.add_sample(f"{family.name}_count", labels, so_far)
    metric.add_sample(f"{family.name}_sum", labels, cells[-1])
