"""Tell Ray what a replica counts, so that its own Prometheus endpoints answer for all of them.

Knows nothing of what is counted.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families
from ray.serve.metrics import Gauge

log = logging.getLogger("openvocab.metrics")

EVERY: Final = 5.0


class Exporter:
    """Copies metrics in Prometheus' text format to Ray every few seconds.

    All as gauges: a counter or a bucket there could only be added to, and here it is known whole.
    Ray names them `ray_` and their name, with the replica as labels.
    """

    def __init__(self, text: Callable[[], bytes]) -> None:
        self._text = text
        self._gauges: dict[str, Gauge] = {}
        self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Copy no more."""
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            try:
                await asyncio.to_thread(self._copy)
            except Exception:  # metrics never end what they measure
                log.exception("the metrics could not be handed to Ray")

    def _copy(self) -> None:
        for family in text_string_to_metric_families(self._text().decode()):
            for sample in family.samples:
                gauge = self._gauges.get(sample.name)
                if gauge is None:
                    names: Any = tuple(sample.labels)  # Ray's type allows a single one
                    gauge = Gauge(sample.name, family.documentation, names)
                    self._gauges[sample.name] = gauge
                gauge.set(sample.value, dict(sample.labels))
