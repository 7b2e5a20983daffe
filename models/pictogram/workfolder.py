"""The command line of a step of a training: the folder of all that it makes. Knows no step."""

import argparse
import os
from pathlib import Path


def work_parser(about: str | None, model: str) -> argparse.ArgumentParser:
    """A parser with `--work`: what WORK says, else a folder for the model in the user's cache."""
    home = os.environ.get("WORK", str(Path.home() / ".cache" / f"openvocab-{model}"))
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--work", type=Path, default=Path(home))
    return parser
