"""What the documents promise: the README's lines work as they stand, the tables are complete."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.api.fields import ClassifyFields
from app.errors import Problem
from app.server.main import create_app
from app.server.settings import Settings
from models.encoder import Encoder
from tests.conftest import Serve

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")

BLOCKS = [
    block
    # what follows of the API's page is tried where it is tested
    for block in re.findall(
        r"```sh\n(.*?)```", README + API.partition("\n## Label sets")[0], re.DOTALL
    )
    if "localhost:8000" in block
]


@pytest.fixture(scope="module")
def remembering(pictogram: Encoder, serve: Serve) -> Iterator[httpx.Client]:
    """A client of a server that remembers pictures, as it does by default."""
    with serve(pictogram, image_cache_bytes=32_000_000) as client:
        yield client


@pytest.mark.parametrize("block", BLOCKS, ids=[b.splitlines()[0][:60] for b in BLOCKS])
def test_the_pages_lines_work_as_pasted(block: str, remembering: httpx.Client) -> None:
    script = block.replace("localhost:8000", f"127.0.0.1:{remembering.base_url.port}")
    completed = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace("curl ", "curl -sS --fail-with-body ")],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert completed.stdout.strip()
    assert "urn:openvocab:problem" not in completed.stdout


def test_the_readmes_python_prints_labels_with_scores(client: httpx.Client) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    completed = subprocess.run(
        [sys.executable, "-c", code.replace("localhost", "127.0.0.1").replace(
            ":8000", f":{client.base_url.port}")],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    labels = [line.split()[0] for line in completed.stdout.splitlines()]
    assert sorted(labels) == ["cat", "dog", "pizza"]


ANSWERS = API.partition("### Several label sets")[2].partition("\n## ")[0]
GROUPS = API.partition("### Alternatives and groups")[2].partition("\n### ")[0]
CALLS = re.findall(r"```sh\n(.*?)```", ANSWERS + GROUPS, re.DOTALL)


@pytest.mark.parametrize("call", CALLS, ids=range(len(CALLS)))
def test_the_api_pages_ways_to_ask_work_as_pasted(call: str, client: httpx.Client) -> None:
    script = call.replace("localhost:8000", f"127.0.0.1:{client.base_url.port}")
    completed = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace("curl ", "curl -sS --fail-with-body ")],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert completed.stdout.strip()


def test_the_readmes_first_picture_has_its_answer(everyday: Encoder, serve: Serve) -> None:
    line = next(line for line in README.splitlines() if line.startswith("$ curl"))
    with serve(everyday) as client:
        script = line[2:].replace("localhost:8000", f"127.0.0.1:{client.base_url.port}")
        completed = subprocess.run(
            ["bash", "-c", script],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
    assert completed.stdout.splitlines()[0].endswith("\tcat")


def classes(root: type[Problem]) -> Iterator[type[Problem]]:
    yield root
    for child in root.__subclasses__():
        yield from classes(child)


def test_the_api_page_names_every_problem_field_and_route() -> None:
    never_answered = {"unavailable"}  # the parent of the 503s that are
    for problem in classes(Problem):
        if problem.code not in never_answered:
            assert f"`{problem.code}`" in API, problem
    for name, field in ClassifyFields.model_fields.items():
        assert f"| `{field.alias or name}` |" in API
    for path in create_app(Settings(model="pictogram")).openapi()["paths"]:
        assert f" {path}`" in API


def anchors(page: Path) -> set[str]:
    """What GitHub makes of each heading: lower case, no punctuation, hyphens for spaces."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_between_documents_lead_somewhere() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for page in map(ROOT.joinpath, listed.stdout.splitlines()):
        text = page.read_text(encoding="utf-8")
        for path, _, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#?)([^)]*)\)", text):
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name} -> {path}"
            assert not anchor or anchor in anchors(target), f"{page.name} -> {path}#{anchor}"
