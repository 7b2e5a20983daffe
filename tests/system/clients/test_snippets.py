"""What docs/clients.md shows: every block runs as it stands and prints what stands below it."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.encoder import Encoder

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
SHOWN = re.findall(
    r"^```(\w+)\n(.*?)^```\n(?:```text\n(.*?)^```$)?", PAGE, re.DOTALL | re.MULTILINE
)
MOST_LINES = 10

# how a block in this language is run
RUN = {"sh": ["bash", "-euo", "pipefail"], "python": [sys.executable], "js": ["node"]}


@pytest.fixture(scope="module")
def client(everyday: Encoder, serve: Callable[..., Any]) -> Iterator[httpx.Client]:
    """What `make run` serves."""
    with serve(everyday) as client:
        yield client


@pytest.fixture
def folder(samples: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The sample pictures, and beside them what npm installs."""
    for path in samples.values():
        shutil.copy(path, tmp_path)
    if request.node.callspec.params["language"] == "js":
        (tmp_path / "node_modules").symlink_to(request.getfixturevalue("node_modules"))
    return tmp_path


@pytest.mark.parametrize(
    ("language", "code", "printed"),
    SHOWN,
    ids=[f"{number} {language}" for number, (language, _, _) in enumerate(SHOWN, start=1)],
)
def test_a_snippet_prints_what_the_page_says(
    client: httpx.Client,
    folder: Path,
    environment: Mapping[str, str],
    language: str,
    code: str,
    printed: str,
) -> None:
    assert len(code.splitlines()) <= MOST_LINES
    assert printed, "what it prints stands in a block of text below it"
    file = folder / f"snippet.{'mjs' if language == 'js' else language}"
    here = code.replace("localhost:8000", f"127.0.0.1:{client.base_url.port}")
    file.write_text(here.replace("curl ", "curl -sS --fail-with-body "), encoding="utf-8")
    process = subprocess.run(
        [*RUN[language], file.name], cwd=folder, env=dict(environment),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr
    expected = re.escape(printed.strip()).replace("…", ".*")
    assert re.fullmatch(expected, process.stdout.strip(), re.DOTALL), process.stdout[:2000]


def test_every_client_that_has_no_block_of_its_own_is_missed() -> None:
    assert {language for language, _, _ in SHOWN} == set(RUN)
    for name in (
        "curl",
        "httpx",
        "requests",
        "huggingface_hub",
        "@huggingface/inference",
        "fetch",
        "openai",
    ):
        assert any(name in code for _, code, _ in SHOWN), name
