"""Labelled pictures as people keep them: a folder for each class, or a CSV. Knows no model.

No picture is opened here; whether one can be read shows when it is encoded.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from app.cli.files import Finder, reason
from app.errors import shown
from app.evaluation import tables
from app.evaluation.class_labels import Chosen, Naming
from app.evaluation.data import Dataset
from app.evaluation.tables import BadData
from app.images.names import is_aside

IMAGE: Final = "image"
LABEL: Final = "label"

# what an evaluation leaves in its folder
REPORT: Final = "report.html"

# what ImageNet's folders are called
WORDNET: Final = re.compile(r"n\d{8}")

# what folders with the parts of a data set are called
PARTS: Final = frozenset(
    ("train", "training", "val", "valid", "validation", "dev", "test", "testing", "images")
)

# a picture and the keys (folder or label as written) of what it shows
Row = tuple[Path, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Labelled:
    """What was found: the data, what its labels are embedded as, and what a person should know."""

    dataset: Dataset
    chosen: Chosen
    notes: tuple[str, ...]


def read(source: Path, naming: Naming, *, multi_label: bool, limit: int | None) -> Labelled:
    """The pictures of a folder or CSV. Raises BadData, with a line for a person."""
    notes: list[str] = []
    if source.is_dir():
        rows, keys = _of_folder(source, notes)
        several = multi_label
    else:
        rows, several = _of_csv(source, multi_label, notes)
        keys = list(dict.fromkeys(key for _, row_keys in rows for key in row_keys))
    if not rows:
        raise BadData(f"no pictures found in {source}")
    chosen = naming.chosen(keys)
    notes.extend(chosen.notes)
    if naming.names is None and sum(map(bool, map(WORDNET.fullmatch, keys))) > len(keys) / 2:
        notes.append("these labels are WordNet ids, not words; map them with --names")
    shown_keys = list(dict.fromkeys(key for _, row_keys in rows for key in row_keys))
    if naming.names is None and source.is_dir() and PARTS.issuperset(map(str.lower, shown_keys)):
        parts = ", ".join(map(shown, shown_keys))
        notes.append(
            f"the folders' names ({parts}) are those of parts of a data set, not of classes; "
            f"evaluate one of them: {source / shown_keys[-1]}"
        )
    dataset = _dataset(rows, chosen, several)
    if limit is not None:
        dataset = dataset.subset(np.asarray(_some(dataset, source, limit), np.int64))
    empty = [dataset.classes[place] for place in np.flatnonzero(dataset.counts == 0)]
    if empty:
        what = f"{_counted(len(empty), 'class')} without pictures, still answers"
        notes.append(f"{what}: {_named_first(empty)}")
    return Labelled(dataset, chosen, tuple(notes))


def _of_folder(source: Path, notes: list[str]) -> tuple[list[Row], list[str]]:
    try:
        inside = sorted(source.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise BadData(f"{source}: {reason(error)}") from None
    folders = [path for path in inside if path.is_dir() and not is_aside(path.name)]
    if not folders:
        raise BadData(f"{source} has no folder in it: one for each class is needed, or a CSV file")
    finder = Finder()
    rows: list[Row] = []
    keys: list[str] = []
    reports: list[str] = []
    for folder in folders:
        pictures = list(finder.found([os.fspath(folder)]))
        if not pictures and any(folder.rglob(REPORT)):
            reports.append(folder.name)
            continue
        keys.append(folder.name)
        for file in pictures:
            if file.error is not None:
                raise BadData(f"{file.path}: {file.error}")
            rows.append((Path(file.path), (folder.name,)))
    if reports:
        what = f"{_counted(len(reports), 'folder')} with a report and without pictures"
        notes.append(f"{what} skipped: {_named_first(reports)}")
    beside = sum(1 for _ in Finder(recursive=False).found([os.fspath(source)]))
    if beside:
        notes.append(f"{_counted(beside, 'picture')} next to the class folders skipped")
    notes.extend(finder.passed_over())
    return rows, keys


def _of_csv(source: Path, multi_label: bool, notes: list[str]) -> tuple[list[Row], bool]:
    """The rows, one a picture, and whether pictures have several labels."""
    folder = source.parent
    keys_by_name: dict[str, dict[str, None]] = {}
    begun: dict[str, int] = {}  # the line of each picture
    empty: int | None = None
    several_from: int | None = None  # the first line that gives a picture more than one label
    again = 0
    for line, (image, cell) in tables.rows(source, IMAGE, LABEL):
        name = _named(folder, image)
        if not name or "\0" in name:
            raise BadData(f"{source}, line {line}, column {IMAGE}: {shown(image)} is not a file")
        keys = tables.texts(cell, f"{source}, line {line}, column {LABEL}")
        known = keys_by_name.setdefault(name, {})
        if begun.setdefault(name, line) != line:
            again += not keys or all(key in known for key in keys)
        empty = line if not keys and empty is None else empty
        known.update(dict.fromkeys(keys))
        if several_from is None and len(known) > 1:
            several_from = line
    several = multi_label or several_from is not None
    if empty is not None and not several:
        raise BadData(
            f"{source}, line {empty}, column {LABEL}: is empty; with --multi-label a picture "
            "may have none"
        )
    if again:
        notes.append(f"{_counted(again, 'line')} repeated an earlier line")
    if several and not multi_label:
        count = sum(len(known) > 1 for known in keys_by_name.values())
        have = "picture has" if count == 1 else "pictures have"
        notes.append(
            f"{count:,} {have} several labels (the first in line {several_from}), so each label is "
            "scored by itself, as with --multi-label"
        )
    return [(folder / name, tuple(keys)) for name, keys in keys_by_name.items()], several


def _named(folder: Path, image: str) -> str:
    """A picture's name below the folder; backslashes are those of Windows where there is no such
    file.
    """
    name = image.strip()
    # a name may hold one here, but hardly ever does
    windows = "\\" in name and "\0" not in name and not os.path.lexists(folder / name)
    return name.replace("\\", "/") if windows else name


def _dataset(rows: Sequence[Row], chosen: Chosen, several: bool) -> Dataset:
    truth = np.zeros((len(rows), len(chosen.definition.labels)), bool)
    for place, (_, keys) in enumerate(rows):
        truth[place, [chosen.places[key] for key in keys]] = True
    return Dataset(chosen.definition.labels, tuple(file for file, _ in rows), truth, several)


def _some(dataset: Dataset, source: Path, limit: int) -> list[int]:
    """Places of up to `limit` pictures of each class, or in all where they have several labels.

    A hash of their names decides: the same each time, and not the first of a burst.
    """
    root = source if source.is_dir() else source.parent
    names = [os.fsencode(os.path.relpath(file, root)) for file in dataset.files]
    order = sorted(range(len(names)), key=lambda place: hashlib.sha256(names[place]).digest())
    if dataset.multi_label:
        return sorted(order[:limit])
    targets = dataset.targets[order]
    chosen = [np.flatnonzero(targets == c)[:limit] for c in range(len(dataset.classes))]
    return sorted(order[place] for place in np.concatenate(chosen).tolist())


def _named_first(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:3])) + (", ..." if len(names) > 3 else "")


def _counted(count: int, what: str) -> str:
    plural = "es" if what.endswith("s") else "s"
    return f"{count:,} {what}{plural if count != 1 else ''}"
