"""Settings: the page says what the code does, and the environment is read."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.server.settings import (
    BadSettings,
    Settings,
    settings_from,
    settings_page,
    unknown_variables,
)

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_the_one_made_from_the_fields() -> None:
    assert PAGE.read_text(encoding="utf-8") == settings_page(), "run: make docs"


def test_the_page_shows_what_may_be_written_in_the_environment() -> None:
    page = settings_page()
    assert "| `OPENVOCAB_METRICS` | `admin` | `open`, `admin`, `off` |" in page
    assert "| `OPENVOCAB_STORE_PREFIX` | `openvocab:` | length ≥ 1, length ≤ 100 |" in page
    assert "| `OPENVOCAB_TLS_CERT_FILE` | not set |" in page


def test_every_setting_says_what_it_is_for() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENVOCAB_MODEL", "pictogram")
    monkeypatch.setenv("OPENVOCAB_MAX_IMAGE_BYTES", "123")
    assert (Settings().model, Settings().max_image_bytes) == ("pictogram", 123)
    assert Settings(model="other").model == "other"


def test_a_misspelt_variable_is_named_with_the_setting_that_may_be_meant() -> None:
    known = [f"OPENVOCAB_{name.upper()}" for name in Settings.model_fields]
    others = ["openvocab_model", "OPENVOCAB_URL", "OPENVOCAB_API_KEY", "PATH", "MAX_BATCH"]
    assert unknown_variables([*known, *others]) == []
    lines = unknown_variables(["OPENVOCAB_SERVICE_HOST", "OPENVOCAB_RATELIMIT", *known])
    assert lines == [
        "OPENVOCAB_RATELIMIT is not a setting and has no effect; is OPENVOCAB_RATE_LIMIT meant?",
        "OPENVOCAB_SERVICE_HOST is not a setting and has no effect",
    ]


def test_an_argument_that_is_no_setting_is_named_with_the_one_that_may_be_meant() -> None:
    with pytest.raises(BadSettings) as refused:
        settings_from(precison="fp32")
    line = "OPENVOCAB_PRECISON is not a setting; is OPENVOCAB_PRECISION meant?"
    assert str(refused.value) == line


def test_a_value_out_of_bounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENVOCAB_MAX_BATCH", "0")
    with pytest.raises(ValidationError):
        Settings()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("rate_limit", "inf", "1000000000"),
        ("rate_limit", "1e10", "1000000000"),
        ("rate_limit", "1e-320", "0, or at least 0.000001"),
        ("rate_burst", "9" * 400, "1000000000"),
        ("vector_ttl", "inf", "10000000000"),
        ("vector_ttl", "1e16", "10000000000"),
        ("model_idle", "1e-320", "0, or at least 0.01"),
    ],
)
def test_a_number_that_nothing_can_be_done_with_is_refused(
    name: str, value: str, reason: str
) -> None:
    with pytest.raises(BadSettings, match=reason) as refused:
        settings_from(**{name: value})
    assert str(refused.value).startswith(f"OPENVOCAB_{name.upper()}: Input should be ")


@pytest.mark.parametrize(
    "value", ["vision", "//example.org", "https://example.org/vision", "/a?b", "/a b", "/ü", "/a\n"]
)
def test_a_root_path_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(BadSettings, match=r"OPENVOCAB_ROOT_PATH: it is not a path such as /vision"):
        settings_from(root_path=value)


def test_a_root_path_ends_before_the_slash_of_what_is_below_it() -> None:
    paths = ["", "/", "/vision", "/vision/", "/a-b/c.d/"]
    roots = [settings_from(root_path=path).root_path for path in paths]
    assert roots == ["", "", "/vision", "/vision", "/a-b/c.d"]


@pytest.mark.parametrize(
    ("value", "reason"), [("~no-such-user/data", "there is no such home"), ("", "it is empty")]
)
def test_a_data_folder_that_is_nowhere_is_refused(
    value: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENVOCAB_DATA_DIR", value)
    with pytest.raises(BadSettings, match=f"OPENVOCAB_DATA_DIR: {reason}"):
        settings_from()


def test_nothing_is_no_rate_and_no_idle_time() -> None:
    settings = settings_from(rate_limit="0", model_idle="0")
    assert (settings.rate_limit, settings.model_idle) == (0, 0)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("trusted_proxies", "127.0.0.1/8", "127.0.0.1 or 127.0.0.0/8"),
        ("trusted_proxies", "10.0.0.1, 127.0.0.1:8000", "'127.0.0.1:8000' is not an address"),
        ("trusted_proxies", "localhost", "'localhost' is not an address or a network"),
        ("trusted_proxies", "*, 10.0.0.1", "stands alone"),
        ("allowed_hosts", "localhost:8112", "'localhost:8112' .* without a port"),
        ("allowed_hosts", "*.example.org", "is not the name or address of a host"),
        ("allowed_hosts", "[::1]", "is not the name or address of a host"),
        ("allowed_hosts", " , ", "no host would be answered"),
        ("cors_origins", "https://example.org/", "browsers send https://example.org, got"),
        ("cors_origins", "http://[::1]:80", r"browsers send http://\[::1\], got"),
        ("cors_origins", "https://a.example, b.example", "'b.example' is not an origin such as"),
        ("cors_origins", "https://*.example.org", "is not an origin such as"),
        ("cors_origins", "https://example.org:port", "is not an origin such as"),
        ("image_url_hosts", "a b", "'a b' is not a host name"),
    ],
)
def test_an_entry_of_a_list_that_nothing_could_match_is_refused(
    name: str, value: str, reason: str
) -> None:
    with pytest.raises(BadSettings, match=f"^OPENVOCAB_{name.upper()}: .*{reason}"):
        settings_from(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trusted_proxies", "*"),
        ("trusted_proxies", "10.0.0.0/8, 192.0.2.1,::1, fe80::/10, fe80::1%eth0,"),
        ("allowed_hosts", "localhost,127.0.0.1, ::1, Vision.Example., a_b-c"),
        ("allowed_hosts", "*"),
        ("cors_origins", "https://example.org, http://localhost:3000, http://[::1]:81, null, *"),
        ("cors_origins", "chrome-extension://abcdefghijklmnop"),
        ("cors_origins", ""),
    ],
)
def test_entries_that_requests_can_match_are_taken(name: str, value: str) -> None:
    assert getattr(settings_from(**{name: value}), name) == value
