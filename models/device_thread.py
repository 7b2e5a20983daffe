"""One thread that owns a device and does its work. Knows nothing of models or torch."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from models.errors import EncoderClosed

R = TypeVar("R")
Launch = Callable[[], Callable[[], R]]
Steps = Generator[None, None, R]

log = logging.getLogger("openvocab.models")

# urgent work goes first, but steps behind an endless stream of it must still come to an end
URGENT_IN_A_ROW: Final = 8


@dataclass(slots=True, eq=False)
class _Owner:
    """Who a piece of work belongs to, and what its work has cost so far."""

    closed: bool = False
    since: float | None = None
    slowest: float = 0.0
    urgent_seconds: float = 0.0
    step_seconds: float = 0.0


class DeviceThread:
    """Runs urgent work before stepwise work, on one thread.

    Urgent work is launched and fetched in two halves, so that up to `in_flight` pieces can be on
    the device at once. Stepwise work is a generator that yields after each short piece; several of
    them take turns, and between any two pieces urgent work goes first. A future that was cancelled
    is dropped before its work starts. Whatever raises fails its own future, never the thread; but
    it is told first (`when_failed`).

    Several models can share a device by `beside`: the urgent work of all goes before the steps of
    any, each kind in the order in which it came, so that none starves.
    """

    def __init__(self, name: str, in_flight: int, beside: "DeviceThread | None" = None) -> None:
        """`beside` another one: its thread, with work and figures of one's own."""
        self._own = _Owner()
        self._queues: _Queues = beside._queues if beside else _Queues(name, in_flight)
        self._queues.join(self._own)

    def submit(self, launch: Launch[R]) -> Future[R]:
        """Hand over urgent work: `launch()` starts it and returns what fetches the result."""
        return self._queues.add(launch, self._own, urgent=True)

    def submit_steps(self, steps: Steps[R]) -> Future[R]:
        """Hand over stepwise work; the generator's return value is the result."""
        return self._queues.add(steps, self._own, urgent=False)

    def when_failed(self, tell: Callable[[BaseException], object]) -> None:
        """Tell of each error before the future that it fails."""
        self._queues.tell = tell

    @property
    def busy_since(self) -> float | None:
        """The `time.monotonic()` at which the piece under way began, None between pieces."""
        return self._own.since

    @property
    def slowest(self) -> float:
        """Seconds that the longest piece so far took."""
        return self._own.slowest

    @property
    def busy_seconds(self) -> tuple[float, float]:
        """Seconds spent so far on urgent work, and on steps."""
        return self._own.urgent_seconds, self._own.step_seconds

    def close(self, timeout: float = 10.0) -> None:
        """Finish what is on the device, fail what waits with EncoderClosed, end the thread.

        The thread of several ends with the last of them.
        """
        self._queues.leave(self._own, timeout)


