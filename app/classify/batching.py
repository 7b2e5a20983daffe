"""Group items into batches for one consumer. Knows nothing of images, torch or HTTP."""

import asyncio
import contextvars
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from app.errors import Draining, Overloaded, Unavailable, retry_in
from app.telemetry import spans

if TYPE_CHECKING:
    from app.telemetry.otel import Place


T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger("openvocab.batching")


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """At most `max_batch` items a batch, `max_queue` items waiting, `in_flight` batches at once."""

    max_batch: int = 64
    max_queue: int = 512
    in_flight: int = 1


@dataclass(frozen=True, slots=True)
class Ran(Generic[R]):
    """A result with the seconds its item waited in the queue and its batch ran.

    The batch had `size` items, and `span` in a trace if one of them is traced.
    """

    value: R
    waited: float
    ran: float
    size: int
    span: "Place | None" = None


@dataclass(slots=True)
class _Waiting(Generic[T, R]):
    item: T
    future: asyncio.Future[Ran[R]]
    since: float
    place: "Place | None"


class Batcher(Generic[T, R]):
    """Continuous batching: what arrives while the consumer is idle goes at once, the rest gathers.

    Order is that of arrival, across all callers. An item whose caller was cancelled is dropped
    before it runs. A batch that fails is run again in halves, so that it fails only the items at
    fault. For one event loop.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        policy: BatchPolicy,
        **about: str,
    ) -> None:
        """`about` is what each batch's span tells besides its size."""
        self._run = run
        self._about = about
        self._policy = policy
        self._queue: deque[_Waiting[T, R]] = deque()
        self._batches: set[asyncio.Task[None]] = set()
        self._draining = False
        self._item_seconds = 0.0

    @property
    def queued(self) -> int:
        """Items that wait for a batch, those of cancelled callers included."""
        return len(self._queue)

    @property
    def oldest(self) -> float | None:
        """The `time.perf_counter()` since which the first of them waits; for any thread."""
        return next((waiting.since for waiting in self._queue.copy()), None)

    async def submit(self, item: T) -> Ran[R]:
        """Wait for the item's result.

        Raises:
            Overloaded: `max_queue` items wait already.
            Draining: `drain` was called.
            Exception: what the consumer raised for this item.
        """
        if self._draining:
            raise Draining(
                "the server is shutting down; send the request to another one", retry_after=1
            )
        if len(self._queue) >= self._policy.max_queue:
            self._queue = deque(entry for entry in self._queue if not entry.future.done())
        if len(self._queue) >= self._policy.max_queue:
            raise self._overloaded()
        loop = asyncio.get_running_loop()
        waiting = _Waiting[T, R](item, loop.create_future(), time.perf_counter(), spans.current())
        self._queue.append(waiting)
        # not at once: items that arrive in the same turn of the loop share a batch, at no wait
        loop.call_soon(self._pump)
        return await waiting.future

    async def drain(self) -> None:
        """Refuse new items and wait until all that were accepted have their result."""
        self._draining = True
        while self._queue or self._batches:
            self._pump()
            await asyncio.wait(self._batches) if self._batches else await asyncio.sleep(0)

    def _pump(self) -> None:
        while self._queue and len(self._batches) < self._policy.in_flight:
            batch: list[_Waiting[T, R]] = []
            while self._queue and len(batch) < self._policy.max_batch:
                waiting = self._queue.popleft()
                if not waiting.future.done():  # done here means cancelled
                    batch.append(waiting)
            if batch:
                # in no request's name: it is not for the one alone that happened to start it
                task = asyncio.create_task(self._serve(batch), context=contextvars.Context())
                self._batches.add(task)
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        self._pump()

    async def _serve(self, batch: list[_Waiting[T, R]]) -> None:
        begun = time.perf_counter()
        callers = [waiting.place for waiting in batch]
        try:
            with spans.joint("forward pass", callers, batch_size=len(batch), **self._about) as span:
                values = await self._run([waiting.item for waiting in batch])
            if len(values) != len(batch):
                raise RuntimeError(f"{len(batch)} items gave {len(values)} results. This is a bug.")
        except Exception as error:
            if len(batch) == 1 or isinstance(error, Unavailable):  # no item is at fault
                for waiting in batch:
                    _settle(waiting, error)
                return
            log.warning("a batch of %d failed (%r); retrying in halves", len(batch), error)
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                still_waited_for = [waiting for waiting in half if not waiting.future.done()]
                if still_waited_for:
                    await self._serve(still_waited_for)
            return
        ran = time.perf_counter() - begun
        each = ran / len(batch)
        # the first batch says all that is known
        before = self._item_seconds or each
        self._item_seconds = 0.9 * before + 0.1 * each
        for waiting, value in zip(batch, values, strict=True):
            _settle(waiting, Ran(value, begun - waiting.since, ran, len(batch), span))

    def _overloaded(self) -> Overloaded:
        limit = self._policy.max_queue
        return Overloaded(
            f"{limit} images are already waiting (the limit, max_queue); try again later",
            limit=limit,
            value=len(self._queue),
            retry_after=retry_in(limit * self._item_seconds),
        )


def _settle(waiting: _Waiting[T, R], outcome: Ran[R] | Exception) -> None:
    if waiting.future.done():  # cancelled while it ran
        return
    if isinstance(outcome, Exception):
        waiting.future.set_exception(outcome)
    else:
        waiting.future.set_result(outcome)
