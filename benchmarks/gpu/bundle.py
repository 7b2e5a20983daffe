"""Fill a folder with the wheels that a bare GPU machine lacks, so that nothing is fetched there.

    python -m benchmarks.gpu.bundle [--to .gpu-bundle]

Such a machine has Python 3.12 with torch and what goes with it, and no package index. Versions are
those that are installed here, which are the lock's. `benchmarks/gpu/run.sh` installs the folder.
"""

import argparse
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDER: Final = Path(__file__).parents[2] / ".gpu-bundle"
PYTHON: Final = "3.12"
LARGEST: Final = 40_000_000

# torch's own world, large and there: torch brings CUDA, timm and transformers what they need
PRESENT: Final = frozenset(
    (
        "torch", "torchvision", "timm", "numpy", "pillow", "tokenizers", "transformers",
        "safetensors", "huggingface-hub", "triton", "sympy", "mpmath", "networkx", "jinja2",
        "markupsafe", "fsspec", "filelock", "regex", "tqdm", "pyyaml",
        "uvloop", "setuptools", "hf-xet", "sentencepiece",
    )
)  # fmt: skip
# the tests that run there, and what their fixtures import
WANTED: Final = ("openvocab", "pytest", "pytest-timeout", "httpx", "hypothesis")


def packages() -> dict[str, str]:
    """Name and version of everything that is needed and not there."""
    versions: dict[str, str] = {}
    waiting = [Requirement(name) for name in WANTED]
    while waiting:
        current = waiting.pop()
        name = canonicalize_name(current.name)
        try:
            there = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(f"{name} is not installed here; run `make .venv/dev`") from None
        extras = [""] if not current.extras else ["", *current.extras]
        requirements = [Requirement(text) for text in there.requires or ()]
        environment = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0"}
        for requirement in requirements:
            marker = requirement.marker
            if marker is None or any(marker.evaluate({**environment, "extra": e}) for e in extras):
                needed = canonicalize_name(requirement.name)
                if needed not in PRESENT and needed not in versions:
                    waiting.append(requirement)
        if name != "openvocab":
            versions[name] = there.version
    return versions


def fill(folder: Path) -> int:
    """Download the wheels; returns their bytes together."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pinned = [f"{name}=={version}" for name, version in sorted(packages().items())]
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in (17, 24, 27, 28, 34, 35)]
    platforms += ["manylinux2014_x86_64", "manylinux1_x86_64"]
    subprocess.run(
        [
            sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download",
            "--no-deps", "--only-binary=:all:", "--implementation", "cp",
            "--python-version", PYTHON, *(f"--platform={platform}" for platform in platforms),
            "--dest", str(folder), *pinned,
        ],
        check=True,
    )  # fmt: skip
    names = {canonicalize_name(re.split(r"-\d", file.name)[0]) for file in folder.glob("*.whl")}
    missing = {text.partition("==")[0] for text in pinned} - names
    if missing:
        raise SystemExit(f"not downloaded: {', '.join(sorted(missing))}")
    return sum(file.stat().st_size for file in folder.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=FOLDER)
    options = parser.parse_args()
    size = fill(options.to)
    count = len(list(options.to.iterdir()))
    print(f"{options.to}: {count} wheels for Python {PYTHON}, {size / 1e6:.1f} MB")
    if size > LARGEST:
        raise SystemExit(f"{size} bytes, the limit is {LARGEST}")


if __name__ == "__main__":
    main()
