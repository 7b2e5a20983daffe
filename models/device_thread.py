"""One thread that owns a device and does its work. Knows nothing of models or torch."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from models.errors import EncoderClosed

R = TypeVar("R")
Launch = Callable[[], Callable[[], R]]
Steps = Generator[None, None, R]

log = logging.getLogger("openvocab.models")

# urgent work goes first, but steps behind an endless stream of it must still come to an end
URGENT_IN_A_ROW: Final = 8


class DeviceThread:
    """Runs urgent work before stepwise work, on one thread.

    Urgent work is launched and fetched in two halves, so that up to `in_flight` pieces can be on
    the device at once. Stepwise work is a generator that yields after each short piece; several of
    them take turns, and between any two pieces urgent work goes first. A future that was cancelled
    is dropped before its work starts. Whatever raises fails its own future, never the thread; but
    what `lost` takes for the end of the device goes to `on_lost` first.
    """

    def __init__(self, name: str, in_flight: int) -> None:
        self._in_flight = in_flight
        self.lost: Callable[[BaseException], bool] = lambda _error: False
        self.on_lost: Callable[[BaseException], object] = lambda _error: None
        self._urgent: deque[tuple[Future[Any], Launch[Any]]] = deque()
        self._steps: deque[tuple[Future[Any], Steps[Any]]] = deque()
        self._launched: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._urgent_in_a_row = 0
        self._closed = False
        self._since: float | None = None
        self._slowest = 0.0
        self._urgent_seconds = 0.0
        self._step_seconds = 0.0
        self._stepping = False  # whether the piece under way is a step
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, launch: Launch[R]) -> Future[R]:
        """Hand over urgent work: `launch()` starts it and returns what fetches the result."""
        return self._add(self._urgent, launch)

    def submit_steps(self, steps: Steps[R]) -> Future[R]:
        """Hand over stepwise work; the generator's return value is the result."""
        return self._add(self._steps, steps)

    @property
    def busy_since(self) -> float | None:
        """The `time.monotonic()` at which the piece under way began, None between pieces."""
        return self._since

    @property
    def slowest(self) -> float:
        """Seconds that the longest piece so far took."""
        return self._slowest

    @property
    def busy_seconds(self) -> tuple[float, float]:
        """Seconds spent so far on urgent work, and on steps."""
        return self._urgent_seconds, self._step_seconds

    def close(self, timeout: float = 10.0) -> None:
        """Finish what is on the device, fail what waits with EncoderClosed, end the thread."""
        with self._changed:
            self._closed = True
            waiting = [future for future, _ in (*self._urgent, *self._steps)]
            self._urgent.clear()
            self._steps.clear()
            self._changed.notify()
        for future in waiting:
            if future.running() or future.set_running_or_notify_cancel():
                future.set_exception(EncoderClosed("the encoder was closed"))
        self._thread.join(timeout)

    def _add(self, queue: deque[tuple[Future[Any], Any]], work: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._changed:
            if self._closed:
                raise EncoderClosed("the encoder is closed")
            queue.append((future, work))
            self._changed.notify()
        return future

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._urgent or self._steps or self._launched or self._closed):
                    self._changed.wait()
                # what is on the device goes out before text is begun: its caller waits for it
                piece = self._take() if self._urgent or not self._launched else None
                if piece is None and not self._launched:
                    return
            self._timed(piece or self._fetch_oldest)
            while len(self._launched) >= self._in_flight:
                self._timed(self._fetch_oldest)

    def _timed(self, piece: Callable[[], None]) -> None:
        begun = self._since = time.monotonic()
        self._stepping = False
        piece()
        self._since = None
        spent = time.monotonic() - begun
        self._slowest = max(self._slowest, spent)
        if self._stepping:
            self._step_seconds += spent
        else:
            self._urgent_seconds += spent

    def _take(self) -> Callable[[], None] | None:
        turn_of_steps = self._steps and (
            not self._urgent or self._urgent_in_a_row >= URGENT_IN_A_ROW
        )
        if turn_of_steps:
            self._urgent_in_a_row = 0
            future, steps = self._steps.popleft()
            return lambda: self._step(future, steps)
        if self._urgent:
            self._urgent_in_a_row += 1
            future, launch = self._urgent.popleft()
            return lambda: self._launch(future, launch)
        return None

    def _launch(self, future: Future[Any], launch: Launch[Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            self._launched.append((future, launch()))
        except BaseException as error:  # the thread outlives any piece of work
            self._fail(future, error)

    def _step(self, future: Future[Any], steps: Steps[Any]) -> None:
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
                if not self._closed:
                    self._steps.append((future, steps))
                    return
            future.set_exception(EncoderClosed("the encoder was closed"))

    def _fetch_oldest(self) -> None:
        future, fetch = self._launched.popleft()
        try:
            future.set_result(fetch())
        except BaseException as error:  # the thread outlives any piece of work
            self._fail(future, error)

    def _fail(self, future: Future[Any], error: BaseException) -> None:
        if self.lost(error):
            self.on_lost(error)
        future.set_exception(error)
