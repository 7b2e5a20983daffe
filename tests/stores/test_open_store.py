"""Which store an URL names, and what a wrong one is told."""

from pathlib import Path

import pytest

from app.server.settings import Settings
from app.server.store import kind_of_store
from app.stores import open_store
from app.stores.memory import MemoryStore
from app.stores.protocols import StoreUnusable
from app.stores.redis.store import RedisStore
from app.stores.sqlite.store import SqliteStore


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("", SqliteStore),
        ("memory://", MemoryStore),
        ("redis://host:6380/3", RedisStore),
        ("REDIS://host", RedisStore),
        ("redis://user:pass%2Fword@host", RedisStore),
        ("rediss://:word@host/?ssl_cert_reqs=none", RedisStore),
        ("unix:///run/redis.sock?db=2", RedisStore),
    ],
)
def test_an_url_names_its_store_without_touching_it(url: str, kind: type, tmp_path: Path) -> None:
    assert isinstance(open_store(url, tmp_path / "data", 0.25, 60, 1000), kind)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "postgres://user:secret@host",
        "user:secret@host",
        "secret",
        "memory",
        "memory://secret",
        "redis:secret",
        "redis://user:secret/x@host",
        "redis://:12/secret@host",
        "redis://:secret@host:port",
        "redis://:secret@host/name",
        "redis://:secret@host?socket_timeout=secret",
        "redis://host?secret=1",
        "redis://[secret",
        "unix://",
    ],
)
def test_any_other_url_is_refused_in_one_line_without_the_password(
    url: str, tmp_path: Path
) -> None:
    with pytest.raises(StoreUnusable) as raised:
        open_store(url, tmp_path, 0.25, 60, 1000)
    text = str(raised.value)
    assert "redis://" in text
    assert "secret" not in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("", "sqlite"),
        ("memory://", "memory"),
        ("redis://127.0.0.1/1", "redis"),
        ("rediss://:secret@redis.internal", "redis"),
        ("unix:///run/redis.sock", "redis"),
        ("redis+sentinel://a,b/mine", "redis"),
    ],
)
def test_a_store_is_called_by_its_kind_however_it_is_reached(url: str, kind: str) -> None:
    assert kind_of_store(Settings(store_url=url)) == kind
