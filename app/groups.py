"""Items a few at a time. Knows nothing of what they are."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def groups(
    items: Iterable[T], size: Callable[[T], int], most: int, count: float = math.inf
) -> Iterator[list[T]]:
    """The items in order, up to `count` whose sizes are up to `most` in all; larger ones alone."""
    group: list[T] = []
    held = 0
    for item in items:
        own = size(item)
        if group and (held + own > most or len(group) >= count):
            yield group
            group, held = [], 0
        group.append(item)
        held += own
    if group:
        yield group
