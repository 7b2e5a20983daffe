"""What an image, and what all images together, may cost to decode. Knows no format."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
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
    """At most this many pixels are decoded at once, over all threads; others wait."""

    def __init__(self, pixels: int) -> None:
        self._all = self._free = pixels
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait for so much room and hold it; what is larger than all of it takes all."""
        pixels = min(pixels, self._all)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
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
