"""Trials of template sets as a section of a report: table, forest plot, JSON. Computes nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from app.evaluation.figures import number
from app.evaluation.report.html import (
    Cell,
    Html,
    esc,
    figure,
    how,
    many,
    paragraph,
    percent,
    plain,
    points,
    share_cell,
    span,
    table,
    with_numbers,
)
from app.evaluation.report.plots import Lead, forest
from app.evaluation.trials import MAP, PER_CLASS, TOP1, Difference, Estimate, Trials, Verdict

FIGURE_NAMES: Final = {TOP1: "top-1", PER_CLASS: "mean per class", MAP: "mAP"}

# names that a sentence lists
NAMED: Final = 8


def _to_reference(trials: Trials) -> list[str]:
    name = trials.reference
    return [
        sentence
        for verdict, begun in (
            (Verdict.BETTER, f"Better than {name}, and significantly so: "),
            (Verdict.WORSE, f"Worse than {name}, and significantly so: "),
            (Verdict.UNSURE, f"Perhaps different from {name}, but not for certain: "),
            (Verdict.OPEN, f"Not told apart from {name}: "),
        )
        for sentence in _listed(begun, (d for d in trials.to_reference if d.verdict is verdict))
    ]


def _to_best(trials: Trials) -> list[str]:
    if trials.best == trials.reference or len(trials.names) == 2:
        return []
    equal = (d for d in trials.to_best if d.verdict is not Verdict.WORSE)
    return _listed(f"May be as good as the best, {trials.best}: ", equal) or [
        f"Every other set is behind {trials.best}, and significantly so."
    ]


def _listed(begun: str, differences: Iterable[Difference]) -> list[str]:
    leads = [f"{difference.name} ({points(difference.lead.value)})" for difference in differences]
    if len(leads) > NAMED:
        leads[NAMED:] = [f"{len(leads) - NAMED} more"]
    return [begun + ", ".join(leads) + " points."] if leads else []


def method_of(trials: Trials) -> str:
    """When a difference counts as real."""
    resamples = trials.resamples[trials.compared_by]
    first = (
        f"A difference is real if its 95 % interval excludes 0: {resamples:,} resamples of the "
        f"pictures, the same for every set, seed {trials.seed}"
    )
    if trials.compared_by == TOP1:
        first += ", and if McNemar's exact test on the pictures that one of two alone has right "
        first += "says so too"
    compared = len(trials.names) - 1
    if compared == 1:
        return first + "."
    pairs = ""
    if trials.best != trials.reference:
        pairs = (
            f", or where the best is one of two, which these pictures chose, for all "
            f"{compared * (compared + 1) // 2} pairs"
        )
    against = f"{compared} comparisons with {trials.reference}{pairs}"
    return f"{first}; after Holm's correction for {against}."


def power(differences: Iterable[Difference], pictures: int) -> str:
    """What so many pictures cannot show."""
    least = max(difference.detectable for difference in differences)
    return (
        f"{many(pictures, 'picture')} show a true difference of {points(least).removeprefix('+')} "
        "points in 4 of 5 cases; a smaller one mostly goes unseen."
    )


# classes of a verdict's colour: of a badge, of a line
BADGES: Final = {
    Verdict.BETTER: "badge good",
    Verdict.WORSE: "badge bad",
    Verdict.UNSURE: "badge warn",
    Verdict.OPEN: "badge",
}
LINES: Final = {
    Verdict.BETTER: "s1",
    Verdict.WORSE: "s6",
    Verdict.UNSURE: "s2",
    Verdict.OPEN: "quiet",
}


@dataclass(frozen=True, slots=True)
class TrialsSection:
    """Template sets compared on the same pictures."""

    trials: Trials

    key = "templates"
    title = "Template comparison"

    def words(self) -> list[str]:
        """The verdicts first, then how they were reached."""
        trials = self.trials
        figure = trials.compared_by
        best = trials.figures[figure][trials.best]
        return [
            f"Best of {len(trials.names)} on {many(trials.pictures, 'picture')}: {trials.best}, "
            f"{FIGURE_NAMES[figure]} {percent(best.value)}.",
            *_to_reference(trials),
            *_to_best(trials),
            method_of(trials),
            power(trials.to_reference, trials.pictures),
        ]

    def json(self) -> Mapping[str, Any]:
        """All figures and differences."""
        return trials_json(self.trials) | {"words": self.words()}

    def html(self) -> str:
        """Verdicts, forest plot, table."""
        *verdicts, method, limits = self.words()
        words = "".join(paragraph(line) for line in verdicts)
        return words + forest_figure(self.trials) + self._html_table() + how(method, limits)

    def table(self) -> RenderableType:
        """The table, with intervals of differences only, and the verdicts below."""
        trials = self.trials
        grid = Table(box=SIMPLE, padding=(0, 0, 0, 1))
        own = [FIGURE_NAMES[figure] for figure in trials.figures]
        to = [f"to {trials.reference}, points", "difference"]
        to += ["to the best"] if trials.best != trials.reference else []
        for heading in ("templates", *own, *to):
            grid.add_column(escape(heading), no_wrap=heading in to)
        for name in self._order():
            row = self._row(name)
            del row[2]
            at = 1 + len(own)
            lead, ends = (plain(cell) for cell in row[at : at + 2])
            both = lead if row[at] is None else Text.assemble(lead, " (", ends, ")")
            grid.add_row(
                *(plain(cell) for cell in row[:at]), both,
                *(plain(cell) for cell in row[at + 2 :]),
            )  # fmt: skip
        return Group(grid, *(Text(line) for line in self.words()))

    def _order(self) -> list[str]:
        first = self.trials.figures[self.trials.compared_by]
        return sorted(self.trials.names, key=lambda name: -first[name].value)

    def _headings(self) -> list[str]:
        trials = self.trials
        to = [f"to {trials.best}, the best"] if trials.best != trials.reference else []
        own = [FIGURE_NAMES[figure] for figure in trials.figures]
        towards = [f"to {trials.reference}", "95 %", "difference"]
        return ["templates", own[0], "95 %", *own[1:], *towards, *to]

    def _row(self, name: str) -> list[Cell]:
        trials = self.trials
        first, *others = (figures[name] for figures in trials.figures.values())
        row: list[Cell] = [name, share_cell(first.value), span(first.low, first.high)]
        row += [share_cell(other.value) for other in others]
        row += _cells(_of(trials.to_reference, name))
        if trials.best != trials.reference:
            row.append(_verdict(_of(trials.to_best, name)))
        return row

    def _html_table(self) -> str:
        rows = [self._row(name) for name in self._order()]
        return table("Template sets, best first", with_numbers(self._headings()), rows)


def forest_figure(trials: Trials) -> str:
    """Each set's lead over the reference."""
    what = FIGURE_NAMES[trials.compared_by]
    leads = [
        Lead(d.name, d.lead.value, d.lead.low, d.lead.high, LINES[d.verdict], d.verdict.value)
        for d in trials.to_reference
    ]
    caption = (
        f"Lead over {trials.reference} in {what}, in points, with its 95 % interval from "
        f"{trials.resamples[trials.compared_by]:,} paired resamples of {trials.pictures:,} "
        "pictures. Green and red: real after correction; orange: unsure; grey: none seen."
    )
    label = f"Lead of {len(leads)} template sets over {trials.reference}"
    return figure(forest(leads, f"{what}, points over {trials.reference}", label), caption)


