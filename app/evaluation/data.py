"""What an evaluation works on: labelled pictures, their vectors, scores. Plain values.

Knows neither files nor models: who reads, encodes, scores and reports meets here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from rich.console import RenderableType

from models.info import Floats

Truth = npt.NDArray[np.bool_]
Places = npt.NDArray[np.int64]


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
    """What pictures are compared with: `rows` (C, D) float32 of unit length, one a class.

    `background` (D,) is of a text that names no thing in particular, in the same templates; a
    softmax-trained model needs it to score labels alone, so it is there for multi-label data.
    """

    rows: Floats
    background: Floats | None = None


@dataclass(frozen=True, slots=True)
class TemplateRows:
    """One row for each template and class: `rows` (T, C, D) float32, means over a class's texts.

    The ensemble of any subset of templates is the mean of its rows over T, made of unit length.
    `templates` (T,) are the texts of the templates.
    """

    templates: tuple[str, ...]
    rows: Floats


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
