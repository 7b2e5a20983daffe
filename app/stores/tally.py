"""Tells what became of each call of a store and how long it took. Knows not which store it is."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from app.stores.protocols import StoreAway, StoreError, StoreRefused

Call = Literal["read", "write", "count"]
Result = Literal["ok", "refused", "away"]
Tell = Callable[[Call, Result, float], None]


def nobody(_call: Call, _result: Result, _seconds: float) -> None:
    """For a store whose calls are not counted."""


@contextmanager
def told(tell: Tell, call: Call) -> Iterator[None]:
    """Around one call; one that is cancelled is none."""
    begun = time.perf_counter()
    try:
        yield
    except StoreRefused:
        tell(call, "refused", time.perf_counter() - begun)
        raise
    except StoreAway:
        tell(call, "away", time.perf_counter() - begun)
        raise
    except StoreError:
        # that somebody else was faster is an answer
        tell(call, "ok", time.perf_counter() - begun)
        raise
    else:
        tell(call, "ok", time.perf_counter() - begun)
