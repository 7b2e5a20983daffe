"""What trials of template sets say, in sentences. Knows no HTML."""

from collections.abc import Iterable
from typing import Final

from app.evaluation.report_parts import many, percent, points
from app.evaluation.trials import MAP, PER_CLASS, TOP1, Difference, Trials, Verdict

FIGURE_NAMES: Final = {TOP1: "top-1", PER_CLASS: "mean per class", MAP: "mAP"}

# names that a sentence lists
NAMED: Final = 8


def words_of(found: Trials) -> list[str]:
    """The verdicts first, then how they were reached."""
    figure = found.compared_by
    best = found.figures[figure][found.best]
    return [
        f"Best of {len(found.names)} on {many(found.pictures, 'picture')}: {found.best}, "
        f"{FIGURE_NAMES[figure]} {percent(best.value)}.",
        *_to_reference(found),
        *_to_best(found),
        how(found),
        power(found.to_reference, found.pictures),
    ]


def _to_reference(found: Trials) -> list[str]:
    name = found.reference
    return [
        sentence
        for verdict, begun in (
            (Verdict.BETTER, f"Better than {name}, and that is real: "),
            (Verdict.WORSE, f"Worse than {name}, and that is real: "),
            (Verdict.UNSURE, f"Perhaps different from {name}, but not for certain: "),
            (Verdict.OPEN, f"Not told apart from {name}: "),
        )
        for sentence in _listed(begun, (d for d in found.to_reference if d.verdict is verdict))
    ]


def _to_best(found: Trials) -> list[str]:
    if found.best == found.reference or len(found.names) == 2:
        return []
    equal = (d for d in found.to_best if d.verdict is not Verdict.WORSE)
    return _listed(f"May be as good as the best, {found.best}: ", equal) or [
        f"Every other set is behind {found.best}, and that is real."
    ]


def _listed(begun: str, differences: Iterable[Difference]) -> list[str]:
    leads = [f"{found.name} ({points(found.lead.value)})" for found in differences]
    if len(leads) > NAMED:
        leads[NAMED:] = [f"{len(leads) - NAMED} more"]
    return [begun + ", ".join(leads) + " points."] if leads else []


def how(found: Trials) -> str:
    """When a difference counts as real."""
    resamples = found.resamples[found.compared_by]
    first = (
        f"A difference is real if its 95 % interval excludes 0: {resamples:,} resamples of the "
        f"pictures, the same for every set, seed {found.seed}"
    )
    if found.compared_by == TOP1:
        first += ", and if McNemar's exact test on the pictures that one of two alone has right "
        first += "says so too"
    compared = len(found.names) - 1
    if compared == 1:
        return first + "."
    pairs = ""
    if found.best != found.reference:
        pairs = (
            f", or where the best is one of two, which these pictures chose, for all "
            f"{compared * (compared + 1) // 2} pairs"
        )
    against = f"{compared} comparisons with {found.reference}{pairs}"
    return f"{first}; after Holm's correction for {against}."


def power(differences: Iterable[Difference], pictures: int) -> str:
    """What so many pictures cannot show."""
    least = max(found.detectable for found in differences)
    return (
        f"{many(pictures, 'picture')} show a true difference of {points(least).removeprefix('+')} "
        "points in 4 of 5 cases; a smaller one mostly goes unseen."
    )
