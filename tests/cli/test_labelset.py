"""`openvocab labelset`: the label sets of a live server, from files and back into files."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli.labelset_client import BadFile, definition, exported, imported
from app.cli.terminal import STDIN, opened
from models.encoder import Encoder
from tests.cli.conftest import Spawn


@pytest.fixture(scope="module")
def server(pictogram: Encoder, serve: Any) -> Iterator[httpx.Client]:
    with serve(pictogram) as client:
        yield client


@pytest.fixture
def labelset(run: Any, server: httpx.Client) -> Iterator[Any]:
    """A `labelset` command against a server that holds nothing."""
    yield lambda command, *rest, **options: run(
        "labelset", command, *rest, "--url", server.base_url, **options
    )
    for answer in server.get("/labelsets").json()["labelsets"]:
        server.delete(f"/labelsets/{answer['name']}").raise_for_status()


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_label_set_is_made_shown_replaced_and_deleted(
    labelset: Any, server: httpx.Client, tmp_path: Path
) -> None:
    text = write(tmp_path / "pets.txt", "cat\ndog\r\n\n")
    result = labelset("create", "pets", text, "--description", "small ones")
    assert result.exit_code == 0, result.stderr
    assert re.search(r"pets, version \d+, ready", result.stderr)
    assert labelset("show", "pets").stdout == "cat\ndog\n"
    assert json.loads(labelset("show", "pets", "--json").stdout)["description"] == "small ones"
    again = labelset("create", "pets", text)
    assert again.exit_code == 1
    assert "pets" in again.stderr
    content = json.dumps({"labels": {"cat": ["cat", "kitten"], "dog": []}})
    other = labelset("replace", "pets", "-", input=content)
    assert other.exit_code == 0, other.stderr
    assert labelset("show", "pets").stdout == "cat\tcat, kitten\ndog\n"
    assert labelset("replace", "birds", text).exit_code == 1  # there is none to replace
    listed = labelset("list")
    assert listed.stdout.split()[:6] == [
        "name", "version", "labels", "status", "templates", "description",
    ]  # fmt: skip
    assert "pets" in listed.stdout
    process = labelset("delete", "birds", "pets")
    assert process.exit_code == 1  # but the one that there was is deleted
    assert "birds" in process.stderr
    assert server.get("/labelsets").json()["labelsets"] == []


SETS: list[dict[str, Any]] = [
    {"name": "plain", "labels": ["b", "a"]},
    {"name": "named", "labels": ["a", "b"], "templates": "imagenet", "description": "é\u2028"},
    {"name": "own", "labels": ["a", "b"], "templates": ["a {}, drawn", "the {}"]},
    {"name": "rich", "labels": {"cat": ["cat", "kitten"], "dog": [], "x": ["y"]},
     "prompts": {"dog": ["a dog, as it is"]}},
]  # fmt: skip


def test_a_backup_restores_everything_that_an_owner_wrote(
    labelset: Any, server: httpx.Client, run: Any, pictogram: Encoder, serve: Any, tmp_path: Path
) -> None:
    for content in SETS:
        server.post("/labelsets?wait=true", json=content).raise_for_status()
    backup = labelset("export")
    assert backup.exit_code == 0
    assert len(backup.stdout_bytes.splitlines()) == len(SETS)
    file = write(tmp_path / "backup.jsonl", backup.stdout_bytes)
    with serve(pictogram) as other:
        process = run("labelset", "import", file, "--url", other.base_url)
        assert process.exit_code == 0, process.stderr
        assert "imported 4 label sets, 0 refused" in process.stderr
        for content in SETS:
            name = content["name"]
            # a dict's order is part of it: it is the order of the labels
            keys = ("labels", "synonyms", "prompts", "own_templates", "templates", "description")
            here, there = (c.get(f"/labelsets/{name}").json() for c in (server, other))
            assert [here[key] for key in keys] == [there[key] for key in keys]
        twice = run("labelset", "import", file, "--url", other.base_url)
        assert twice.exit_code == 1
        assert "imported 0 label sets, 4 refused" in twice.stderr
        assert run("labelset", "import", file, "--url", other.base_url, "--replace").exit_code == 0


def test_some_label_sets_are_exported_by_name(labelset: Any, server: httpx.Client) -> None:
    server.post("/labelsets", json=SETS[2]).raise_for_status()
    result = labelset("export", "nobody", "own")
    assert result.exit_code == 1
    assert "nobody" in result.stderr
    assert json.loads(result.stdout) == {**SETS[2], "examples": []}
    again = labelset("replace", "own", input=result.stdout)
    assert again.exit_code == 0, again.stderr


def test_long_lists_come_page_by_page(
    labelset: Any, server: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.labelset_client.PAGE", 2)
    for number in range(5):
        content = {"name": f"s{number}", "labels": ["a", "b"]}
        server.post("/labelsets", json=content).raise_for_status()
    names = [json.loads(line)["name"] for line in labelset("list", "--json").stdout.splitlines()]
    assert names == [f"s{number}" for number in range(5)]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "looks like JSON"),
        (b"\xff", "not UTF-8"),
        ('{"name": "other", "labels": ["a"]}', "'other', not 'pets'"),
    ],
)
def test_a_file_that_is_no_label_set_is_exit_status_2(
    labelset: Any, tmp_path: Path, content: str | bytes, complaint: str
) -> None:
    result = labelset("create", "pets", write(tmp_path / "f", content))
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert labelset("create", "pets", tmp_path / "none").exit_code == 2


def test_words_in_place_of_a_file_are_told_to_be_in_one(labelset: Any) -> None:
    result = labelset("create", "pets", "cat,dog")
    assert result.exit_code == 2
    assert "'cat,dog' was read as a file, which does not exist" in result.stderr


def test_who_types_what_a_pipe_would_bring_is_told_that_it_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keyboard, screen = os.openpty()
    os.write(keyboard, b"cat\ndog\n\x04")
    with open(screen) as stdin, open(keyboard):  # noqa: PTH123 (descriptors)
        monkeypatch.setattr("sys.stdin", stdin)
        with opened(STDIN) as source:
            assert source.read() == b"cat\ndog\n"
    assert "Ctrl-D" in capsys.readouterr().err


def test_a_file_that_no_server_takes_is_told_and_not_cut(labelset: Any, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(200_000_001)
    result = labelset("create", "pets", large)
    assert result.exit_code == 2
    assert "is over 200,000,000 bytes, the limit" in result.stderr


def test_an_argument_that_is_not_utf_8_is_exit_status_2(spawn: Spawn) -> None:
    latin = "Käfer{}".encode("latin-1")
    for arguments in ((latin,), ("a", "--description", latin), ("a", "--templates", latin)):
        process = spawn("labelset", "create", *arguments, data=b"cat\ndog\n", PYTHONUTF8="1")
        assert (process.returncode, process.stderr.count(b"\n")) == (2, 1), process.stderr
        assert b"is not UTF-8 text: K\\udce4fer{}" in process.stderr


def test_a_bad_line_of_a_backup_is_named(labelset: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "f", json.dumps(SETS[0]) + "\n\n{}\n")
    result = labelset("import", file)
    assert result.exit_code == 2
    assert "line 3" in result.stderr
    file = write(tmp_path / "f", '{"name": "a", "labels": {"b": [], "c": [], "b": ["d"]}}\n')
    assert "line 1: 'b' is there twice in one JSON object" in labelset("import", file).stderr
    file = write(tmp_path / "f", '{"name": "a", "labels": ["b", "c"], "examples": 5}\n')
    result = labelset("import", file)
    assert (result.exit_code, "line 1: examples is not a list" in result.stderr) == (2, True)
    for example in (1, {"label": 1, "image": 2}, {"label": "b", "image": "!!"}):
        content = {"name": "never", "labels": ["b", "c"], "examples": [example]}
        result = labelset("import", write(tmp_path / "f", json.dumps(content)))
        assert "line 1: example 1 is not a label with an image in base64" in result.stderr
        assert "never" not in labelset("list").stdout  # nothing is made of it


def test_a_server_that_is_away_or_wants_a_key_is_exit_status_4(
    run: Any, pictogram: Encoder, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.options.RETRY_FOR", 0)
    assert run("labelset", "list", "--url", "http://127.0.0.1:9").exit_code == 4
    digest = hashlib.sha256(b"ov_x").hexdigest()
    with serve(pictogram, api_keys=f"me:classify:{digest}") as client:
        assert run("labelset", "list", "--url", client.base_url).exit_code == 4
        key = {"OPENVOCAB_API_KEY": "ov_x", "OPENVOCAB_URL": str(client.base_url)}
        assert run("labelset", "list", env=key).exit_code == 0
        assert run("labelset", "create", "x", input="a\nb\n", env=key).exit_code == 4


def test_a_label_set_that_cannot_be_built_is_told(labelset: Any, server: httpx.Client) -> None:
    result = labelset("create", "bad", "--templates", "nothing", input="a\nb\n")
    assert result.exit_code == 1
    assert "nothing" in result.stderr


def test_brackets_within_brackets_are_no_json() -> None:
    deep = b"[" * 100_000
    with pytest.raises(BadFile, match="nested too deeply"):
        definition(deep)
    with pytest.raises(BadFile, match="line 1"):
        [*imported([deep])]


def test_text_may_hold_what_other_line_breaks_are_made_of() -> None:
    assert definition("\ufeffa\u2028b\nc\n".encode()) == {"labels": ["a\u2028b", "c"]}
    assert definition(b'["a", "b"]') == {"labels": ["a", "b"]}
    with pytest.raises(BadFile, match="line 1"):
        [*imported([b"[]"])]


def test_templates_that_nobody_chose_are_not_exported() -> None:
    answer = {"name": "x", "labels": ["a"], "synonyms": {}, "prompts": {}, "templates": "pictogram",
              "own_templates": None, "asked_templates": None, "description": ""}  # fmt: skip
    assert exported(answer) == {"name": "x", "labels": ["a"]}
    assert exported({**answer, "asked_templates": "imagenet"})["templates"] == "imagenet"


def test_commands_that_only_ask_a_server_load_no_settings_of_one() -> None:
    script = "import sys, app.cli.labelset, app.cli.undo; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "app.cli.labelset_client" in modules
    assert not {"app.server.settings", "pydantic_settings", "pydantic"} & set(modules)
