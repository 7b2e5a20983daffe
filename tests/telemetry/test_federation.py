"""One text in Prometheus' format from those of several places."""

from prometheus_client.parser import text_string_to_metric_families

from app.telemetry.federation import federated
from app.telemetry.metrics import Metrics


def test_each_sample_says_where_it_is_from_and_counts_for_itself() -> None:
    texts = []
    for place, count in (("one", 3), ("two", 4)):
        metrics = Metrics()
        for _ in range(count):
            metrics.encoded("image", "m", 2, 0.1)
        metrics.received(10 * count)
        texts.append(({"replica": place}, metrics.text()))
    text = federated(texts)
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    received = families["openvocab_received_bytes"]
    assert received.type == "counter"
    assert {s.labels["replica"]: s.value for s in received.samples} == {"one": 30, "two": 40}
    batches = families["openvocab_batch_size"]
    assert batches.type == "histogram"
    buckets = [s for s in batches.samples if s.name.endswith("_bucket")]
    assert {s.labels["replica"]: s.value for s in buckets if s.labels["le"] == "+Inf"} == {
        "one": 3,
        "two": 4,
    }
    # each family once, whatever the number of places
    assert text.count(b"# TYPE openvocab_batch_size ") == 1


def test_nothing_from_nowhere() -> None:
    assert federated([]) == b""
