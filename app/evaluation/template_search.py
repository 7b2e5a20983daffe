"""Search a subset of templates on one half of the pictures, and judge it on the other half.

Knows neither encoders nor files: every prompt has its vector already.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from app.evaluation.data import ClassRows, Encoded, TemplateRows
from app.evaluation.halves import halves
from app.evaluation.resampling import RESAMPLES
from app.evaluation.search_goals import Goal, MeanAveragePrecision, Top1, unit
from app.evaluation.trials import Trials, judge, measured
from prompts import TemplateSet

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

Progress = Callable[[int, int], None]


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
    found = (one for kept in sets.values() if kept.language in languages for one in kept.templates)
    return tuple(dict.fromkeys(found))


def ensemble(
    rows: TemplateRows, templates: Sequence[str], background: TemplateRows | None = None
) -> ClassRows:
    """The class rows of some of the templates; `background` has the same templates, one class."""
    places = _places(rows, templates)
    behind = None if background is None else unit(background.rows[places, 0].mean(axis=0))
    return ClassRows(unit(rows.rows[places].mean(axis=0)), behind)


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
    progress: Progress | None = None,
) -> Search:
    """Add, at most `limit` times, the candidate that helps most on the search half.

    Of the sets on the way the smallest is chosen that is within one standard error of the best
    (Breiman et al. 1984, section 3.4.3): a longer one has mostly learned these pictures by heart.
    Raises ValueError for too few pictures or unknown templates.
    """
    if len(encoded.rows) < MIN_PICTURES:
        raise ValueError(
            f"a search needs {MIN_PICTURES} pictures at least, one half to choose on and one to "
            f"report; got {len(encoded.rows)}"
        )
    first, second = (encoded.subset(half) for half in halves(encoded.dataset.truth, seed))
    tried = _places(rows, rows.templates if candidates is None else candidates)
    path, gained = _grow(_goal(first, rows, background), tried, limit, progress)
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


def _grow(
    goal: Goal, tried: Sequence[int], limit: int, progress: Progress | None
) -> tuple[list[int], list[float]]:
    """Places of the templates in the order in which they were added, and the figure with each."""
    path: list[int] = []
    found: list[float] = []
    left = list(tried)
    while left and len(path) < limit and not _stalled(found):
        worth = goal.with_each(path, left)
        best = max(range(len(left)), key=worth.__getitem__)
        path.append(left[best])
        found.append(worth[best][0])
        keep = max(SHORTLIST, WORK // goal.work)
        order = sorted(range(len(left)), key=lambda place: worth[place], reverse=True)[: keep + 1]
        left = [left[place] for place in sorted(order) if place != best]
        if progress is not None:
            progress(len(path), limit)
    return path, found


def _stalled(found: Sequence[float]) -> bool:
    """The last PATIENCE templates have brought nothing."""
    return len(found) > PATIENCE and max(found[-PATIENCE:]) <= max(found[:-PATIENCE])


def _smallest(encoded: Encoded, prefixes: Sequence[ClassRows], seed: int) -> int:
    """How many templates the first set has that is within one standard error of the best."""
    found = next(iter(measured(encoded, prefixes, STRAY, seed)[1].values()))
    best = int(found.observed.argmax())
    behind = found.observed[best] - found.observed
    errors = (found.draws[:, [best]] - found.draws).std(axis=0)
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