def trials_json(trials: Trials) -> dict[str, Any]:
    """Trials as plain values."""
    return {
        "compared_by": trials.compared_by,
        "pictures": trials.pictures,
        "reference": trials.reference,
        "best": trials.best,
        "resamples": dict(trials.resamples),
        "seed": trials.seed,
        "sets": [
            {"name": name}
            | {figure: _estimate(figures[name]) for figure, figures in trials.figures.items()}
            for name in trials.names
        ],
        "to_reference": [_difference(difference) for difference in trials.to_reference],
        "to_best": [_difference(difference) for difference in trials.to_best],
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {
        "value": number(estimate.value),
        "interval95": [number(estimate.low), number(estimate.high)],
    }


def _difference(difference: Difference) -> dict[str, Any]:
    return {
        "name": difference.name,
        "other": difference.other,
        **_estimate(difference.lead),
        "p": number(difference.p),
        "p_corrected": number(difference.p_corrected),
        "comparisons": difference.compared,
        "only_name_right": difference.only_name,
        "only_other_right": difference.only_other,
        "detectable": number(difference.detectable),
        "verdict": difference.verdict.value,
    }


def _of(differences: Sequence[Difference], name: str) -> Difference | None:
    return next((difference for difference in differences if difference.name == name), None)


def _cells(difference: Difference | None) -> list[Cell]:
    if difference is None:
        return [None, None, None]
    lead = difference.lead
    ends = f"{points(lead.low)} to {points(lead.high)}"
    return [Html(esc(points(lead.value)), lead.value), ends, _verdict(difference)]


def _verdict(difference: Difference | None) -> Cell:
    if difference is None:
        return None
    verdict = difference.verdict
    badge = f'<span class="{BADGES[verdict]}">{esc(verdict.value)}</span>'
    return Html(badge, difference.lead.value)
