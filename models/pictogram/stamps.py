"""Tux Paint's stamps: photographs of single things, and cartoons, both only for measuring.

A stamp's label is what its description calls it ("A red apple." is a red apple). Knows the
package's files; knows no model.
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from sources import single_source

STAMPS = "usr/share/tuxpaint/stamps"
TABLE = Path(__file__).with_name("photographs.csv")
# letters, signs and what is drawn
NO_PHOTOGRAPH = re.compile(
    r"cartoon|symbols|roadsigns|flags|_mirror|_flip|houses|monuments|seasonal"
)
CALLED = re.compile(r"^(?:An?|Our|The|Two|Some)\s+(.+)$")
LONGEST = 5  # words; longer ones are sentences


@dataclass(frozen=True, slots=True)
class Labelled:
    """Pictures, and what each is called."""

    paths: list[Path]
    labels: list[str]


def _label(description: str) -> str | None:
    text = re.sub(r"\(.*?\)", "", description)
    text = re.sub(r"[“”']", "", text).strip().rstrip(".! ").strip()
    match = CALLED.match(text)
    if match is None:
        return None
    label = re.split("[,—]", match.group(1))[0].lower()
    return label if len(label.split()) <= LONGEST else None


def _stamps(folder: Path, cartoons: bool) -> Labelled:
    paths, labels = [], []
    for path in sorted(folder.rglob("*.png")):
        name = str(path.relative_to(folder))
        cartoon = "cartoon" in name and not re.search("symbols|seasonal|_mirror|_flip", name)
        if not (cartoon if cartoons else NO_PHOTOGRAPH.search(name) is None):
            continue
        words = path.with_suffix(".txt")
        label = _label(words.read_text("utf-8").splitlines()[0]) if words.exists() else None
        if label is not None:
            paths.append(path)
            labels.append(label)
    return Labelled(paths, labels)


def photographs(work: Path) -> Labelled:
    """Every stamp that is a photograph and has a name."""
    return _stamps(work / single_source("photographs").name / STAMPS, cartoons=False)


def cartoons(work: Path) -> Labelled:
    return _stamps(work / single_source("photographs").name / STAMPS, cartoons=True)


def chosen(work: Path) -> Labelled:
    """The photographs of photographs.csv, with everyday labels chosen by hand."""
    with TABLE.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    folder = work / single_source("photographs").name / STAMPS
    return Labelled([folder / r["file"] for r in rows], [r["label"] for r in rows])
