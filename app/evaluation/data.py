"""What an evaluation works on: labelled pictures, their vectors, scores. Plain values.

Knows neither files nor models: who reads, encodes, scores and reports meets here.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from rich.console import RenderableType

from app.arrays import Places, Truth
from app.classify.scoring import Alternatives
from models.info import Floats

# rows of which each is compared with all others, and how many cosines are held at once
MOST_COMPARED: Final = 30_000
COSINES_AT_ONCE: Final = 20_000_000


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled pictures: C classes, N files, `truth` (N, C) bool, one row a picture.

    `classes` are the labels as reports show them. Single-label: exactly one True a row, unless
    `multi_label`: then any number, none included.
    """

    classes: tuple[str, ...]
    files: tuple[Path, ...]
    truth: Truth
    multi_label: bool

    @property
    def targets(self) -> Places:
        """The place (N,) of each picture's one class; only where it has one."""
        return np.asarray(self.truth.argmax(axis=1), np.int64)

    @property
    def counts(self) -> Places:
        """How many pictures (C,) each class has."""
        return np.asarray(self.truth.sum(axis=0), np.int64)

    def subset(self, places: Places) -> "Dataset":
        """The pictures at these places (M,), in that order, with all classes."""
        files = tuple(self.files[place] for place in places)
        return Dataset(self.classes, files, self.truth[places], self.multi_label)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The model that encoded, as GET /models tells it.

    `scale` is the learned temperature exp(logit_scale), float32 as a float; `bias` the offset of
    models trained with a sigmoid loss, None for softmax-trained ones. `templates` names the
    template set that is its default. `width` is D.
    """

    name: str
    fingerprint: str
    precision: str
    device: str
    backend: str
    scale: float
    bias: float | None
    width: int
    templates: str


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that could not be encoded, and why, for a person."""

    file: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Encoded:
    """A dataset with a row (D,) for each picture: `rows` (N, D) float32 of unit length.

    `dataset` has only the pictures that could be read, in the order of `rows`; the others are
    `unread`.
    """

    dataset: Dataset
    rows: Floats
    unread: tuple[Unread, ...]
    info: ModelInfo

    def subset(self, places: Places) -> "Encoded":
        """The pictures at these places (M,), in that order, with all classes."""
        return Encoded(self.dataset.subset(places), self.rows[places], self.unread, self.info)


@dataclass(frozen=True, slots=True)
class ClassRows:
    """What pictures are compared with: `rows` (R, D) float32 of unit length.

    There is one a class, or where classes have `alternatives` one for each of these. `background`
    (D,) is of a text that names no thing in particular, in the same templates; a softmax-trained
    model needs it to score labels alone, so it is there for multi-label data.
    """

    rows: Floats
    background: Floats | None = None
    alternatives: Alternatives | None = None

    @property
    def starts(self) -> Places:
        """The first row (C,) of each class."""
        starts = range(len(self.rows)) if self.alternatives is None else self.alternatives.starts
        return np.asarray(starts, np.int64)

    def cosines(self, pictures: Floats) -> Floats:
        """Of `pictures` (N, D) with each class (N, C), as /classify: the best row decides."""
        each = pictures @ self.rows.T
        return each if self.alternatives is None else self.alternatives.best(each)

    def alike(self, within: float) -> list[list[int]]:
        """Groups of classes that share a row, where cosines are 1 but for so little; none where
        there are too many rows to compare each with all.
        """
        if len(self.rows) > MOST_COMPARED:
            return []
        block = max(1, COSINES_AT_ONCE // max(1, len(self.rows)))
        ends = np.append(self.starts[1:], len(self.rows))
        owners = np.repeat(np.arange(len(self.starts)), ends - self.starts)
        groups: defaultdict[int, list[int]] = defaultdict(list)
        for start in range(0, len(self.rows), block):
            near = self.rows[start : start + block] @ self.rows.T >= 1 - within
            firsts, own = owners[near.argmax(axis=1)], owners[start : start + block]
            for first, other in sorted(set(zip(firsts.tolist(), own.tolist(), strict=True))):
                if first != other:
                    groups[first].append(other)
        return [[first, *others] for first, others in sorted(groups.items())]

    def subset(self, places: Places) -> "ClassRows":
        """The classes at these places (M,), in that order."""
        ends = np.append(self.starts[1:], len(self.rows))
        spans = [slice(self.starts[place], ends[place]) for place in places]
        rows = np.concatenate([self.rows[span] for span in spans])
        alternatives = self.alternatives
        if alternatives is not None:
            alternatives = Alternatives.of([alternatives.texts[span] for span in spans])
        return ClassRows(rows, self.background, alternatives)


@dataclass(frozen=True, slots=True)
class TemplateRows:
    """A row for each template and row of `ClassRows`: `rows` (T, R, D) float32, means over texts.

    The ensemble of any subset of templates is the sum of its rows over T and of `beside` (R, D),
    made of unit length: `beside` are sums of whole prompts that are read beside the templates,
    divided by the number of texts; None: there are none. `templates` (T,) are texts.
    """

    templates: tuple[str, ...]
    rows: Floats
    beside: Floats | None = None
    alternatives: Alternatives | None = None

    def summed(self, places: Sequence[int]) -> Floats:
        """(R, D), of which the ensemble of the templates at these places has the direction."""
        total = self.rows[list(places)].sum(axis=0, dtype=np.float32)
        return np.asarray(total if self.beside is None else total + self.beside, np.float32)


@dataclass(frozen=True, slots=True)
class Scores:
    """What one set of class rows says: `cosines` (N, C) and `probabilities` (N, C), float32.

    Single-label: rows of `probabilities` sum to 1 (softmax) for softmax-trained models; multi-label
    or sigmoid-trained: each is on its own, in 0..1.
    """

    cosines: Floats
    probabilities: Floats


class Section(Protocol):
    """A section of a report. Its author escapes all names in the HTML.

    `key` is its name in report.json, `title` its heading. `html` needs no request, no script and no
    heading of its own; `report_parts` has escaping, tables and figures with their colours.
    """

    @property
    def key(self) -> str: ...

    @property
    def title(self) -> str: ...

    def json(self) -> Mapping[str, Any]:
        """Plain values for report.json: str, int, float, bool, None, lists and dicts of them."""
        ...

    def html(self) -> str:
        """The body of the section for report.html."""
        ...

    def table(self) -> RenderableType:
        """What the terminal shows."""
        ...


def halves(truth: Truth, seed: int) -> tuple[Places, Places]:
    """Two sorted, disjoint sets of the N places of `truth` (N, C), equal but for one picture.

    A picture of several classes counts for its rarest, one of none for a class of such. Of a class
    with an odd number of pictures one half gets one more, turn by turn.
    """
    dice = np.random.default_rng(seed)
    kinds = kinds_of(truth)
    order = dice.permutation(len(kinds))
    order = order[np.argsort(kinds[order], kind="stable")]
    # every other picture of a row ordered by class: no class is off by more than one
    return np.sort(order[0::2]), np.sort(order[1::2])


def kinds_of(truth: Truth) -> Places:
    """The class (N,) that a picture counts for: its rarest; C for one without any."""
    counts = truth.sum(axis=0)
    rarity = np.where(truth, counts, np.iinfo(np.int64).max)
    return np.asarray(np.where(truth.any(axis=1), rarity.argmin(axis=1), truth.shape[1]), np.int64)
