"""A live server for the clients that people have."""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.encoder import Encoder

JS = Path(__file__).parent / "js"
SECRET = "a key of this test"


@pytest.fixture(scope="session")
def url(client: httpx.Client) -> str:
    """Where the bundled model is served."""
    return str(client.base_url).rstrip("/")


@pytest.fixture(scope="session")
def guarded(pictogram: Encoder, serve: Any) -> Iterator[str]:
    """Where it is served to who has the key SECRET, and nobody else."""
    digest = hashlib.sha256(SECRET.encode()).hexdigest()
    with serve(pictogram, api_keys=f"somebody:classify:{digest}") as client:
        yield str(client.base_url).rstrip("/")


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """For a client in a process of its own: no proxy, no token of whoever runs the tests."""
    home = str(tmp_path_factory.mktemp("home"))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": path, "LANG": "C.UTF-8", "HOME": home, "NO_PROXY": "*"}


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The JavaScript clients, as package-lock.json pins them."""
    folder = JS / "node_modules"
    there = shutil.which("node") and (folder / "@huggingface").is_dir()
    assert there, "node or the JavaScript clients are missing: run make node"
    return folder
