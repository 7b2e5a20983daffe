"""Settings: the page says what the code does, and the environment is read."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.server.settings import Settings, settings_page

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_the_one_made_from_the_fields() -> None:
    assert PAGE.read_text(encoding="utf-8") == settings_page(), "run: make docs"


def test_every_setting_says_what_it_is_for() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENVOCAB_MODEL", "pictogram")
    monkeypatch.setenv("OPENVOCAB_MAX_IMAGE_BYTES", "123")
    assert (Settings().model, Settings().max_image_bytes) == ("pictogram", 123)
    assert Settings(model="other").model == "other"


def test_a_value_out_of_bounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENVOCAB_MAX_BATCH", "0")
    with pytest.raises(ValidationError):
        Settings()
