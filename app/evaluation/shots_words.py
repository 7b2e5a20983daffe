"""What few-shot curves say, in sentences. Knows no HTML."""

from collections.abc import Sequence
from typing import Final

from app.evaluation.report_parts import many, percent, points, span
from app.evaluation.shot_points import Curve, Shots

METHODS: Final = {"probe": "linear probe", "blend": "text and pictures"}

# names that a sentence lists
NAMED: Final = 6


def words_of(found: Shots) -> list[str]:
    """The verdicts."""
    share = found.zero_shot
    return [
        f"Zero-shot, without any picture: {percent(share.value)} of "
        f"{many(found.tested, 'test picture')} ({span(*share.interval)}), among "
        f"{many(len(found.classes), 'class', 'classes')}.",
        *(_crossing(curve) for curve in found.curves),
        _at_most(found),
    ]


def notes_of(found: Shots) -> list[str]:
    """What the data did not give."""
    notes = []
    if found.left_out:
        notes.append(
            f"Without two pictures, so left out everywhere, as answers too: "
            f"{_named(found.left_out)}."
        )
    for shots, names in found.short.items():
        if names:
            notes.append(
                f"Fewer than {shots} to draw from, so with all they have: "
                f"{_named(names)} ({len(names)} of {len(found.classes)})."
            )
    if found.too_many:
        notes.append(
            f"Not drawn: {', '.join(map(str, found.too_many))} a class; the largest has "
            f"{found.largest} pictures in its half."
        )
    return notes


def method_of(found: Shots) -> list[str]:
    """How the curves were made."""
    whiskers = (
        f"Whiskers: 95 % interval of the mean over {found.draws} draws (Student's t)."
        if found.draws > 1
        else "One draw, so no interval over draws."
    )
    return [
        f"One half of each class, {many(found.tested, 'picture')}, is for testing alone; shots are "
        f"drawn from the other {found.pool:,}, those of one draw nested, seed {found.seed}. "
        f"{whiskers} Intervals of a lead over zero-shot resample test pictures and draws, "
        f"{found.resamples:,} times.",
        "Linear probe: logistic regression on image vectors, L-BFGS, its L2 strength by "
        "cross-validation on the first draw's shots from 1e-6 to 1e6; 1 where one picture a class "
        "leaves none to choose by. Text and pictures: class vectors of the templates with centred "
        "prototypes, weight by leave-one-out on each draw; with one picture a class it stays 0.",
    ]


def _crossing(curve: Curve) -> str:
    name = METHODS[curve.method].capitalize()
    first, last = curve.overtakes, curve.points[-1]
    if first is None:
        if last.lead == 0:
            return f"{name}: as good as zero-shot with up to {last.shots} pictures a class."
        return f"{name}: behind zero-shot with up to {last.shots} pictures a class."
    about = "" if curve.crossing is None else f" (level at about {curve.crossing:.1f})"
    said = f"{name}: ahead of zero-shot from {many(first, 'picture')} a class{about}"
    if curve.certain is None:
        ends = f"{points(last.lead_low)} to {points(last.lead_high)}"
        return (
            f"{said}, but never for certain: {points(last.lead)} points ({ends}) with {last.shots}."
        )
    if curve.certain == first:
        return f"{said}, and that is real."
    return f"{said}, for certain from {curve.certain}."


def _at_most(found: Shots) -> str:
    last = [curve.points[-1] for curve in found.curves]
    reached = ", ".join(
        f"{METHODS[curve.method]} {percent(point.value)}"
        for curve, point in zip(found.curves, last, strict=True)
    )
    return f"With {many(last[0].shots, 'picture')} a class: {reached}."


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"
