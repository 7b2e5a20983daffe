"""Write docs/reliability.md from the results of what was tried: tables between the page's markers.

    python -m benchmarks.reliability.page

Text outside the markers is written by hand and stays. What has no result stands as not measured.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks import pages
from benchmarks.folders import RESULTS
from benchmarks.pages import NOT_MEASURED, table
from benchmarks.record import Cell, Result, machine, versions

PAGE: Final = Path(__file__).parents[2] / "docs" / "reliability.md"

# files that cost most, of those made to cost much
COSTLIEST: Final = 8

Document = dict[str, Any]


def write(
    name: str,
    subject: str,
    tables: Sequence[Result],
    seconds: float,
    folder: Path = RESULTS,
    module: str = "",
) -> Path:
    """Write NAME.json, measured by `module`, or else by `benchmarks.reliability.NAME`, for the page
    to show."""
    path = folder / f"{name}.json"
    document = {
        "what": subject,
        "command": f"python -m {module or f'benchmarks.reliability.{name}'}",
        "date": datetime.now(UTC).date().isoformat(),
        "took_seconds": round(seconds, 1),
        "machine": machine(),
        "versions": versions(),
        "tables": [asdict(result) for result in tables],
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return path


def filled(page: str, results: Path = RESULTS) -> str:
    """The page with everything between its markers made anew."""
    return pages.filled(page, lambda name: _content(name, results))


def _content(name: str, results: Path) -> str:
    names, show = SECTIONS[name]
    by_name = {name: _read_document(results / f"{name}.json") for name in names}
    missing = [name for name, document in by_name.items() if document is None]
    if missing:
        return f"{', '.join(missing)}: {NOT_MEASURED}"
    documents = [document for document in by_name.values() if document is not None]
    links = ", ".join(f"[{name}.json](../benchmarks/results/{name}.json)" for name in names)
    dates = ", ".join(sorted({document["date"] for document in documents}))
    return f"{show(documents)}\n\n{dates}, {links}"


def _read_document(path: Path) -> Document | None:
    if not path.exists():
        return None
    document: Document = json.loads(path.read_text(encoding="utf-8"))
    return document


def tables(documents: list[Document]) -> str:
    """Those of documents that `write` wrote."""
    parts = []
    for result in (result for document in documents for result in document["tables"]):
        parts += [f"**{result['title']}**", table(result["columns"], result["rows"])]
        if result["notes"]:
            parts.append("\n".join(f"- {note}" for note in result["notes"]))
    return "\n\n".join(parts)


def _crashes(documents: list[Document]) -> str:
    columns = ["store", "kill -9", "acknowledged changes", "lost", "wrong", "never built"]
    keys = ("store", "kills", "changes", "lost", "wrong", "not_built")
    return table(columns, [[document[key] for key in keys] for document in documents])


def _writers(documents: list[Document]) -> str:
    keys = ("kills", "acknowledged", "lost", "wrong", "unreadable")
    columns = ["kill -9", "acknowledged changes", "lost", "wrong", "file unreadable"]
    return table(columns, [[document[key] for key in keys] for document in documents])


def _redis(documents: list[Document]) -> str:
    (document,) = documents
    columns = [
        "Redis is",
        "requests",
        "not 200",
        "p50 ms",
        "slowest ms",
        "/readyz",
        "recovered after s",
    ]
    keys = ("fault", "requests", "not_answered_200", "median_ms", "slowest_ms", "readyz",
            "healed_after_seconds")  # fmt: skip
    rows: list[list[Cell]] = [[row[key] for key in keys] for row in document["faults"]]
    usual = document["faults"][0]["usual_median_ms"]
    bound = document["store_timeout_ms"] + document["margin_ms"]
    note = (
        f"Two clients; without a fault the median is {usual:g} ms. The limit is {bound:g} ms more."
    )
    return f"{table(columns, rows)}\n\n- {note}"


def _fuzz(documents: list[Document]) -> str:
    (fuzz,) = documents
    columns = ["damaged images", "cases", "unexpected outcomes", "slowest s", "peak MB"]
    rows: list[list[Cell]] = [
        [about, fuzz[key]["cases"], len(fuzz[key]["unexpected"]), fuzz[key]["slowest"][0],
         round(fuzz[key]["peak_mb"])]
        for about, key in (("decoded", "decoded"), ("sent to a live server", "sent"))
    ]  # fmt: skip
    outcomes = ", ".join(f"{n:,} {outcome}" for outcome, n in fuzz["decoded"]["outcomes"].items())
    return f"{table(columns, rows)}\n\n- Of those decoded: {outcomes}. Seed {fuzz['seed']}."


def _bombs(documents: list[Document]) -> str:
    (document,) = documents
    costly = sorted(document["bombs"], key=lambda bomb: -float(bomb["memory_mb"]))[:COSTLIEST]
    keys = ("name", "bytes", "cpu_seconds", "memory_mb", "outcome")
    rows: list[list[Cell]] = [[bomb[key] for key in keys] for bomb in costly]
    note = f"The {len(rows)} of {len(document['bombs'])} files that take the most memory"
    most = max(bomb["cpu_seconds"] for bomb in document["bombs"])
    bombs_table = table(["file", "bytes", "CPU s", "MB", "outcome"], rows)
    return f"{bombs_table}\n\n- {note}; none takes more than {most:g} s."


SECTIONS: Final[dict[str, tuple[tuple[str, ...], Callable[[list[Document]], str]]]] = {
    "overload": (("overload",), tables),
    "restarts": (("restarts",), tables),
    "crashes": (("crash-sqlite", "crash-redis"), _crashes),
    "writers": (("faults-sqlite",), _writers),
    "redis": (("faults-redis",), _redis),
    "amplification": (("amplification",), tables),
    "proxied": (("proxied",), tables),
    "nodes": (("nodes",), tables),
    "fuzz": (("fuzz",), _fuzz),
    "bombs": (("bombs",), _bombs),
}


def main() -> None:
    """Fill the page where it stands."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def figures(page: str) -> set[str]:
    """The names of the sections that a page has."""
    return set(re.findall(r"<!-- from: (\S+) -->", page))


if __name__ == "__main__":
    main()