class _Queues:
    """The thread, and the work of all who share it."""

    def __init__(self, name: str, in_flight: int) -> None:
        self._in_flight = in_flight
        self.tell: Callable[[BaseException], object] = lambda _error: None
        self.urgent: deque[tuple[Future[Any], Launch[Any], _Owner]] = deque()
        self.steps: deque[tuple[Future[Any], Steps[Any], _Owner]] = deque()
        self._launched: deque[tuple[Future[Any], Callable[[], Any], _Owner]] = deque()
        self._urgent_in_a_row = 0
        self._owners: list[_Owner] = []
        self._closed = False
        self._stepping = False  # whether the piece under way is a step
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def join(self, owner: _Owner) -> None:
        """One more who hands work over."""
        with self._changed:
            if self._closed:
                raise EncoderClosed("the encoder is closed")
            self._owners.append(owner)

    def leave(self, owner: _Owner, timeout: float) -> None:
        """Fail what waits of an owner, wait for what is on the device; the last ends the thread."""
        ends_at = time.monotonic() + timeout
        with self._changed:
            owner.closed = True
            if owner in self._owners:
                self._owners.remove(owner)
            waiting = [item[0] for item in (*self.urgent, *self.steps) if item[2] is owner]
            self.urgent = deque(item for item in self.urgent if item[2] is not owner)
            self.steps = deque(item for item in self.steps if item[2] is not owner)
            self._closed = not self._owners
            self._changed.notify_all()
        for future in waiting:
            if future.running() or future.set_running_or_notify_cancel():
                future.set_exception(EncoderClosed("the encoder was closed"))
        if self._closed:
            self._thread.join(timeout)
            return
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_off(owner), max(0.0, ends_at - time.monotonic())
            )

    def _is_off(self, owner: _Owner) -> bool:
        """Whether nothing of an owner is on the device."""
        return owner.since is None and all(item[2] is not owner for item in self._launched)

    def add(self, work: Any, owner: _Owner, *, urgent: bool) -> Future[Any]:
        """Put work at the end of its queue. Raises EncoderClosed."""
        future: Future[Any] = Future()
        with self._changed:
            if owner.closed:
                raise EncoderClosed("the encoder is closed")
            (self.urgent if urgent else self.steps).append((future, work, owner))
            self._changed.notify_all()
        return future

    def _run(self) -> None:
        while True:
            with self._changed:
                # somebody may wait for the end of the piece before
                self._changed.notify_all()
                while not (self.urgent or self.steps or self._launched or self._closed):
                    self._changed.wait()
                # what is on the device goes out before text is begun: its caller waits for it
                piece = self._take() if self.urgent or not self._launched else None
                if piece is None and not self._launched:
                    return
            self._timed(*(piece or (self._fetch_oldest, self._launched[0][2])))
            piece = None  # or it would hold a model that goes until another one has work
            while len(self._launched) >= self._in_flight:
                self._timed(self._fetch_oldest, self._launched[0][2])

    def _timed(self, piece: Callable[[], None], owner: _Owner) -> None:
        start = owner.since = time.monotonic()
        self._stepping = False
        piece()
        owner.since = None
        spent = time.monotonic() - start
        owner.slowest = max(owner.slowest, spent)
        if self._stepping:
            owner.step_seconds += spent
        else:
            owner.urgent_seconds += spent

    def _take(self) -> tuple[Callable[[], None], _Owner] | None:
        turn_of_steps = self.steps and (not self.urgent or self._urgent_in_a_row >= URGENT_IN_A_ROW)
        if turn_of_steps:
            self._urgent_in_a_row = 0
            future, steps, owner = self.steps.popleft()
            return lambda: self._step(future, steps, owner), owner
        if self.urgent:
            self._urgent_in_a_row += 1
            future, launch, owner = self.urgent.popleft()
            return lambda: self._launch(future, launch, owner), owner
        return None

    def _launch(self, future: Future[Any], launch: Launch[Any], owner: _Owner) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            self._launched.append((future, launch(), owner))
        except BaseException as error:  # the thread outlives any piece of work
            self._fail(future, error)

    def _step(self, future: Future[Any], steps: Steps[Any], owner: _Owner) -> None:
        self._stepping = True
        if not future.running() and not future.set_running_or_notify_cancel():
            steps.close()
            return
        try:
            next(steps)
        except StopIteration as end:
            future.set_result(end.value)
        except BaseException as error:  # the thread outlives any piece of work
            self._fail(future, error)
        else:
            with self._changed:
                if not owner.closed:
                    self.steps.append((future, steps, owner))
                    return
            future.set_exception(EncoderClosed("the encoder was closed"))

    def _fetch_oldest(self) -> None:
        future, fetch, _ = self._launched.popleft()
        try:
            future.set_result(fetch())
        except BaseException as error:  # the thread outlives any piece of work
            self._fail(future, error)

    def _fail(self, future: Future[Any], error: BaseException) -> None:
        self.tell(error)
        future.set_exception(error)
