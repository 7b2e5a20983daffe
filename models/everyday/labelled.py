"""Photographs with labels: seven openly licensed sets, by what people call the things in them.

labels.csv says which folders of which set are used, and the names, the commonest first. Knows the
sets' own files and labelled.json; decodes no picture.
"""

import ast
import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from captions import Concepts
from drawer import Drawer
from holdout import HoldOut
from numpy.typing import NDArray
from pictures import EMOJI_KEY
from sources import Source, checkout, of_kind

TABLE = Path(__file__).with_name("labels.csv")
# where a set's repository has its pictures
FOLDERS = {
    "animals": "images/animals",
    "caltech-101": "101_ObjectCategories",
    "clothes": ".",
    "flowers": "dataset",
    "groceries": "dataset",
    "ingredients": "datasets/yolo_single_ingredient_dataset",
    "tools": "aiml20/CV training images",
}
ICONIC = "iconic-images-and-descriptions"  # a shop's own pictures among the photographs
SUFFIXES = {".jpg", ".jpeg", ".png"}
Called = Iterator[tuple[Path, list[str]]]  # pictures, and what their set calls each
LESSER = 0.5  # weight of every further name against the first


@dataclass(frozen=True, slots=True)
class Label:
    """What photographs show: the concept's key, and the names that it goes by here."""

    key: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Photograph:
    """One picture: `name` is its path in the work folder."""

    source: Source
    name: str
    label: Label


def _by_name(folder: Path) -> Called:
    for path in sorted(folder.glob("*.webp")):
        yield path, [path.stem]


def _by_table(folder: Path) -> Called:
    with (folder / "images.csv").open(newline="") as handle:
        for row in csv.DictReader(handle):
            yield folder / "images" / f"{row['image']}.jpg", [row["label"]]


def _by_boxes(folder: Path) -> Called:
    """Of a set for detection, pictures in which everything marked is of one class."""
    (line,) = (x for x in (folder / "data.yaml").read_text().splitlines() if x.startswith("names:"))
    names = ast.literal_eval(line.removeprefix("names:").strip())
    for path in sorted(folder.glob("*/labels/*.txt")):
        classes = {int(box.split()[0]) for box in path.read_text().splitlines() if box.strip()}
        if len(classes) == 1:
            yield path.parents[1] / "images" / f"{path.stem}.jpg", [names[classes.pop()]]


def _by_folder(folder: Path) -> Called:
    """The names of a picture's folders, from the innermost outwards."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).parent.parts[::-1]
        if path.suffix.lower() in SUFFIXES and ICONIC not in inside:
            yield path, list(inside)


# how a set says what its pictures show, where not by its folders
CALLED = {"animals": _by_name, "clothes": _by_table, "ingredients": _by_boxes}


def labels(concepts: Concepts, holdout: HoldOut) -> dict[tuple[str, str], Label]:
    """(set, folder) -> label, of what may be shown. Only a label's first name becomes a name of its
    concept: a bass is a fish, but drawings of fish are not of a bass."""
    result = {}
    with TABLE.open(newline="") as handle:
        for row in csv.DictReader(handle):
            names = tuple(row["names"].split("|"))
            key = concepts.find([names[0]])
            shown = holdout.may_show(key, bool(EMOJI_KEY.match(key)))
            if shown and not holdout.names & set(names):
                result[row["set"], row["folder"]] = Label(key, names)
    return result


def labelled(concepts: Concepts, holdout: HoldOut, work: Path) -> list[Photograph]:
    """The photographs that may be trained on."""
    known = labels(concepts, holdout)
    result = []
    for source in of_kind("labelled"):
        folder = checkout(source, FOLDERS[source.name], work)
        for path, called in CALLED.get(source.name, _by_folder)(folder):
            label = next((known[source.name, c] for c in called if (source.name, c) in known), None)
            if label is not None and path.exists():
                result.append(Photograph(source, str(path.relative_to(work)), label))
    print(json.dumps(Counter(p.source.name for p in result)))
    return result


def write_labelled(photographs: list[Photograph], work: Path) -> None:
    """labelled.json: the labels, and of each photograph its path in the work folder and its label's
    number."""
    numbers = {label: i for i, label in enumerate(dict.fromkeys(p.label for p in photographs))}
    table = {
        "labels": [{"key": label.key, "names": label.names} for label in numbers],
        "photographs": [[p.name, numbers[p.label]] for p in photographs],
    }
    (work / "labelled.json").write_text(json.dumps(table))


class Album:
    """The labelled photographs as training draws them: every label as often as any other."""

    def __init__(self, work: Path, drawer: Drawer, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        table = json.loads((work / "labelled.json").read_text())
        self.paths = [work / path for path, _ in table["photographs"]]
        self.label: NDArray[np.int64] = np.array([label for _, label in table["photographs"]])
        number = {record["key"]: i for i, record in enumerate(drawer.records)}
        text = {t: i for i, t in enumerate(drawer.texts)}
        self.concept = np.array([number[label["key"]] for label in table["labels"]])
        self.captions = [np.array([text[n] for n in label["names"]]) for label in table["labels"]]

    def pictures(self, size: int) -> NDArray[np.int64]:
        """Numbers of photographs."""
        drawn = self.rng.integers(len(self.captions), size=size)
        return np.array([self.rng.choice(np.flatnonzero(self.label == n)) for n in drawn])

    def caption(self, label: int) -> int:
        """The number of one of its names among the drawer's texts."""
        names = self.captions[label]
        weight = np.where(np.arange(len(names)) == 0, 1.0, LESSER)
        return int(self.rng.choice(names, p=weight / weight.sum()))
