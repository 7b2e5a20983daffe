"""How many requests a caller may make, counted together with other processes.

Knows neither HTTP nor which store does the counting.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from app.stores.gcra import take
from app.stores.protocols import RateLimits, StoreAway

# callers remembered; a caller that returns after this many others starts again
REMEMBERED: Final = 10_000

# tokens taken from the store at once last about this many seconds, and are not kept longer
LEASE: Final = 0.05
KEPT: Final = 1.0

# seconds ahead that the times of refused requests are spread over: whoever asks on without waiting
# takes one each time, and sends nobody away for longer
FARTHEST: Final = 10.0


@dataclass(slots=True)
class _Caller:
    tokens: int = 0
    until: float = 0.0  # when the tokens lapse
    blocked: float = 0.0  # until when the store need not be asked
    told: float = 0.0  # the latest time that a refused request was told to come back at
    tat: float | None = None  # of the bucket here, while the store is away
    allowed: tuple[float, int] | None = None  # the rate and burst that all this is about


class RateLimiter:
    """Requests take tokens from a bucket in the store, a few at a time for frequent callers.

    While the store is away each process counts for itself. A refusal is repeated from memory
    until the bucket has tokens again, so that a flood costs the store nothing.
    """

    def __init__(self, store: RateLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._callers: OrderedDict[str, _Caller] = OrderedDict()

    async def wait_for(self, name: str, rate: float, burst: int) -> float:
        """0 if the caller may go on, else the seconds after which it may.

        Of several refused requests each has a time of its own: at one time for all, all but a few
        would be refused again. `rate` is in requests a second, of which `burst` may come at once.
        """
        caller = self._caller(name)
        if caller.allowed != (rate, burst):  # its key was changed
            caller.allowed = rate, burst
            caller.tokens, caller.blocked, caller.told = 0, 0.0, 0.0
        now = self._clock()
        if caller.blocked > now:
            return _turn(caller, now, caller.blocked - now, rate)
        if caller.tokens and caller.until > now:
            caller.tokens -= 1
            return 0.0
        count = max(1, min(burst, int(rate * LEASE)))
        try:
            grant = await self._store.take(name, count, rate, burst)
        except StoreAway:
            caller.tat, grant = take(caller.tat, now, 1, rate, burst)
        now = self._clock()
        if not grant.granted:
            caller.blocked = now + grant.wait
            return _turn(caller, now, grant.wait, rate)
        caller.tokens, caller.until = grant.granted - 1, now + KEPT
        return 0.0

    def _caller(self, name: str) -> _Caller:
        caller = self._callers.pop(name, None) or _Caller()
        self._callers[name] = caller
        if len(self._callers) > REMEMBERED:
            self._callers.popitem(last=False)
        return caller


def _turn(caller: _Caller, now: float, wait: float, rate: float) -> float:
    """Seconds until this refused request may come, which the first may after `wait`."""
    turn = min(max(wait, caller.told - now + 1 / rate), wait + FARTHEST)
    caller.told = now + turn
    return turn
