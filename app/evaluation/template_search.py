"""Search a subset of templates on one half of the pictures, and judge it on the other half.

Knows neither encoders nor files: every prompt has its vector already.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from app.arrays import Places
from app.classify import scoring
from app.evaluation import figures
from app.evaluation.data import ClassRows, Encoded, TemplateRows, halves
from app.evaluation.figures import scores_of
from app.evaluation.statistics import RESAMPLES
from app.evaluation.trials import Trials, judge, measured
from models.info import Floats
from prompts import TemplateSet

# numbers held at once: cosines of pictures with the rows of several candidates
BLOCK: Final = 8_000_000

# the figure, and what decides between equal ones
Worth = tuple[float, float]


class Goal(Protocol):
    """A figure of ensembles on certain pictures; `work` multiplications for one of them."""

    @property
    def work(self) -> int: ...

    def with_each(self, path: Sequence[int], candidates: Sequence[int]) -> list[Worth]:
        """What each candidate, added to the templates of `path`, is worth. All are places."""
        ...


class Top1:
    """Share of pictures whose class wins; of equal shares the larger mean log-probability."""

    def __init__(self, encoded: Encoded, templates: TemplateRows) -> None:
        self._pictures, self._scale = encoded.rows, np.float32(encoded.info.scale)
        self._targets, self._templates = encoded.dataset.targets, templates

    @property
    def work(self) -> int:
        return int(self._pictures.size * self._templates.rows.shape[1])

    def with_each(self, path: Sequence[int], candidates: Sequence[int]) -> list[Worth]:
        sums = self._templates.summed(path)
        classes, width = sums.shape
        step = max(1, BLOCK // (classes * max(width, min(len(self._pictures), 1_024))))
        hits = np.concatenate(
            [
                self._hits(unit(sums + self._templates.rows[candidates[start : start + step]]))
                for start in range(0, len(candidates), step)
            ]
        )
        tied = hits == hits.max()
        return [
            (
                hit / len(self._pictures),
                self._certainty(unit(sums + self._templates.rows[place])) if equal else -np.inf,
            )
            for place, hit, equal in zip(candidates, hits.tolist(), tied, strict=True)
        ]

    def _hits(self, rows: Floats) -> Places:
        """(K, R, D) -> (K,)."""
        sets, classes, width = rows.shape
        flat = rows.reshape(-1, width).T
        alternatives = self._templates.alternatives
        hits = np.zeros(sets, np.int64)
        step = max(1, BLOCK // (sets * classes))
        for start in range(0, len(self._pictures), step):
            cosines = (self._pictures[start : start + step] @ flat).reshape(-1, sets, classes)
            if alternatives is not None:
                cosines = alternatives.best(cosines)
            best = cosines.argmax(axis=2)
            hits += (best == self._targets[start : start + step, None]).sum(axis=0)
        return hits

    def _certainty(self, rows: Floats) -> float:
        """(R, D) -> the mean log-probability of the right class."""
        classes = ClassRows(rows, alternatives=self._templates.alternatives)
        total, step = 0.0, max(1, BLOCK // len(rows))
        for start in range(0, len(self._pictures), step):
            logits = self._scale * classes.cosines(self._pictures[start : start + step])
            own = np.arange(len(logits)), self._targets[start : start + step]
            total += float(scoring.log_softmax(logits)[own].sum(dtype=np.float64))
        return total / len(self._pictures)


class MeanAveragePrecision:
    """Mean over classes of the average precision, of the scores that /classify gives."""

    def __init__(
        self, encoded: Encoded, templates: TemplateRows, background: TemplateRows | None
    ) -> None:
        self._encoded, self._templates, self._background = encoded, templates, background

    @property
    def work(self) -> int:
        return int(self._encoded.rows.size * self._templates.rows.shape[1])

    def with_each(self, path: Sequence[int], candidates: Sequence[int]) -> list[Worth]:
        return [(self._figure([*path, place]), 0.0) for place in candidates]

    def _figure(self, places: Sequence[int]) -> float:
        classes = _ensemble(self._templates, places, self._background)
        scores = scores_of(self._encoded.rows, classes, self._encoded.info, multi_label=True)
        truth = self._encoded.dataset.truth
        each = [
            figures.average_precision(truth[:, place], scores.probabilities[:, place])
            for place in range(truth.shape[1])
        ]
        # without any label there is nothing to rank
        return float(np.nan_to_num(figures.mean(np.array(each))))


def unit(rows: Floats) -> Floats:
    """Rows (..., D) of unit length."""
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


CHOSEN: Final = "chosen"

# templates that are tried without a gain before the search ends
PATIENCE: Final = 3

# shares that differ by less are equal: sums differ in their order
TINY: Final = 1e-9

# multiplications of a step that tries every candidate; beyond it only the best of the first step
WORK: Final = 1_000_000_000_000
SHORTLIST: Final = 32

# resamples that tell how far figures of the search half stray
STRAY: Final = 1_000

MIN_PICTURES: Final = 4


@dataclass(frozen=True, slots=True)
class Step:
    """A template that the search added, and the figure on the search half with it."""

    template: str
    figure: float
    kept: bool


@dataclass(frozen=True, slots=True)
class Search:
    """What was chosen, and two trials of `chosen` against the default: where it was chosen, and
    on the `report` half, which the search never saw.
    """

    templates: tuple[str, ...]
    steps: tuple[Step, ...]
    candidates: int
    default: str
    search: Trials
    report: Trials
    seed: int


def pool(sets: Mapping[str, TemplateSet], languages: Sequence[str] = ("en",)) -> tuple[str, ...]:
    """The different templates of all sets in these languages, in order."""
    texts = (
        text for kept in sets.values() if kept.language in languages for text in kept.templates
    )
    return tuple(dict.fromkeys(texts))


def ensemble(
    rows: TemplateRows, templates: Sequence[str], background: TemplateRows | None = None
) -> ClassRows:
    """The class rows of some of the templates; `background` has the same templates, one class."""
    return _ensemble(rows, _places(rows, templates), background)


def _ensemble(
    rows: TemplateRows, places: Sequence[int], background: TemplateRows | None
) -> ClassRows:
    behind = None if background is None else unit(background.summed(places)[0])
    return ClassRows(unit(rows.summed(places)), behind, rows.alternatives)


def search(
    encoded: Encoded,
    rows: TemplateRows,
    default: Sequence[str],
    *,
    default_name: str,
    candidates: Sequence[str] | None = None,
    background: TemplateRows | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    limit: int = 16,
) -> Search:
    """Add, at most `limit` times, the candidate that helps most on the search half.

    Of the sets on the way the smallest is chosen that is within one standard error of the best
    (Breiman et al. 1984, section 3.4.3): a longer one has mostly learned these pictures by heart.
    Raises ValueError for too few pictures, a half without labels, or unknown templates.
    """
    if len(encoded.rows) < MIN_PICTURES:
        raise ValueError(
            f"a search needs {MIN_PICTURES} pictures at least, one half to choose on and one to "
            f"report; got {len(encoded.rows)}"
        )
    first, second = (encoded.subset(half) for half in halves(encoded.dataset.truth, seed))
    if not (first.dataset.truth.any() and second.dataset.truth.any()):
        raise ValueError("a search needs at least one picture with a label in each half")
    tried = _places(rows, rows.templates if candidates is None else candidates)
    path, gained = _grow(_goal(first, rows, background), tried, limit)
    grown = [rows.templates[place] for place in path]
    size = _smallest(
        first, [ensemble(rows, grown[: n + 1], background) for n in range(len(path))], seed
    )
    chosen = tuple(grown[:size])
    both = {
        CHOSEN: ensemble(rows, chosen, background),
        default_name: ensemble(rows, default, background),
    }
    return Search(
        templates=chosen,
        steps=tuple(
            Step(template, figure, place < size)
            for place, (template, figure) in enumerate(zip(grown, gained, strict=True))
        ),
        candidates=len(tried),
        default=default_name,
        search=judge(first, both, default_name, seed=seed, resamples=resamples),
        report=judge(second, both, default_name, seed=seed, resamples=resamples),
        seed=seed,
    )


def _grow(goal: Goal, tried: Sequence[int], limit: int) -> tuple[list[int], list[float]]:
    """Places of the templates in the order in which they were added, and the figure with each."""
    path: list[int] = []
    path_worths: list[float] = []
    left = list(tried)
    while left and len(path) < limit and not _stalled(path_worths):
        worth = goal.with_each(path, left)
        best = max(range(len(left)), key=worth.__getitem__)
        path.append(left[best])
        path_worths.append(worth[best][0])
        keep = max(SHORTLIST, WORK // goal.work)
        order = sorted(range(len(left)), key=lambda place: worth[place], reverse=True)[: keep + 1]
        left = [left[place] for place in sorted(order) if place != best]
    return path, path_worths


def _stalled(path_worths: Sequence[float]) -> bool:
    """The last PATIENCE templates have brought nothing."""
    return len(path_worths) > PATIENCE and max(path_worths[-PATIENCE:]) <= max(
        path_worths[:-PATIENCE]
    )


def _smallest(encoded: Encoded, prefixes: Sequence[ClassRows], seed: int) -> int:
    """How many templates the first set has that is within one standard error of the best."""
    resampled = next(iter(measured(encoded, prefixes, STRAY, seed)[1].values()))
    best = int(resampled.observed.argmax())
    behind = resampled.observed[best] - resampled.observed
    errors = (resampled.draws[:, [best]] - resampled.draws).std(axis=0)
    return int(np.flatnonzero(behind <= errors + TINY)[0]) + 1


def _goal(encoded: Encoded, rows: TemplateRows, background: TemplateRows | None) -> Goal:
    if encoded.dataset.multi_label:
        return MeanAveragePrecision(encoded, rows, background)
    return Top1(encoded, rows)


def _places(rows: TemplateRows, templates: Sequence[str]) -> list[int]:
    """Where templates are among the rows."""
    known = {template: place for place, template in enumerate(rows.templates)}
    unknown = [template for template in templates if template not in known]
    if unknown or not templates:
        raise ValueError(f"templates without a vector: {unknown[:3] or 'none given'}")
    return [known[template] for template in templates]
