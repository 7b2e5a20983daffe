"""Texts in Prometheus' format from several places as one. Knows nothing of what they count."""

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector


def federated(texts: Iterable[tuple[Mapping[str, str], bytes]]) -> bytes:
    """One text; the samples of each one are labelled with where it is from."""
    families: dict[str, Metric] = {}
    for labels, text in texts:
        for family in text_string_to_metric_families(text.decode()):
            metric = families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            for sample in family.samples:
                metric.add_sample(sample.name, {**sample.labels, **labels}, sample.value)
    registry = CollectorRegistry()
    registry.register(_Families(families))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: Mapping[str, Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families.values())
