"""A query, the classes it is compared with, and its result: plain values.

Knows nothing of how the result is computed.
"""

from dataclasses import dataclass

from app.classify.scoring import Alternatives, Group, Groups, Learned, Reason, Scoring
from app.classify.templates import TemplateChoice
from app.errors import Invalid, shown
from app.images.notes import Noticed
from app.images.views import WHOLE, Cut, Look
from models.info import Floats


@dataclass(frozen=True, slots=True)
class Query:
    """A query about one image: `labels`, or those of `labelsets` in the caller's `namespace`.

    `texts` stand for each of the labels, where any has its own: one vector is made of them all, or
    the `best` of them decides. `nots` are words that rule the labels out, besides those of a set.
    The request waits `patience` seconds for the first build of a label set. `tags` are nouns that
    do not exclude one another, asked of whatever the image shows. `truncate`: labels that are too
    long for the model are cut. `warnings` are what had to be guessed to understand it.
    """

    labels: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...] = ()
    best: bool = False
    nots: tuple[str, ...] = ()
    labelsets: tuple[str, ...] = ()
    templates: TemplateChoice = None
    model: str | None = None
    top_k: int | None = None
    threshold: float | None = None
    multi_label: bool = False
    abstain: bool = False
    explain: bool = False
    scores: Scoring | None = None
    coverage: float | None = None
    tags: bool = False
    truncate: bool = False
    look: Look = WHOLE
    namespace: str = ""
    patience: float = 0.0
    warnings: tuple[str, ...] = ()

    @property
    def scores_alone(self) -> bool:
        """Whether one label is enough, because it is not compared with other labels."""
        alone = self.multi_label or self.scores == "sigmoid"
        return alone or self.abstain or self.threshold is not None


@dataclass(frozen=True, slots=True)
class Prediction:
    """A label with its score in 0..1 and the cosine similarity behind it.

    `heatmap` is where the image agrees with it (heatmap.py), if that was asked; `text` which of
    its alternatives decided, and `path` the groups that it is in.
    """

    label: str
    score: float
    similarity: float
    heatmap: str | None = None
    text: str | None = None
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """The image that was classified; `cached` where its embedding was known.

    `noticed` is what had to be guessed about it.
    """

    width: int
    height: int
    sha256: str
    cached: bool
    noticed: tuple[Noticed, ...] = ()


@dataclass(frozen=True, slots=True)
class Classes:
    """What an image is compared with: `rows` (C, D) of the labels in these templates.

    Where labels have `alternatives` there are more rows; `groups` are those of labels, if any;
    `nots` are words that rule the labels out.

    `template_set` is the name of the templates, `cached` how many rows needed no encoding.
    `learned` is the calibration of just these rows; `warning` says why there is none. `unread` are
    sentences on labels that the model does not read whole; `failed` says why no newer version of
    the label set answers.
    """

    labels: tuple[str, ...]
    rows: Floats
    cached: int
    template_set: str
    templates: tuple[str, ...]
    version: int | None = None
    learned: Learned | None = None
    warning: str | None = None
    alternatives: Alternatives | None = None
    groups: Groups | None = None
    nots: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    failed: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """Predictions among one list of labels, best first, and what they were made with.

    Where it `abstained` there is a `reason`, and the predictions are `withheld`.
    """

    templates: str
    labelset: str | None
    labelset_version: int | None
    cached: int
    predictions: tuple[Prediction, ...]
    abstained: bool
    warnings: tuple[str, ...]
    calibrated: bool = False
    reason: Reason | None = None
    withheld: tuple[Prediction, ...] = ()
    groups: tuple[Group, ...] = ()
    covering: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """The results for a part of the picture: one per label set, in their order."""

    area: Cut
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class Classification:
    """The response: for the whole picture, or for each box of the request in order."""

    model: str
    image: Image
    parts: tuple[Part, ...]
    boxes: bool = False


def one_label(field: str, label: str) -> Invalid:
    """The problem of a single label with nothing to compare it with."""
    detail = (
        f"one label alone, {shown(label)}, scores 1; give more, a threshold, abstain or multi_label"
    )
    return Invalid(f"{field}: {detail}", field=field, limit=2, value=1)
