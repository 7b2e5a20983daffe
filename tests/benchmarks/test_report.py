"""The page of measurements: made from the results, complete, and honest about what is missing."""

import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import plots, record, report
from benchmarks.bars import BARS
from benchmarks.quality import drawings, photographs
from benchmarks.record import Plot, Result
from benchmarks.run import PARTS, pieces

PAGE = report.PAGE.read_text(encoding="utf-8")

RESULT = Result(
    "A title",
    ["side", "ms", "requests"],
    [["ours", 1.25, 12_000], ["theirs", None, 3]],
    ["A note."],
    {"limit.labels": 1.01, "infinity_emb.1": 1.5},
    Plot("labels", "ms", {"ours": [(1, 2.0), (1_000, 3.0)]}),
)
TEMPLATE = "before\n<!-- from: {} -->\nold\n<!-- end -->\nafter\n"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    record.write("limit", "labels", RESULT, 12.0, tmp_path)
    return tmp_path


def test_the_page_is_what_the_results_say() -> None:
    assert report.filled(PAGE) == PAGE, "run python -m benchmarks.report"


@pytest.mark.parametrize("measured", [drawings, photographs])
def test_the_models_card_is_what_was_measured_on_pictures_it_never_saw(
    measured: ModuleType,
) -> None:
    card = measured.CARD.read_text(encoding="utf-8")
    assert drawings.filled(card) == card, f"run python -m {measured.__name__}"


def test_every_measurement_has_its_place_on_the_page() -> None:
    places = re.findall(r"<!-- from: (\S+) -->", PAGE)
    expected = [f"{part}.{name}" for part, name, _ in pieces(",".join(PARTS))]
    elsewhere = {place for place in places if "/" in place}
    assert sorted(set(places) - elsewhere) == sorted([*expected, "machine", "bars", "gpu"])
    assert {place.partition("/")[2] for place in elsewhere} <= {*expected, "machine"}


def test_every_plot_of_a_result_lies_beside_the_page() -> None:
    for path in report.RESULTS.glob("*-*.json"):
        if json.loads(path.read_text(encoding="utf-8")).get("plot"):
            assert (report.PAGE.parent / "plots" / f"{path.stem}.svg").exists()


def test_a_result_becomes_a_table_between_its_markers(results: Path) -> None:
    page = report.filled(TEMPLATE.format("limit.labels"), results)
    assert "| ours | 1.25 | 12,000 |\n| theirs | not measured | 3 |" in page
    assert "- A note." in page
    assert "plots/limit-labels.svg" in page
    assert "old" not in page
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert report.filled(page, results) == page


def test_results_of_another_processor_get_a_section_of_their_own(results: Path) -> None:
    page = TEMPLATE.format("amx/peers.small") + "\n## The end\n"
    for part, piece in (("peers", "small"), ("limit", "cpu"), ("levers", "kernels")):
        folder = results / ("arm" if part == "levers" else "amx")
        folder.mkdir(exist_ok=True)
        record.write(part, piece, RESULT, 12.0, folder)
    page = report.filled(report.placed(page, results), results)
    assert page.startswith("before\n<!-- from: amx/peers.small -->")  # what has a place keeps it
    order = re.findall(r"^## .*|from: (?:\S+)", page, re.MULTILINE)
    assert order == [
        "from: amx/peers.small", "## The end",
        "## On another processor: amx", "from: amx/machine", "from: amx/limit.cpu",
        "## On another processor: arm", "from: arm/machine", "from: arm/levers.kernels",
    ]  # fmt: skip
    assert page.count("| ours | 1.25 | 12,000 |") == 3
    assert page.count("All on one machine") == 2
    assert report.filled(report.placed(page, results), results) == page
    # one measurement more on the first of them
    record.write("peers", "variants", RESULT, 12.0, results / "amx")
    assert report.placed(page, results).index("amx/peers.variants") < page.index("processor: arm")


def test_all_results_of_other_processors_are_on_the_page() -> None:
    assert report.placed(PAGE) == PAGE, "run python -m benchmarks.report"


def test_what_has_no_result_stands_as_not_measured(tmp_path: Path) -> None:
    page = report.filled(TEMPLATE.format("growth.sizes"), tmp_path)
    assert "not measured (`python -m benchmarks.run --only growth.sizes`)" in page
    gpu = report.filled(TEMPLATE.format("gpu"), tmp_path)
    assert gpu.count("not measured") == len(report.GPU_BARS)


def test_bars_are_met_missed_or_not_measured(results: Path) -> None:
    page = report.filled(TEMPLATE.format("bars"), results)
    assert "| 1,000 labels, compared with 2, warm, p50 | under 1.05x | 1.01x | met |" in page
    assert "| infinity_emb, 1 connection | at least 3x | 1.50x | **not met** |" in page
    assert page.count("not measured") == len(BARS) - 2


def test_a_gpu_result_is_shown_with_its_verdicts(tmp_path: Path) -> None:
    rows = [
        {"name": "a rate", "value": 51.234, "unit": "%", "bar": 45.0, "met": True},
        {"name": "a time", "value": 7.0, "unit": "ms", "bar": 6.0, "met": False},
        {"name": "something", "value": 3.0, "unit": "s", "bar": None, "met": None},
    ]
    document = {"date": "2026-01-01", "device": "a card", "rows": rows}
    (tmp_path / "gpu.json").write_text(json.dumps(document), encoding="utf-8")
    page = report.filled(TEMPLATE.format("gpu"), tmp_path)
    assert "| a rate | 45.0 % | 51.2 % | met |" in page
    assert "| a time | 6.00 ms | 7.00 ms | **not met** |" in page
    assert "| something |  | 3.00 s |  |" in page


def test_a_plot_is_the_same_twice(results: Path) -> None:
    pytest.importorskip("matplotlib")
    document = record.read("limit", "labels", results)
    assert document is not None
    first = plots.draw(document["plot"], document["title"])
    assert first == plots.draw(document["plot"], document["title"])
    assert "<dc:date>" not in first
