"""What `make audit` says of what pip-audit found, and where it could not look."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "docker" / "audit.py"


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def good(name: str) -> dict[str, Any]:
    return {"name": name, "version": "1", "vulns": []}


def bad(name: str, *fixed: str) -> dict[str, Any]:
    return {"name": name, "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": list(fixed)}]}


def unknown(name: str) -> dict[str, Any]:
    return {"name": name, "skip_reason": "not found"}


@pytest.mark.parametrize("advisories", [None, [], [unknown("a"), unknown("b")]])
def test_without_the_data_it_says_so_in_one_line_and_nothing_fails(
    audit: ModuleType, advisories: list[dict[str, Any]] | None
) -> None:
    lines, status = audit.verdict(advisories)
    assert (len(lines), status) == (1, 0)
    assert "nothing was looked up" in lines[0]


def test_a_vulnerability_is_named_with_its_cure_and_fails(audit: ModuleType) -> None:
    lines, status = audit.verdict([good("a"), bad("b", "2", "3"), bad("c"), bad("b", "2", "3")])
    assert status == 1
    assert lines == [
        "audit: b 1: CVE-1, mended in 2, 3",
        "audit: c 1: CVE-1, mended in no release",
        "audit: 3 packages, see above",
    ]


def test_what_could_not_be_looked_up_is_named(audit: ModuleType) -> None:
    lines, status = audit.verdict([good("a"), unknown("c"), unknown("b")])
    assert status == 0
    assert lines == ["audit: not looked up: b, c", "audit: 1 packages, nothing known"]


@pytest.mark.parametrize("program", ["/nowhere/pip-audit", sys.executable])
def test_a_tool_that_cannot_be_run_or_says_nonsense_is_no_data(
    audit: ModuleType, program: str
) -> None:
    assert audit.ask(["requirements.lock"], program) is None
