"""From cosines to predictions: scores, order, and whether to abstain.

Pure functions; knows neither images nor HTTP.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from app.classify.other_words import Competition, ahead, allowed
from models.info import Floats

Number = TypeVar("Number", np.float32, np.float64)


def similarities(image: Floats, classes: Floats) -> Floats:
    """Cosines of `image` (D,) with `classes` (C, D), all unit rows, float32 -> (C,)."""
    return classes @ image


@dataclass(frozen=True, slots=True)
class Alternatives:
    """Labels with several rows each: `starts` (C,) is the first row of each label, `texts` (R,)
    what each row stands for; empty where a label has one row alone.
    """

    starts: tuple[int, ...]
    texts: tuple[str, ...]

    @classmethod
    def of(cls, labels: Sequence[Sequence[str]]) -> "Alternatives":
        """Of the alternatives of each label; a label without any has one row."""
        starts, texts = [], list[str]()
        for alternatives in labels:
            starts.append(len(texts))
            texts += alternatives or ("",)
        return cls(tuple(starts), tuple(texts))

    def best(self, cosines: Floats) -> Floats:
        """The best of (..., R) for each label -> (..., C)."""
        return np.asarray(np.maximum.reduceat(cosines, self.starts, axis=-1), np.float32)

    def label(self, row: int) -> int:
        """The label that a row belongs to."""
        return bisect_right(self.starts, row) - 1

    def row(self, cosines: Floats, label: int) -> int:
        """Which row of a label fits best, of cosines (R,)."""
        start = self.starts[label]
        end = self.starts[label + 1] if label + 1 < len(self.starts) else len(self.texts)
        return start + int(cosines[start:end].argmax())

    def text(self, cosines: Floats, label: int) -> str | None:
        """Which alternative of a label fits best, of cosines (R,); None where it has but one."""
        return self.texts[self.row(cosines, label)] or None


@dataclass(frozen=True, slots=True)
class Group:
    """Labels that belong together: `path` from the widest, `score` of one of them being right."""

    path: tuple[str, ...]
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Labels in groups: `paths` (C,) of the labels, and of the groups in the order of their first
    labels, `names` (G,). A label at one of the `places` is in the group of the same of `numbers`.
    """

    paths: tuple[tuple[str, ...], ...]
    names: tuple[tuple[str, ...], ...]
    places: npt.NDArray[np.intp]
    numbers: npt.NDArray[np.intp]

    @classmethod
    def of(cls, paths: Sequence[tuple[str, ...]]) -> "Groups":
        """Of the path of each label; one is in a group at least."""
        names: dict[tuple[str, ...], int] = {}
        members = [
            (place, names.setdefault(path[:depth], len(names)))
            for place, path in enumerate(paths)
            for depth in range(1, len(path) + 1)
        ]
        places, numbers = np.array(members, np.intp).T
        return cls(tuple(paths), tuple(names), places, numbers)

    def ranked(self, scores: Floats, *, shares: bool) -> list[Group]:
        """The groups that labels with `scores` (C,) are in, best first; equal ones in their order.

        `shares`: the scores share 1 among them, so that a group has their sum; else the best one's.
        """
        values = scores[self.places].astype(np.float64)
        totals = np.zeros(len(self.names))
        (np.add if shares else np.maximum).at(totals, self.numbers, values)
        return sorted(
            map(Group, self.names, np.minimum(totals, 1.0).tolist()),
            key=lambda group: -group.score,
        )


def best_similarities(views: Floats, classes: Floats) -> Floats:
    """The best cosine among `views` (V, D) of a picture for each of `classes` (C, D) -> (C,).

    Unit rows, float32.
    """
    if len(views) == 1:
        return similarities(views[0], classes)
    return np.asarray((classes @ views.T).max(axis=1), np.float32)


def softmax(cosines: Floats, scale: float) -> Floats:
    """Probabilities (..., C) that sum to 1: softmax(scale x cosine), float32.

    `scale` is the learned temperature exp(logit_scale) of Radford et al. 2021, section 2.3.
    """
    logits = np.float32(scale) * cosines
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def log_softmax(logits: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """The logarithms of the softmax of `logits` (..., C), which does not underflow."""
    below = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(below - np.log(np.exp(below).sum(axis=-1, keepdims=True)), logits.dtype)


def sigmoid(cosines: Floats, scale: float, bias: float) -> Floats:
    """Independent probabilities (C,): sigmoid(scale x cosine + bias), Zhai et al. 2023 (SigLIP)."""
    logits = np.float32(scale) * cosines + np.float32(bias)
    # the power of a negative number does not overflow, and small scores keep all their digits
    powers = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits < 0, powers, 1) / (1 + powers), np.float32)


