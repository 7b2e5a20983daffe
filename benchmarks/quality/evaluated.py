"""What `openvocab eval` says of a folder, as tables. Knows nothing of pages or live servers."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.record import Cell, Result

TEMPLATES: Final = ("none", "simple", "imagenet")
SHOTS: Final = "0,1,2,4"

# pairs that are shown
CONFUSED: Final = 8


def evaluated(folder: Path, model: str, about: str) -> list[Result]:
    """What `openvocab eval` says of the folder; `about` names its {pictures} and {classes}."""
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-c", "from app.__main__ import app; app()", "eval", str(folder)]
        command += [
            "--model",
            model,
            "--templates",
            ",".join((TEMPLATES[0], model, *TEMPLATES[1:])),
        ]
        command += ["--search-templates", "--shots", SHOTS, "--calibrate", "--output", name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        report = json.loads((Path(name) / "report.json").read_text(encoding="utf-8"))
    sections = report["sections"]
    return [
        _zero_shot(report, about),
        _confused(report),
        _templates(sections["templates"], sections["template_search"]),
        _shots(sections["shots"]),
        _calibrated(sections["calibration"]["calibration"]),
    ]


def _zero_shot(report: dict[str, Any], about: str) -> Result:
    figures, data = report["figures"], report["data"]
    rows: list[list[Cell]] = [
        ["top-1", _share(figures["top1"])],
        ["top-5", _share(figures["top5"])],
        ["mean of the classes", f"{figures['mean_per_class']:.1%}"],
        ["mean average precision", f"{figures['map']:.1%}"],
        ["expected calibration error", f"{figures['ece']:.1%}"],
    ]
    data_text = about.format(pictures=f"{data['pictures']:,}", classes=data["classes"])
    return Result(f"Zero-shot: {data_text}, bare labels", ["figure", "95 % interval"], rows)


def _confused(report: dict[str, Any]) -> Result:
    rows: list[list[Cell]] = [
        [pair["truth"], pair["predicted"], pair["count"], f"{pair['share']:.0%}"]
        for pair in report["confused"][:CONFUSED]
    ]
    return Result(
        "Most confused", ["true label", "predicted", "pictures", "share of the class"], rows
    )


def _templates(section: dict[str, Any], search: dict[str, Any]) -> Result:
    against = {difference["name"]: difference for difference in section["to_reference"]}
    rows: list[list[Cell]] = []
    for entry in section["sets"]:
        difference = against.get(entry["name"])
        rows.append(
            [entry["name"], _share(entry["top1"]), _difference(difference) if difference else ""]
        )
    best = f"against `{section['reference']}`, points"
    return Result(
        "Templates",
        ["templates", "top-1", best],
        rows,
        [*section["words"][1:3], _search_note(search)],
    )


def _search_note(search: dict[str, Any]) -> str:
    chosen = ", ".join(f"`{template}`" for template in search["templates"])
    among = f"Searched among {search['candidates']} templates on one half: {chosen}."
    return f"{among} {search['words'][0]}"


def _calibrated(calibration: dict[str, Any]) -> Result:
    before, after, held_out = calibration["before"], calibration["after"], calibration["held_out"]
    rows: list[list[Cell]] = [
        ["expected calibration error", f"{before['ece']:.1%}", f"{after['ece']:.1%}"],
        ["negative log likelihood", f"{before['nll']:.3f}", f"{after['nll']:.3f}"],
        ["pictures answered", "100 %", f"{held_out['coverage']:.1%}"],
        ["wrong answers", f"{1 - before['accuracy']:.1%}", f"{held_out['risk']:.1%}"],
    ]
    title = f"Calibration and abstaining among all {len(calibration['thresholds'])} labels"
    note = f"On pictures not used for fitting; temperature {calibration['temperature']:.2f}."
    return Result(title, ["", "before", "after"], rows, [note])


def _shots(section: dict[str, Any]) -> Result:
    rows: list[list[Cell]] = [["0", f"{section['zero_shot']['value']:.1%}", "", ""]]
    probe, blend = (section["curves"][name]["points"] for name in ("probe", "blend"))
    for probe_point, blend_point in zip(probe, blend, strict=True):
        rows.append([str(probe_point["shots"]), "", _share(probe_point), _share(blend_point)])
    columns = ["pictures per class", "zero-shot", "linear probe", "text and pictures"]
    note = (
        f"{section['test_pictures']} other pictures are for testing; mean and 95 % interval of "
        f"{section['draws']} draws. Classes with fewer pictures give all they have."
    )
    return Result("Zero-shot, few-shot, linear probe", columns, rows, [note])


def _share(estimate: dict[str, Any]) -> str:
    low, high = estimate["interval95"]
    return f"{estimate['value']:.1%} ({100 * low:.1f} to {100 * high:.1f})"


def _difference(estimate: dict[str, Any]) -> str:
    low, high = (100 * bound for bound in estimate["interval95"])
    return f"{100 * estimate['value']:+.1f} ({low:+.1f} to {high:+.1f}): {estimate['verdict']}"
