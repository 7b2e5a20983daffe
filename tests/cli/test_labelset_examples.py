"""`openvocab labelset examples`, and backups with the pictures in them."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.encoder import Encoder

PAGE = Path(__file__).parents[2] / "app" / "api" / "page" / "samples"
LABELS = ("cat", "dog", "guitar")


@pytest.fixture(scope="module")
def server(pictogram: Encoder, serve: Any) -> Iterator[httpx.Client]:
    with serve(pictogram) as client:
        yield client


@pytest.fixture
def labelset(run: Any, server: httpx.Client) -> Iterator[Any]:
    """A `labelset` command against a server with the set `pets`."""
    server.put("/labelsets/pets?wait=true", json={"labels": LABELS}).raise_for_status()
    yield lambda *rest, **options: run("labelset", *rest, "--url", server.base_url, **options)
    server.delete("/labelsets/pets")


@pytest.fixture
def folder(samples: dict[str, Path], tmp_path: Path) -> Path:
    """A folder for each label, with two pictures in it."""
    for label in LABELS:
        label_folder = tmp_path / "pictures" / label
        label_folder.mkdir(parents=True)
        shutil.copy(samples[label], label_folder)
        shutil.copy(PAGE / f"{label}.webp", label_folder)
    return tmp_path / "pictures"


def stored_examples(server: httpx.Client) -> set[tuple[str, str]]:
    examples = server.get("/labelsets/pets/examples?limit=1000").json()["examples"]
    return {(example["label"], example["id"]) for example in examples}


def test_a_folder_for_each_label_is_sent_listed_and_removed(
    labelset: Any, server: httpx.Client, folder: Path
) -> None:
    process = labelset("examples", "add", "pets", folder)
    assert process.exit_code == 0, process.stderr
    assert [line.split() for line in process.stdout.splitlines()[1:]] == [
        [la, "2"] for la in LABELS
    ]
    assert "6 examples added" in process.stderr
    assert "weight" in process.stderr
    (folder / "cat" / "broken.png").write_bytes(b"GIF89a")
    (folder / "cat" / "notes.txt").write_bytes(b"")
    (folder / "dog" / "more").symlink_to(folder / "cat")
    (folder / "bird").mkdir()
    shutil.copy(folder / "cat" / "cat.png", folder / "bird" / "bird.png")
    again = labelset("examples", "add", "pets", folder)
    assert again.exit_code == 1
    assert "0 examples added, 6 already present" in again.stderr
    assert "broken.png: " in again.stderr
    assert "skipped 1 file without an image extension" in again.stderr
    assert "skipped 1 linked folder" in again.stderr
    assert "bird.png: 'bird' is not a label in this label set" in again.stderr
    lines = [
        json.loads(line)
        for line in labelset("examples", "list", "pets", "--json").stdout.splitlines()
    ]
    assert {(line["label"], line["id"]) for line in lines} == stored_examples(server)
    plain = labelset("examples", "list", "pets").stdout.splitlines()
    assert [line.split("\t")[0] for line in plain] == [line["id"] for line in lines]
    assert labelset("examples", "remove", "pets", lines[0]["id"]).exit_code == 0
    assert "2 examples removed" in labelset("examples", "remove", "pets", "--label", "dog").stderr
    assert labelset("examples", "remove", "pets").exit_code == 2
    assert len(stored_examples(server)) == 3
    other = labelset("examples", "add", "pets", "--label", "dog", folder / "dog")
    assert other.exit_code == 0, other.stderr
    assert len(stored_examples(server)) == 5


def test_a_backup_restores_the_pictures_and_an_older_one_leaves_them(
    labelset: Any, server: httpx.Client, folder: Path, tmp_path: Path
) -> None:
    labelset("examples", "add", "pets", folder)
    before = stored_examples(server)
    backup = labelset("export")
    (tmp_path / "full.jsonl").write_text(backup.stdout, encoding="utf-8")
    small = labelset("export", "--no-examples").stdout
    assert "examples" not in json.loads(small)
    (tmp_path / "small.jsonl").write_text(small, encoding="utf-8")
    server.delete("/labelsets/pets")
    assert labelset("import", tmp_path / "full.jsonl").exit_code == 0
    assert stored_examples(server) == before
    # changed meanwhile: one gone, one under another label, one too many
    cat, dog = (folder / label / f"{label}.png" for label in ("cat", "dog"))
    labelset("examples", "remove", "pets", "--label", "cat")
    labelset("examples", "add", "pets", "--label", "guitar", cat)
    other = folder / "other.png"
    other.write_bytes(dog.read_bytes() + b"behind the end")
    labelset("examples", "add", "pets", "--label", "dog", other)
    assert labelset("import", tmp_path / "small.jsonl", "--replace").exit_code == 0
    assert len(stored_examples(server)) == 6
    restored = labelset("import", tmp_path / "full.jsonl", "--replace")
    assert restored.exit_code == 0, restored.stderr
    assert stored_examples(server) == before
    # also of a set that had none
    labelset("examples", "remove", "pets", "--all")
    none = labelset("export").stdout
    labelset("examples", "add", "pets", folder)
    assert labelset("import", "-", "--replace", input=none).exit_code == 0
    assert stored_examples(server) == set()
    assert labelset("import", tmp_path / "full.jsonl", "--replace").exit_code == 0
    assert stored_examples(server) == before
    damaged = json.loads(backup.stdout)
    damaged["examples"][0]["image"] = "no base64"
    again = labelset("import", "-", "--replace", input=json.dumps(damaged))
    assert (again.exit_code, "line 1: example 1 is not" in again.stderr) == (2, True)
    assert stored_examples(server) == before