def against_background(cosines: Floats, background: float, scale: float) -> Floats:
    """Independent scores (C,) of a softmax-trained model: each label alone against a background.

    The two-way softmax of the label and a text that names no thing in particular, which is
    sigmoid(scale x (cosine - background)). Such a model has no offset of its own, so 0.5 means "as
    near as no label at all", not a calibrated probability.
    """
    return sigmoid(cosines, scale, -scale * background)


def rank(scores: Floats, top_k: int, finer: Floats | None = None) -> tuple[int, ...]:
    """Places of the `top_k` best of `scores` (C,), best first.

    Equal scores are in the order of `finer` (C,), from which they were rounded to 0 or 1; else they
    keep the order of their labels.
    """
    finer = scores if finer is None else finer
    places = np.arange(len(scores))
    if top_k < len(scores):  # of thousands of labels few are worth sorting
        places = np.flatnonzero(scores >= np.partition(scores, -top_k)[-top_k])
    order = np.lexsort((-finer[places], -scores[places]))[:top_k]
    return tuple(places[order].tolist())


# how cosines become scores: against one another, or each label on its own
Scoring = Literal["softmax", "sigmoid"]

Code = Literal[
    "similarity_below_floor",
    "margin_too_small",
    "score_below_threshold",
    "nearer_to_another_word",
]

# without a calibration the best label must be this many times as likely as the second; measured
# with pictogram, see docs/decisions.md
LEAST_ODDS: Final = 2.0

# the same where other words are known, which tell strangers better than a lead does
LEAST_ODDS_BESIDE_WORDS: Final = 1.2

# cosines that differ by less are of one vector; rounding alone makes a tenth of it
SAME: Final = 1e-5

# default threshold of labels that are scored alone
COUNTS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Criteria:
    """What of the scores is answered; `alone`: labels do not exclude one another, and each begins
    to count by itself. `scores` None: sigmoid for labels alone and models trained with it,
    else softmax.

    `lead`: abstain also where two labels fit alike.
    """

    top_k: int
    threshold: float | None = None
    alone: bool = False
    abstain: bool = False
    scores: Scoring | None = None
    lead: bool = True
    coverage: float | None = None


