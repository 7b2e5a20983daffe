"""Commands name one of a server's models."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from app.__main__ import app
from models.encoder import Encoder

# the first load of a model exports it
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def two(pictogram: Encoder, other_model: str, serve: Any) -> Iterator[httpx.Client]:
    """A server that loads its second model when it is asked for."""
    with serve(pictogram, more_models=other_model, precision="fp32", loaded_models=2) as client:
        yield client


def test_files_are_classified_with_the_model_that_is_named(
    run: Any, two: httpx.Client, other_model: str, samples: dict[str, Path]
) -> None:
    arguments = ("classify", samples["cat"], "--labels", "cat,dog", "--format", "ndjson")
    for model in (other_model, "pictogram"):
        result = run(*arguments, "--url", two.base_url, "--model", model)
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["model"] == model
    unknown = run(*arguments, "--url", two.base_url, "--model", "ViT-L-14/openai")
    assert unknown.exit_code == 2
    assert "this server has pictogram, " in unknown.stderr


def test_label_sets_and_their_examples_are_built_with_it(
    run: Any, two: httpx.Client, other_model: str, samples: dict[str, Path], tmp_path: Path
) -> None:
    server = ("--url", two.base_url, "--model", other_model)
    text = tmp_path / "pets.txt"
    text.write_text("cat\ndog\n")
    result = run("labelset", "create", "pets", text, *server)
    assert result.exit_code == 0, result.stderr
    process = run("labelset", "show", "pets", *server)
    assert "pictogram: unbuilt" in process.stderr
    assert f"{other_model}: ready" in process.stderr
    pictures = [samples["cat"], samples["dog"]]
    for label, picture in zip(("cat", "dog"), pictures, strict=True):
        added = run("labelset", "examples", "add", "pets", picture, "--label", label, *server)
        assert added.exit_code == 0, added.stderr
    answer = two.get("/labelsets/pets").json()
    assert answer["examples"] == {"cat": 1, "dog": 1}
    assert (answer["models"][other_model], answer["calibration"]) == ("ready", None)


def test_an_evaluation_is_one_of_the_model_that_is_named(
    two: httpx.Client, other_model: str, samples: dict[str, Path], tmp_path: Path
) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.png").write_bytes(samples[label].read_bytes())
    result = CliRunner().invoke(app, [
        "eval", str(tmp_path), "--no-keep", "--format", "json", "--url", str(two.base_url),
        "--model", other_model,
    ])  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["model"]["name"] == other_model
