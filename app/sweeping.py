"""Forget pictures that no label set names any more. Knows nothing of what they show.

A picture is written before the definition that names it and forgotten after it, so whatever ends in
between leaves a picture too many, and never one too few.
"""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from typing import Final

from app.definitions import from_body
from app.stores.protocols import LabelSets, Pictures, StoreAway

log = logging.getLogger("openvocab.labelsets")

# seconds: a younger picture may be of a definition that is still to be written
GRACE: Final = 3_600.0

# seconds between two sweeps, and until the first
EVERY: Final = 6 * 3_600.0
FIRST: Final = 60.0


async def keep_sweeping(labelsets: LabelSets, pictures: Pictures) -> None:
    """Sweep now and then, for ever."""
    await asyncio.sleep(FIRST)
    while True:
        with contextlib.suppress(StoreAway):
            count = await sweep(labelsets, pictures, time.time() - GRACE)
            if count:
                log.info("%d pictures that no label set names are forgotten", count)
        await asyncio.sleep(EVERY)


async def sweep(labelsets: LabelSets, pictures: Pictures, before: float) -> int:
    """Forget those that were added `before` (Unix time); how many. Raises StoreAway."""
    old: defaultdict[str, list[str]] = defaultdict(list)
    for name, key in await pictures.listed():
        if int(key[:12], 16) / 1000 < before:
            old[name].append(key)
    count = 0
    for name, keys in old.items():
        named = await _named(labelsets, name)
        unnamed = [] if named is None else [key for key in keys if key not in named]
        await pictures.delete(name, unnamed)
        count += len(unnamed)
    return count


async def _named(labelsets: LabelSets, name: str) -> frozenset[str] | None:
    """The keys that a label set names; None where nobody can tell."""
    head = await labelsets.head(name)
    if head is None:
        return None  # lost, not deleted: whoever knows the definition publishes it again
    if head.deleted:
        return frozenset()
    record = await labelsets.get(name)
    if record is None:
        return None
    try:
        stored = from_body(name, record.version, record.body)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None  # of a newer release, which may need them
    before = stored.previous.definition.keys() if stored.previous else frozenset()
    return stored.definition.keys() | before
