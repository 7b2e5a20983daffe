"""Run the steps of the Dockerfile that install, without an engine. Standard library only.

Usage: image_steps.py [FOLDER]. What the image has under / lies under FOLDER afterwards (a new one
in the temporary directory if none is named, removed at the end). It takes minutes and needs the
network: everything is downloaded anew, by the hashes of the lock. Exit status 1 if a step fails.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# folders of the image that a step may name, and the stages whose steps install
PLACES = ("/opt", "/src")
STAGES = ("installed", "build")

# of the stage after it: what proves that the result runs
PROOF = "openvocab models pull"


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """All instructions in order, continued lines joined: ("COPY", "app app")."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    split = (line.partition(" ") for line in whole.splitlines() if line.strip())
    return [(word.upper(), " ".join(rest.split())) for word, _, rest in split]


def steps(dockerfile: str) -> list[tuple[str, str]]:
    """What the stages do that install, then the command that proves it."""
    found: list[tuple[str, str]] = []
    stage = ""
    for word, rest in instructions(dockerfile):
        if word == "FROM":
            stage = rest.split()[-1]
        elif stage in STAGES or (word == "ARG" and not stage):
            found.append((word, rest))
        elif word == "RUN" and rest.startswith(PROOF):
            found.append((word, rest.split("&&", maxsplit=1)[0].strip()))
    return found


def moved(text: str, folder: Path) -> str:
    """The image's paths as they are here."""
    return re.sub(rf"(?<![\w.])({'|'.join(PLACES)})(?=[/\s]|$)", rf"{folder}\1", text)


class Builder:
    """Carries steps out in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._place = folder
        home = folder / "home"
        home.mkdir(parents=True)
        (home / "python").symlink_to(sys.executable)  # as the base image calls it
        clean = {"HOME": str(home), "PYTHONNOUSERSITE": "1"}
        self._env = {**os.environ, **clean, "PATH": f"{home}:{os.environ['PATH']}"}
        for name in ("VIRTUAL_ENV", "PYTHONPATH"):
            self._env.pop(name, None)

    def carry_out(self, word: str, rest: str) -> None:
        """One instruction; raises subprocess.CalledProcessError."""
        text = moved(rest, self._folder)
        if word == "ARG":
            name, _, value = text.partition("=")
            self._env.setdefault(name, value.strip('"'))
        elif word == "ENV":
            for pair in shlex.split(text):
                name, _, value = pair.partition("=")
                self._env[name] = value.replace("${PATH}", self._env["PATH"])
        elif word == "WORKDIR":
            self._place = Path(text)
            self._place.mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            self._copy(*text.split())
        elif word == "RUN":
            command = ["bash", "-euo", "pipefail", "-c", text]
            subprocess.run(command, cwd=self._place, env=self._env, check=True)  # noqa: S603
        else:
            raise ValueError(f"{word} in {' or '.join(STAGES)}: this script cannot carry it out")

    def _copy(self, *paths: str) -> None:
        *sources, target = (re.sub(r"\$\{(\w+)\}", lambda m: self._env[m[1]], p) for p in paths)
        for source in sources:
            here = ROOT / source
            there = self._place / target
            if here.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(here, there, ignore=ignored, dirs_exist_ok=True)
            else:
                shutil.copy(here, there / here.name if target.endswith("/") else there)


def main(arguments: list[str]) -> int:
    """Carry out all steps; the exit status."""
    made = None if arguments else tempfile.TemporaryDirectory(prefix="openvocab-image-")
    folder = Path(arguments[0] if made is None else made.name).resolve()
    builder = Builder(folder)
    try:
        for word, rest in steps((ROOT / "Dockerfile").read_text(encoding="utf-8")):
            begun = time.monotonic()
            sys.stdout.write(f"{word} {rest}\n")
            sys.stdout.flush()
            builder.carry_out(word, rest)
            if word == "RUN":
                sys.stdout.write(f"  {time.monotonic() - begun:.0f} s\n")
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"the step ended with status {error.returncode}\n")
        return 1
    finally:
        if made is not None:
            made.cleanup()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
