"""Environments of their own for the peers, from pinned versions, kept between runs."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.folders import cache

PEERS: Final = Path(__file__).parent / "peers"


class NoEnvironment(Exception):
    """The peer's packages cannot be installed; the text is the last line of what was said."""


def environment(name: str) -> Path:
    """The `bin` folder of the peer's environment, made anew when its requirements changed.

    Raises NoEnvironment.
    """
    requirements = PEERS / name / "requirements.txt"
    folder = cache("environments", name)
    stamp = folder / "made-from"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        print(f"installing the environment of {name} (gigabytes, once)", flush=True)
        shutil.rmtree(folder)
        _run([sys.executable, "-m", "venv", str(folder)])
        python = str(folder / "bin" / "python")
        uv = shutil.which("uv")
        pip = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
        _run([*pip, "--quiet", "-r", str(requirements)])
        stamp.write_text(digest)
    return folder / "bin"


def clean_env(**more: str) -> dict[str, str]:
    """The environment variables of a peer: no download, no telemetry, no settings of ours."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OPENVOCAB_", "PYTHON"))}
    quiet = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    return {**inherited, **quiet, **more}


def _run(command: list[str]) -> None:
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        lines = (process.stderr or process.stdout).strip().splitlines()
        raise NoEnvironment(lines[-1] if lines else f"{command[0]} failed")
