"""The store that the settings name. Knows nothing of what is kept in it."""

from typing import Final, Literal

from app.server.settings import Settings
from app.stores import open_store
from app.stores.guard import Guarded, Tell, nobody

# seconds that a read of the SQLite file, and a write to it, may take
SQLITE_READ_SECONDS: Final = 1.0
SQLITE_WRITE_SECONDS: Final = 5.0


def kind_of_store(settings: Settings) -> Literal["sqlite", "redis", "memory"]:
    """What kind of store it is, however a server of that kind is reached."""
    if not settings.store_url:
        return "sqlite"
    return "memory" if settings.store_url.startswith("memory:") else "redis"


def guarded_store(settings: Settings, tell: Tell = nobody) -> Guarded:
    """The store behind its circuit breaker, not opened yet; raises StoreUnusable."""
    store = open_store(
        settings.store_url,
        settings.data_dir.expanduser(),
        settings.store_timeout,
        settings.vector_ttl,
        settings.vector_store_bytes,
        settings.store_prefix,
    )
    if settings.store_url:
        return Guarded(store, settings.store_timeout, tell=tell)
    # a file's disk may be slow, and whether a definition was written matters more than when
    reads, writes = (
        max(seconds, settings.store_timeout)
        for seconds in (SQLITE_READ_SECONDS, SQLITE_WRITE_SECONDS)
    )
    return Guarded(store, reads, write_timeout=writes, tell=tell)