@dataclass(frozen=True, slots=True)
class Learned:
    """A calibration as it is used: `shifts` (C,) is how far above the background (above 0 with a
    `bias`) each label begins to count when scored alone; None: not known. `conformal` is how small
    a share may be, as 1 - share, for 1 to 99 % of coverage.
    """

    scale: float
    bias: float | None
    floor: float
    margin: float
    shifts: Floats | None
    conformal: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Scale:
    """The model's own; `bias` None: softmax-trained."""

    scale: float
    bias: float | None

    def scoring(self, criteria: Criteria) -> Scoring:
        """How this model's cosines become the wanted scores."""
        independent = criteria.alone or self.bias is not None
        return criteria.scores or ("sigmoid" if independent else "softmax")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why nothing is answered: `value` did not reach `limit`, or `word` fits better."""

    code: Code
    value: float
    limit: float
    detail: str
    word: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """`scores` (C,), and the places of what is answered, best first; or of what is `withheld`, and
    the reason.
    """

    scores: Floats
    order: tuple[int, ...]
    withheld: tuple[int, ...] = ()
    reason: Reason | None = None
    covering: tuple[int, ...] = ()


def covering(cosines: Floats, scale: float, bounds: Sequence[float], coverage: float) -> list[int]:
    """Places of the smallest set of labels that holds the right one with this probability, best
    first; at least the best label. `bounds` are for 1 to 99 %, `coverage` 0.01 to 0.99.
    """
    shares = softmax(cosines, scale)
    # rounding of binary fractions must not make a percent more of a whole one
    bound = bounds[math.ceil(round(100 * coverage, 6)) - 1]
    order = rank(shares, len(shares))
    # in float32, 1 less a small share would be 1, and within every bound near it
    return [place for place in order if place == order[0] or 1 - float(shares[place]) <= bound]


def decide(
    cosines: Floats,
    background: float | None,
    model: Scale,
    learned: Learned | None,
    criteria: Criteria,
    competition: Competition | None = None,
) -> Decision:
    """What to answer for `cosines` (C,); `background` is needed for sigmoids of a softmax-trained
    model, and to abstain without a calibration.
    """
    shifts = _shifts(model, learned, criteria)
    scores = _scores(cosines, shifts, background, model, learned, criteria)
    best = rank(scores, criteria.top_k, cosines if shifts is None else cosines - shifts)
    threshold = _threshold(learned, criteria)
    reason = None
    if criteria.abstain:
        reason = _nearer(cosines, learned, criteria, competition) if competition else None
        rivals = competition is not None and competition.rivals is not None
        if reason is None:
            reason = _reason(cosines, background, model, learned, criteria, rivals=rivals)
    order = best if threshold is None else tuple(i for i in best if scores[i] >= threshold)
    if reason is None and threshold is not None and not order:
        value = float(scores[best[0]])
        detail = f"the best score is {value:.4g}, below {threshold:g}"
        reason = Reason("score_below_threshold", value, threshold, detail)
    if reason is None:
        within: tuple[int, ...] = ()
        if criteria.coverage is not None and learned is not None:
            within = tuple(covering(cosines, model.scale, learned.conformal, criteria.coverage))
        return Decision(scores, order, covering=within)
    return Decision(scores, (), best, reason)


def _shifts(model: Scale, learned: Learned | None, criteria: Criteria) -> Floats | None:
    """Where each label begins to count by itself, if it is scored so and that was learned."""
    alone = criteria.alone and model.scoring(criteria) == "sigmoid"
    return learned.shifts if learned is not None and alone else None


def _scores(
    cosines: Floats,
    shifts: Floats | None,
    background: float | None,
    model: Scale,
    learned: Learned | None,
    criteria: Criteria,
) -> Floats:
    if model.scoring(criteria) == "softmax":
        # a sigmoid-trained model's calibration has fitted its sigmoids
        fitted = learned is not None and model.bias is None
        return softmax(cosines, learned.scale if learned and fitted else model.scale)
    if model.bias is not None:
        if shifts is not None:
            return sigmoid(cosines - shifts, model.scale, 0.0)
        bias = learned.bias if learned is not None and learned.bias is not None else model.bias
        return sigmoid(cosines, learned.scale if learned else model.scale, bias)
    if background is None:
        raise ValueError("labels are scored alone without a background. This is a bug.")
    above = cosines if shifts is None else cosines - shifts
    return against_background(above, background, model.scale)


def _threshold(learned: Learned | None, criteria: Criteria) -> float | None:
    if criteria.threshold is not None or not criteria.alone:
        return criteria.threshold
    known = learned is not None and learned.shifts is not None
    return COUNTS if known or criteria.abstain else None


def _reason(
    cosines: Floats,
    background: float | None,
    model: Scale,
    learned: Learned | None,
    criteria: Criteria,
    *,
    rivals: bool = False,
) -> Reason | None:
    """Why the best label is not good enough; None: it is."""
    similarity, lead = _best_and_lead(cosines)
    if learned is not None:
        floor, margin, than = learned.floor, learned.margin, "the floor of the calibration"
    elif background is not None:
        odds = LEAST_ODDS_BESIDE_WORDS if rivals else LEAST_ODDS
        floor, margin = background, math.log(odds) / model.scale
        than = "that of a text that names no thing in particular"
    else:
        raise ValueError("abstaining without calibration or background. This is a bug.")
    if similarity < floor:
        detail = f"the best similarity, {similarity:.4f}, is below {than}, {floor:.4f}"
        return Reason("similarity_below_floor", similarity, floor, detail)
    if criteria.lead and not criteria.alone and lead < margin:
        detail = f"the best similarity leads by {lead:.4f}, the least margin is {margin:.4f}"
        return Reason("margin_too_small", lead, margin, detail)
    return None


def _nearer(
    cosines: Floats, learned: Learned | None, criteria: Criteria, competition: Competition
) -> Reason | None:
    """Why another word than the labels fits; rivals count where no calibration knows better."""
    best, lead = _best_and_lead(cosines)
    # a word that is the same as a label is as near but for rounding, and rules nothing out
    if competition.own is not None and float(competition.own.max()) > best + SAME:
        place = int(competition.own.argmax())
        word, value = competition.own_words[place], float(competition.own[place])
        detail = f"{word!r} fits better than the best label: {value:.4f} against {best:.4f}"
        return Reason("nearer_to_another_word", best, value, detail, word)
    if learned is not None or competition.rivals is None or competition.cosines is None:
        return None
    # labels that do not exclude one another may fit alike
    value = ahead(competition.cosines, best, 0.0 if criteria.alone else lead)
    most = allowed(len(competition.cosines), len(cosines))
    if value <= most:
        return None
    word = competition.rivals.word(int(competition.cosines.argmax()))
    detail = (
        f"{word!r} fits better than the best label, by {value:.2f} standard deviations of how "
        f"{len(competition.cosines)} other words fit; {most:.2f} are the limit"
    )
    return Reason("nearer_to_another_word", value, most, detail, word)


def _best_and_lead(cosines: Floats) -> tuple[float, float]:
    if len(cosines) == 1:
        return float(cosines[0]), math.inf
    second, first = np.partition(cosines, -2)[-2:]
    return float(first), float(first) - float(second)
