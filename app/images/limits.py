"""What an image, and what all images together, may cost to decode. Knows no format."""

import math
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from app.errors import TooLarge

# that a pixel may take while it is decoded: WebP with transparency, TIFF in floating point
BYTES_OF_A_PIXEL: Final = 17

# images of the largest size that are decoded at once; smaller ones may be more
LARGE_AT_ONCE: Final = 2
PIXELS_OF_A_THREAD: Final = 4_000_000


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


def pixels_at_once(largest: int, threads: int, memory: float = math.inf) -> int:
    """How many may be decoded at once, in images of at most `largest`, in `memory` bytes."""
    wanted = max(LARGE_AT_ONCE * largest, threads * PIXELS_OF_A_THREAD)
    return max(1, int(min(wanted, memory / BYTES_OF_A_PIXEL)))


class Room:
    """At most this many pixels are decoded at once, over all threads; others wait in line."""

    def __init__(self, pixels: int) -> None:
        self._all = self._free = pixels
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
        with self._changed:
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
