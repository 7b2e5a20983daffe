"""What runs on a bare GPU machine, as far as it can be seen without one."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu.bundle import PRESENT, packages
from benchmarks.gpu.memory import after_loads, in_own_process

ROOT = Path(__file__).parents[2]

# imports and plugins find what the bundle brings and what such a machine has, and nothing else
BARE = """
import importlib.machinery, importlib.metadata, sys
from packaging.utils import canonicalize_name

there = set(sys.argv[1].split(","))
ours = {"app", "benchmarks", "models", "prompts", "tests"}
hidden = {
    module for module, owners in importlib.metadata.packages_distributions().items()
    if module not in ours and not there.intersection(map(canonicalize_name, owners))
}
assert "xdist" in hidden, "nothing is hidden"

class OnlyThere(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] not in hidden:
            return importlib.machinery.PathFinder.find_spec(name, path, target)

    @classmethod
    def find_distributions(cls, *context):
        found = importlib.machinery.PathFinder.find_distributions(*context)
        return (each for each in found if canonicalize_name(each.name) in there)

place = sys.meta_path.index(importlib.machinery.PathFinder)
sys.meta_path[place] = OnlyThere
import pytest
arguments = ["--collect-only", "-q", "-p", "no:cacheprovider", "-m", "gpu", sys.argv[2]]
assert pytest.main(arguments) == 0
import benchmarks.gpu.measure
"""


def test_the_tests_and_measurements_of_a_gpu_need_only_what_the_bundle_brings() -> None:
    there = ",".join(sorted({*packages(), *PRESENT}))
    completed = subprocess.run(
        [sys.executable, "-c", BARE, there, "tests/models/test_gpu.py"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stdout[-3000:] + completed.stderr[-3000:]
    assert "test_fp32_answers_as_on_a_cpu" in completed.stdout


def test_a_model_that_comes_and_goes_leaves_nothing_resident() -> None:
    first, *later = in_own_process(after_loads, "pictogram", "cpu", 4)
    assert first.on_device == 0
    # the first load pays for what stays: code that is mapped, pools that fill
    assert later[-1].resident < 1.05 * later[0].resident, later
