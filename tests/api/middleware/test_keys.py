"""API keys: read from file and line, compared by hash, rotated without a restart."""

import logging
import re
import resource
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.__main__ import app
from app.api.middleware.keys import (
    LOOK_EVERY,
    BadKeys,
    KeyRing,
    anyone,
    digest,
    from_line,
    from_toml,
    new_secret,
)

ONE, OTHER = "ov_one", "ov_other"


def entry(name: str, secret: str, more: str = 'scopes = ["classify"]') -> str:
    return f'[keys.{name}]\nsha256 = "{digest(secret)}"\n{more}\n'


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("address", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("local", "local", True),
    ],
)
def test_a_network_of_ipv6_counts_as_one_caller(address: str, other: str, same: bool) -> None:
    first, second = anyone(address), anyone(other)
    assert (first.network == second.network) is same
    assert (first.name, first.anonymous) == (address, True)


def test_a_key_is_known_by_its_hash_and_has_what_its_entry_says(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    more = (
        'scopes = ["classify", "labelsets:write"]\nnamespace = "shop"\nmax_labelsets = 3\n'
        "rate_limit = 2.5\nrate_burst = 10"
    )
    file.write_text(entry("backend", ONE, more))
    key = KeyRing(file).identify(ONE)
    assert key is not None
    assert (key.name, key.namespace, key.max_labelsets) == ("backend", "shop", 3)
    assert (key.rate_limit, key.rate_burst) == (2.5, 10)
    assert key.may("classify")
    assert not key.may("admin")
    assert ONE not in file.read_text()


@pytest.mark.parametrize("wrong", ["", "ov_on", "ov_one ", digest(ONE), "ov_\udce4", "ö"])
def test_nothing_else_is_a_key(tmp_path: Path, wrong: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(entry("backend", ONE))
    assert KeyRing(file).identify(wrong) is None


def test_every_scope_is_part_of_admin_and_a_stranger_without_keys_may_do_all() -> None:
    (key,) = from_toml(entry("root", ONE, 'scopes = ["admin"]'))
    for identity in (key.identity, anyone("127.0.0.1")):
        assert all(identity.may(scope) for scope in ("classify", "labelsets:write", "admin"))


def test_two_secrets_of_one_key_are_both_in_force(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    hashes = f'["{digest(ONE)}", "{digest(OTHER)}"]'
    file.write_text(f'[keys.backend]\nsha256 = {hashes}\nscopes = ["classify"]\n')
    ring = KeyRing(file)
    assert [key and key.name for key in map(ring.identify, (ONE, OTHER))] == ["backend"] * 2


def test_a_changed_file_is_read_within_a_second_and_a_broken_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, clock = tmp_path / "keys.toml", Clock()
    file.write_text(entry("backend", ONE))
    ring = KeyRing(file, clock=clock)

    file.write_text(entry("backend", OTHER) + entry("third", "ov_third"))
    assert ring.identify(ONE), "not looked at yet"
    clock.now += LOOK_EVERY
    assert ring.identify(ONE) is None
    assert ring.identify(OTHER)

    file.write_text("[keys")
    clock.now += LOOK_EVERY
    with caplog.at_level(logging.ERROR):
        assert ring.identify(OTHER)
    assert "stay in force" in caplog.text

    file.unlink()
    clock.now += LOOK_EVERY
    assert ring.identify(OTHER)


def test_a_file_that_could_not_be_read_once_is_read_as_soon_as_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, clock = tmp_path / "keys.toml", Clock()
    file.write_text(entry("backend", ONE))
    ring = KeyRing(file, clock=clock)

    file.write_text(entry("backend", OTHER))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))  # what is open stays so
    try:
        for _ in range(3):
            clock.now += LOOK_EVERY
            assert ring.identify(ONE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caplog.text.count("stay in force") == 1

    clock.now += LOOK_EVERY
    assert ring.identify(ONE) is None
    assert ring.identify(OTHER)


def test_a_key_ends_at_its_day(tmp_path: Path) -> None:
    file, clock = tmp_path / "keys.toml", Clock()
    file.write_text(entry("guest", ONE, 'scopes = ["classify"]\nexpires = 1970-01-13'))
    ring = KeyRing(file, clock=clock)
    assert ring.identify(ONE)
    clock.now = 12 * 86_400
    assert ring.identify(ONE) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[keys", "not TOML"),
        ('[keys.a]\nsha256 = "abc"\nscopes = ["classify"]', "sha256"),
        (f'[keys.a]\nsha256 = "{digest(ONE)}"\nscopes = []', "scopes"),
        (f'[keys.a]\nsha256 = "{digest(ONE)}"\nscopes = ["all"]', "scopes"),
        (entry("a", ONE, 'scopes = ["classify"]\nsecret = "x"'), "secret"),
        (entry('"a b"', ONE), "keys"),
        *(
            (entry("a", ONE, f'scopes = ["classify"]\nrate_limit = {rate}'), "rate_limit")
            for rate in ("0", "inf", "nan", "1e-320", "1e10")
        ),
        (entry("a", ONE, 'scopes = ["classify"]\nrate_burst = 9999999999'), "rate_burst"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(BadKeys, match=message):
        from_toml(text)


def test_keys_from_the_environment() -> None:
    line = f"ci:classify+labelsets:write:{digest(ONE)}, ops:admin:{digest(OTHER)}"
    ring = KeyRing(None, line)
    assert ring.required
    key = ring.identify(ONE)
    assert key is not None
    assert key.scopes == {"classify", "labelsets:write"}
    assert not KeyRing(None).required
    for wrong in ("ci", "ci:classify", f"ci:all:{digest(ONE)}", f"c i:classify:{digest(ONE)}"):
        with pytest.raises(BadKeys, match="key 1"):
            from_line(wrong)


def test_a_bad_line_does_not_show_what_stands_in_it() -> None:
    with pytest.raises(BadKeys) as caught:
        from_line("ci:classify:ov_a-secret-by-mistake")
    assert "mistake" not in str(caught.value)


def test_secrets_are_new_each_time_and_the_command_makes_a_file_that_works(tmp_path: Path) -> None:
    assert len({new_secret() for _ in range(100)}) == 100
    result = CliRunner().invoke(
        app, ["keys", "new", "shop.eu", "--scope", "labelsets:write", "--namespace", "eu"]
    )
    assert result.exit_code == 0, result.output
    secret = result.stderr.split()[-1]
    file = tmp_path / "keys.toml"
    file.write_text(result.stdout)
    key = KeyRing(file).identify(secret)
    assert key is not None
    assert (key.name, key.namespace) == ("shop.eu", "eu")
    assert secret not in result.stdout
    assert "OPENVOCAB_API_KEYS" not in result.stderr  # which has no room for a namespace
    for wrong in (["a b"], ["a", "--scope", "all"], ["a", "--namespace", "x/y"]):
        assert CliRunner().invoke(app, ["keys", "new", *wrong]).exit_code == 2


def test_the_command_says_what_to_put_into_the_environment() -> None:
    result = CliRunner().invoke(
        app, ["keys", "new", "shop", "--scope", "classify", "--scope", "labelsets:write"]
    )
    (line,) = re.findall(r"OPENVOCAB_API_KEYS=(\S+)$", result.stderr, re.MULTILINE)
    key = KeyRing(None, line).identify(result.stderr.split()[-1])
    assert key is not None
    assert (key.name, key.scopes) == ("shop", {"classify", "labelsets:write"})
