"""What is installed is what was locked, and nothing that is read can run."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = tuple(f"requirements{part}.lock" for part in ("", "-ray", "-dev", "-build"))
SHIPPED = ("app", "models", "prompts", "docker")

# modules that run what they read
UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}


def sources() -> list[Path]:
    return sorted(path for folder in SHIPPED for path in (ROOT / folder).rglob("*.py"))


def faults(source: str) -> Iterator[str]:
    """What in this code would run, or let run, what it reads."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (
                alias.name for alias in node.names if alias.name.split(".")[0] in UNPICKLERS
            )
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNPICKLERS:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            function = ast.unparse(node.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if function in ("eval", "exec", "__import__", "os.system", "os.popen"):
                yield function
            if function == "torch.load" and keywords.get("weights_only") != "True":
                yield "torch.load without weights_only=True"
            if function.endswith("yaml.load") or keywords.get("allow_pickle") == "True":
                yield function
            if keywords.get("shell") == "True":
                yield f"{function} with a shell"


def test_nothing_that_is_read_can_run() -> None:
    by_path = {path: list(faults(path.read_text(encoding="utf-8"))) for path in sources()}
    assert len(by_path) > 80
    assert {path: problems for path, problems in by_path.items() if problems} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "import joblib.numpy_pickle", "eval(text)",
        "torch.load(path)", "torch.load(path, weights_only=False)", "yaml.load(text)",
        "numpy.load(path, allow_pickle=True)", "subprocess.run(line, shell=True)",
    ],
)  # fmt: skip
def test_what_could_run_would_be_found(source: str) -> None:
    assert list(faults(source))


def test_what_only_looks_like_it_is_fine() -> None:
    assert not list(faults("model.eval(); torch.load(path, weights_only=True); yaml.safe_load(x)"))


def entries(text: str) -> list[str]:
    """Of a lock: each package with its hashes."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def requirements(lock: str) -> dict[str, str]:
    """By name: the whole entry, hashes included."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    return {re.split(r"[=\[ ;<>~!@]", entry)[0]: entry for entry in entries(text)}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_one_version_and_its_hashes(lock: str) -> None:
    pins = requirements(lock)
    assert len(pins) > 20
    for name, entry in pins.items():
        assert re.match(rf"{re.escape(name)}(\[[\w,-]+\])?==\d", entry), entry[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), name
        assert "://" not in entry, name


def test_whatever_the_service_needs_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = {name.replace("_", "-").lower() for name in requirements("requirements.lock")}
    names = {
        re.split(r"[\[<>=~!]", dependency)[0].replace("_", "-")
        for dependency in project["dependencies"]
    }
    assert names <= locked, "run make lock"
    tools = requirements("requirements-build.lock")
    assert {"cyclonedx-bom", "pip-audit"} <= set(tools)


def test_whatever_is_installed_from_a_lock_is_held_to_its_hashes() -> None:
    for file in ("Makefile", "Dockerfile"):
        text = (ROOT / file).read_text(encoding="utf-8").replace("\\\n", " ")
        for line in text.splitlines():
            if re.search(r"install .*-r (.*\.lock|/dev/stdin)", line):
                assert "--require-hashes" in line, line


@pytest.mark.parametrize(
    ("lock", "other"),
    [
        ("requirements.lock", "requirements-light.lock"),
        ("requirements-dev.lock", "requirements.lock"),
    ],
)
def test_make_installs_side_by_side_what_is_the_whole_lock_together(lock: str, other: str) -> None:
    rule = f"--eval=left: ; @$(call without,{lock},{other})"
    completed = subprocess.run(
        ["make", "--silent", rule, "left"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    left = entries(completed.stdout)
    installed = entries((ROOT / other).read_text(encoding="utf-8"))
    whole = entries((ROOT / lock).read_text(encoding="utf-8"))
    assert set(left) | {line for line in installed if line in whole} == set(whole)
    assert {line.split("==")[0] for line in left}.isdisjoint(
        line.split("==")[0] for line in installed
    )


def test_the_linter_looks_for_what_is_unsafe() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lint = project["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]  # bandit's rules
    # asserts narrow types here; no other of those rules is off for what is shipped
    assert [rule for rule in lint["ignore"] if re.match(r"S\d", rule)] == ["S101"]
    off = lint["per-file-ignores"]
    assert not [paths for paths in off if paths.startswith(("app", "prompts", "docker"))]
