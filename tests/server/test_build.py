"""How a further model is loaded beside those that serve."""

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from app.server import build
from app.server.settings import Settings

SETTINGS = Settings(model="pictogram")


def test_a_load_that_is_called_off_while_it_waits_for_room_takes_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[str] = []
    ended = threading.Event()

    def load(_settings: Settings, name: str, _beside: Any, room: Callable[[], None]) -> Any:
        try:
            room()
            events.append(f"{name} takes memory")
            return SimpleNamespace(close=lambda: events.append("closed"))
        finally:
            ended.set()

    monkeypatch.setattr(build, "load_encoder", load)

    async def test() -> None:
        asked = asyncio.Event()

        async def room() -> None:
            asked.set()
            await asyncio.sleep(60)

        loading = asyncio.create_task(build._loaded(SETTINGS, "other", None, room))  # type: ignore[arg-type]
        await asked.wait()
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        assert await asyncio.to_thread(ended.wait, 30)
        await asyncio.sleep(0)

    asyncio.run(test())
    assert events == []


def test_a_load_that_fails_before_it_asks_for_room_makes_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(*_: Any) -> Any:
        raise ValueError("nowhere")

    monkeypatch.setattr(build, "load_encoder", load)

    async def room() -> None:
        raise AssertionError("made")

    with pytest.raises(ValueError, match="nowhere"):
        asyncio.run(build._loaded(SETTINGS, "other", None, room))  # type: ignore[arg-type]
