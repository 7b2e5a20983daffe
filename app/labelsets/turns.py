"""Whose step of a build is next. Knows nothing of what is built.

Namespaces do not wait for one another: the device itself lets pieces of text take turns. Within
one, a few steps run at once, and every second free place goes to the build with the least left, so
that a small one passes large ones and a large one still comes to its end.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

# steps of one namespace that run at once: one on the device, one that is ready for it
AT_ONCE: Final = 2

# prompts of a build that waits for no large one: it may be one more
SMALL: Final = 256


@dataclass(slots=True)
class _Queue:
    running: int = 0
    granted: int = 0
    waiting: list[tuple[int, "asyncio.Future[None]"]] = field(default_factory=list)  # as they came


class Turns:
    """Lets a few steps of each namespace run at once."""

    def __init__(self) -> None:
        self._queues: defaultdict[str, _Queue] = defaultdict(_Queue)

    @asynccontextmanager
    async def turn(self, namespace: str, left: int) -> AsyncIterator[None]:
        """Around one step of a build that has so many prompts `left`."""
        queue = self._queues[namespace]
        if queue.running < AT_ONCE + (left <= SMALL):
            queue.running += 1
        else:
            place = (left, asyncio.get_running_loop().create_future())
            queue.waiting.append(place)
            try:
                await place[1]
            except asyncio.CancelledError:
                if not place[1].cancelled():
                    self._pass_on(namespace)  # its turn had come
                raise
        try:
            yield
        finally:
            self._pass_on(namespace)

    def _pass_on(self, namespace: str) -> None:
        queue = self._queues[namespace]
        queue.waiting = [place for place in queue.waiting if not place[1].done()]
        extra = queue.running > AT_ONCE
        next_ones = [place for place in queue.waiting if not extra or place[0] <= SMALL]
        if not next_ones:
            queue.running -= 1
            if not queue.running:
                del self._queues[namespace]
            return
        queue.granted += 1
        by_size = queue.granted % 2 == 1
        place = min(next_ones, key=lambda waiting: waiting[0]) if by_size else next_ones[0]
        queue.waiting.remove(place)
        place[1].set_result(None)
