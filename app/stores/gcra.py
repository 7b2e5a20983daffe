"""How many requests a bucket grants: the generic cell rate algorithm of ITU-T I.371, annex A.

Knows neither clocks nor where a bucket is kept. Its whole state is one time, the theoretical
arrival time (`tat`): when the bucket will be full again.
"""

from dataclasses import dataclass
from math import floor, inf, isnan
from typing import Final

# seconds lost by clocks and rounding: a caller that waits for Retry-After is not refused again
SLACK: Final = 1e-6

# what an operator may choose: beyond these a time and a bucket's size can no longer be added
LEAST_RATE: Final = 1e-6
MOST_RATE: Final = 1_000_000_000
MOST_BURST: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Grant:
    """How many were granted, and the seconds until one more would be: 0 if all that was wanted."""

    granted: int
    wait: float


def take(tat: float | None, now: float, count: int, rate: float, burst: int) -> tuple[float, Grant]:
    """Grant as many of `count` as are left; the new `tat`, and what was granted.

    `rate` is in requests a second, of which `burst` may come at once; times are in seconds, `tat`
    None for a bucket that nobody has used.

    Raises ValueError where there is no such rate or burst.
    """
    if not 0 < rate < inf or burst < 1:
        raise ValueError(
            f"a rate is above 0 and finite, a burst 1 or more; not {rate:g} and {burst}"
        )
    room = burst / rate
    # no bucket is emptier than empty: further ahead it gets when a clock is set back
    start = now if tat is None or isnan(tat) else min(max(tat, now), now + room)
    there = floor((room - (start - now) + SLACK) * rate)
    granted = max(0, min(count, burst, there))
    after = start + granted / rate
    wait = 0.0 if granted >= count else max(0.0, after - now - room + 1 / rate)
    return after, Grant(granted, wait)
