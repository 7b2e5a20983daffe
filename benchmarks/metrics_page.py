"""Write docs/metrics.md, the table of all metrics, from what a running service declares.

python -m benchmarks.metrics_page
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from app.server.main import create_app
from app.server.settings import Settings
from app.telemetry.instruments import Family
from models.info import AnyEncoder

PAGE: Final = Path(__file__).parents[1] / "docs" / "metrics.md"

INTRODUCTION: Final = """\
# Metrics

`GET /metrics` in Prometheus' text format; `OPENVOCAB_METRICS` says who may read it. One scrape of
any worker answers for all processes of a server: counters and histograms are summed, over those
that have ended too, so that they never go down; a gauge becomes what the third column says. On
Ray any Ingress answers for all replicas, each with its `deployment` and `replica` as labels. No
label ever holds a text, a key's name or the name of a label set.

Requests, problems, batches, builds and calls of the store are counted as they happen, in memory
that processes share: they are exact, also after a `kill -9`. Gauges, and what is counted of caches,
images, the device and the process itself, is read once a second.
[Prometheus' rules](../docker/prometheus/alerts.yml) and
[Grafana's dashboard](../docker/grafana/dashboards/openvocab.json) use them;
[operations.md](operations.md) says what to do when an alert wakes you.

This page is written by `python -m benchmarks.metrics_page`.
"""


def page(families: Sequence[Family]) -> str:
    """The whole page."""
    lines = ["", "| metric | kind | of several processes | what |", "| --- | --- | --- | --- |"]
    for family in families:
        labels = f"{{{','.join(family.labels)}}}" if family.labels else ""
        kind = "info" if family.name.endswith("_info") else family.kind
        lines.append(f"| `{family.name}{labels}` | {kind} | {family.together} | {family.about} |")
    lines += ["", "Buckets:", ""]
    for bounds in dict.fromkeys(family.bounds for family in families if family.bounds):
        names = ", ".join(f"`{f.name}`" for f in families if f.bounds == bounds)
        lines.append(f"- {names}: {', '.join(f'{bound:g}' for bound in bounds)}")
    return INTRODUCTION + "\n".join(lines) + "\n"


async def families(encoder: AnyEncoder | None = None) -> Sequence[Family]:
    """What a service with the bundled model declares."""
    app = create_app(Settings(model="pictogram", store_url="memory://"), encoder)
    async with app.router.lifespan_context(app):
        found: Sequence[Family] = app.state.services.metrics.families
        return found


if __name__ == "__main__":
    PAGE.write_text(page(asyncio.run(families())), encoding="utf-8")
