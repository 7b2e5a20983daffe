"""SECURITY.md, docs/reliability.md and docs/inputs.md say nothing that is not so."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.reliability import page as reliability

ROOT = Path(__file__).parents[2]
SECURITY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
PAGE = reliability.PAGE.read_text(encoding="utf-8")
LOSSES = ("lost", "wrong", "not_built", "not_answered_200", "unreadable", "unexpected")
INPUTS = (ROOT / "docs" / "inputs.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", SECURITY + INPUTS)))


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_every_test_that_a_page_names_exists(file: str, test: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_line_of_the_threat_model_names_a_test() -> None:
    measures = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in SECURITY.partition("## Threats and countermeasures")[2].splitlines()[4:]
        if line.startswith("| ") and not line.startswith("| **")
    ]
    assert len(measures) > 30
    assert [row for row in measures if len(row) != 3 or "`tests/" not in row[2]] == []


def test_every_complaint_has_its_outcome_and_a_test() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in INPUTS.splitlines()
        if line.startswith("| ") and not line.startswith("| complaint")
    ]
    assert len(rows) >= 53
    assert [row for row in rows if len(row) != 3 or not row[1] or "`tests/" not in row[2]] == []


def test_the_page_is_what_the_results_say() -> None:
    assert reliability.filled(PAGE) == PAGE, "run python -m benchmarks.reliability.page"


def test_every_result_has_its_place_on_the_page() -> None:
    assert reliability.figures(PAGE) == set(reliability.SECTIONS)


def test_no_result_tells_of_a_loss() -> None:
    def losses(value: Any) -> list[str]:
        if isinstance(value, dict):
            losses_here = [f"{k}: {v}" for k, v in value.items() if k in LOSSES and v]
            return losses_here + [loss for value in value.values() for loss in losses(value)]
        return (
            [loss for value in value for loss in losses(value)] if isinstance(value, list) else []
        )

    names = {name for names, _ in reliability.SECTIONS.values() for name in names}
    for name in names:
        path = reliability.RESULTS / f"{name}.json"
        if path.exists():
            assert losses(json.loads(path.read_text(encoding="utf-8"))) == [], name


def test_what_was_not_tried_stands_as_not_measured(tmp_path: Path) -> None:
    page = reliability.filled("<!-- from: restarts -->\nold\n<!-- end -->\n", tmp_path)
    assert "restarts: not measured" in page
    assert "old" not in page
