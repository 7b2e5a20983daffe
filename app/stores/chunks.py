"""Long lists in pieces that a store answers well within its time-out. Knows not what is in them."""

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

# 256 vectors of 1,024 numbers are 1 MB; also well under SQLite's limit of variables
CHUNK: Final = 256


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items in order, at most CHUNK at a time."""
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
