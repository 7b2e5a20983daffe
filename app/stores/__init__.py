"""Where vectors and definitions are kept: the store that a URL names.

Knows nothing of what is kept. `Guarded` (guard.py) goes around what `open_store` returns.
"""

import re
from pathlib import Path
from typing import Final

from app.stores.protocols import Store, StoreUnusable

FILE: Final = "openvocab.sqlite3"
_REDIS: Final = ("redis://", "rediss://", "unix://", "redis+sentinel://", "rediss+sentinel://")

# what the keys in Redis begin with
PREFIX: Final = "openvocab:"


def open_store(
    url: str,
    data_dir: Path,
    timeout: float,
    vector_ttl: float,
    vector_bytes: int,
    prefix: str = PREFIX,
) -> Store:
    """The store of an URL, not opened yet: "" is a file in `data_dir`.

    Raises:
        StoreUnusable: no store has such an URL; the text is one line without the password.
    """
    if not url:
        from app.stores.sqlite.store import SqliteStore

        return SqliteStore(data_dir / FILE, timeout, vector_ttl, vector_bytes)
    if url == "memory://":
        from app.stores.memory import MemoryStore

        # no vectors: they would be the same that the process keeps already
        return MemoryStore()
    scheme = re.match(r"[a-z][a-z0-9+.-]*://", url, re.IGNORECASE)
    if scheme and scheme[0].lower() in _REDIS:
        from app.stores.redis.store import RedisStore

        return RedisStore(url, timeout, vector_ttl, prefix)
    # no more of it: any other part may be of the password
    received = f"not {scheme[0]}" if scheme else "and this one is none of them"
    raise StoreUnusable(
        f"a store URL is empty (SQLite), memory://, redis://, rediss://, unix:// or "
        f"redis+sentinel://, {received}"
    )
