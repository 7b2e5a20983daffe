"""What an image, and what all images together, may cost to decode. Knows no format."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from app.errors import TooLarge


def check(count: int, limit: int, what: str) -> None:
    """Raises TooLarge."""
    if count > limit:
        detail = f"the image has over {limit} {what}; it would take too long to decode"
        raise TooLarge(detail, field="image", limit=limit, value=count)


def check_size(width: int, height: int, limit: int) -> None:
    """Raises TooLarge."""
    if width * height > limit:
        detail = f"the image has {width} x {height} = {width * height} pixels, the limit is {limit}"
        raise TooLarge(detail, field="image", limit=limit, value=width * height)


class Room:
    """At most this many pixels are decoded at once, over all threads; others wait in line.

    `wait` is around each wait.
    """

    def __init__(
        self, pixels: int, wait: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self._all = self._free = pixels
        self._wait = wait
        self._line: deque[object] = deque()
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """How many wait for room."""
        return len(self._line)

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait for so much room and hold it; what is larger than all of it takes all."""
        pixels, turn = min(pixels, self._all), object()
        with self._wait(), self._changed:
            self._line.append(turn)
            # in turn, or a large picture would wait for small ones for as long as some come
            self._changed.wait_for(lambda: self._line[0] is turn and self._free >= pixels)
            self._line.popleft()
            self._free -= pixels
            self._changed.notify_all()  # there may be room for the next one, too
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The largest file in bytes and the largest picture in pixels (width x height)."""

    bytes: int = 20_000_000
    pixels: int = 50_000_000
