"""Write docs/performance.md and docs/operations.md from the results: what is between their markers.

    python -m benchmarks.report

Text outside the markers is written by hand and stays. What has no result stands as not measured.
Results of another processor, in a folder of their own, get markers in a section of their own.
"""

import json
import re
from pathlib import Path
from typing import Any, Final

from benchmarks import pages, plots
from benchmarks.bars import BARS, GPU_BARS
from benchmarks.folders import RESULTS
from benchmarks.pages import NOT_MEASURED, cell, table
from benchmarks.ray import sizing
from benchmarks.record import Cell, read
from benchmarks.rounds import figure

PAGE: Final = Path(__file__).parents[1] / "docs" / "performance.md"
OPERATIONS: Final = PAGE.with_name("operations.md")


def filled(page: str, results: Path = RESULTS) -> str:
    """The page with everything between its markers made anew."""
    return pages.filled(page, lambda name: _content(name, results))


def placed(page: str, results: Path = RESULTS) -> str:
    """The page with markers for all results in folders, in a section of each, where they lack."""
    for path in sorted(results.glob("*/*-*.json")):
        folder = path.parent.name
        name = f"{folder}/{path.stem.replace('-', '.', 1)}"
        if f"<!-- from: {name} -->" in page:
            continue
        heading = f"## On another processor: {folder}\n"
        if heading not in page:
            page = f"{page.rstrip()}\n\n{heading}\n{_markers(f'{folder}/machine')}"
        before, _, after = page.partition(heading)
        section, next_heading, rest = after.partition("\n## ")
        section = f"{section.rstrip()}\n\n{_markers(name)}"
        page = f"{before}{heading}\n{section.lstrip()}{next_heading}{rest}"
    return page


def _markers(name: str) -> str:
    return f"<!-- from: {name} -->\n<!-- end -->\n"


def write(page: Path = PAGE, results: Path = RESULTS) -> None:
    """Fill the page where it stands, and draw its plots beside it."""
    text = page.read_text(encoding="utf-8")
    if page.name == PAGE.name:
        text = placed(text, results)
    for name in re.findall(r"<!-- from: (\S+) -->", text):
        document = _document(name, results)
        if document and document.get("plot"):
            try:
                plots.save(document["plot"], document["title"], page.parent / _picture(name))
            except plots.NoPlotter as missing:
                print(f"no plot of {name}: {missing}")
    page.write_text(filled(text, results), encoding="utf-8")


def _content(name: str, results: Path) -> str:
    if name == "bars":
        return _bars(results)
    if name == "gpu":
        return _gpu(results)
    folder, _, of_folder = name.rpartition("/")
    if of_folder == "machine":
        return _machine(results / folder)
    if of_folder == "sizing":
        measured = _document(f"{name.removesuffix('sizing')}growth.workers", results)
        return sizing.table(measured) or NOT_MEASURED
    document = _document(name, results)
    if document is None:
        return f"{name}: {NOT_MEASURED} (`python -m benchmarks.run --only {name}`)"
    parts = [f"**{document['title']}**", table(document["columns"], document["rows"])]
    if document.get("plot"):
        parts.append(f"![{document['title']}]({_picture(name)})")
    if document["notes"]:
        parts.append("\n".join(f"- {note}" for note in document["notes"]))
    link = f"[{name.replace('.', '-')}.json](../benchmarks/results/{name.replace('.', '-')}.json)"
    parts.append(f"`{document['command']}`, {document['date']}, {link}")
    return "\n\n".join(parts)


def _bars(results: Path) -> str:
    values: dict[str, float] = {}
    for path in sorted(results.glob("*-*.json")):
        values |= json.loads(path.read_text(encoding="utf-8")).get("bars", {})
    rows: list[list[Cell]] = []
    for key, bar in BARS.items():
        if key in values:
            verdict = "met" if bar.met(values[key]) else "**not met**"
            rows.append([bar.name, bar.target, f"{figure(values[key])}{bar.unit}", verdict])
        else:
            rows.append([bar.name, bar.target, NOT_MEASURED, ""])
    return table(["measurement", "target", "measured", ""], rows)


def _gpu(results: Path) -> str:
    path = results / "gpu.json"
    if not path.exists():
        return table(
            ["on a data-centre GPU", "target", "measured"],
            [[name, bar, NOT_MEASURED] for name, bar in GPU_BARS.items()],
        )
    document = json.loads(path.read_text(encoding="utf-8"))
    verdicts = {True: "met", False: "**not met**", None: ""}
    rows: list[list[Cell]] = [
        [row["name"], _bar(row), f"{cell(row['value'])} {row['unit']}", verdicts[row["met"]]]
        for row in document["rows"]
    ]
    rates = table([f"on {document['device']}", "target", "measured", ""], rows)
    return f"{rates}\n\n{document['date']}, [gpu.json](../benchmarks/results/gpu.json)"


def _bar(row: dict[str, Any]) -> str:
    return "" if row["bar"] is None else f"{cell(row['bar'])} {row['unit']}"


def _machine(results: Path) -> str:
    """The machines and versions of the results: one line each where they agree."""
    stems: dict[str, list[str]] = {}
    for path in sorted(results.glob("*-*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        if "machine" not in document:
            continue
        machine, versions = document["machine"], document["versions"]
        line = (
            f"{machine['processor']}, {machine['cores']} cores "
            f"({', '.join(machine['instructions'])}), {machine['memory_gb']} GB, "
            f"{machine['system']}; "
            + ", ".join(f"{package} {version}" for package, version in versions.items())
        )
        stems.setdefault(line, []).append(path.stem)
    if not stems:
        return NOT_MEASURED
    if len(stems) == 1:
        return f"All on one machine, unless the text says otherwise: {next(iter(stems))}."
    return "\n".join(f"- {', '.join(names)}: {line}." for line, names in stems.items())


def _document(name: str, results: Path) -> dict[str, Any] | None:
    """The result of PART.PIECE; with FOLDER/ in front, one of another machine, kept there."""
    part, _, piece = name.partition(".")
    return read(part, piece, results) if piece else None


def _picture(name: str) -> str:
    return f"plots/{name.replace('.', '-')}.svg"


if __name__ == "__main__":
    write()
    write(OPERATIONS)
