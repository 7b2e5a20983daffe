"""Few-shot curves as a section of a report: plot, table, JSON. Computes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from app.evaluation.figures import number, share_json
from app.evaluation.report.html import (
    Cell,
    esc,
    figure,
    how,
    legend,
    many,
    paragraph,
    percent,
    plain_table,
    points,
    span,
    table,
    with_numbers,
)
from app.evaluation.report.plots import Plot, Scale, shares
from app.evaluation.shots import Curve, Point, Shots

METHODS: Final = {"probe": "linear probe", "blend": "text and pictures"}

# names that a sentence lists
NAMED: Final = 6


def notes_of(shots: Shots) -> list[str]:
    """What the data did not give."""
    notes = []
    if shots.left_out:
        notes.append(
            f"Without two pictures, so left out everywhere, as answers too: "
            f"{_some_of(shots.left_out)}."
        )
    for count, names in shots.short.items():
        if names:
            notes.append(
                f"Fewer than {count} to draw from, so with all they have: "
                f"{_some_of(names)} ({len(names)} of {len(shots.classes)})."
            )
    if shots.too_many:
        notes.append(
            f"Not drawn: {', '.join(map(str, shots.too_many))} a class; the largest has "
            f"{shots.largest} pictures in its half."
        )
    return notes


def method_of(shots: Shots) -> list[str]:
    """How the curves were made."""
    whiskers = (
        f"Whiskers: 95 % interval of the mean over {shots.draws} draws (Student's t)."
        if shots.draws > 1
        else "One draw, so no interval over draws."
    )
    return [
        f"One half of each class, {many(shots.tested, 'picture')}, is for testing alone; shots are "
        f"drawn from the other {shots.pool:,}, those of one draw nested, seed {shots.seed}. "
        f"{whiskers} Intervals of a lead over zero-shot resample test pictures and draws, "
        f"{shots.resamples:,} times.",
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
    sentence = f"{name}: ahead of zero-shot from {many(first, 'picture')} a class{about}"
    if curve.certain is None:
        ends = f"{points(last.lead_low)} to {points(last.lead_high)}"
        with_most = f"{points(last.lead)} points ({ends}) with {last.shots}"
        return f"{sentence}, but never significantly: {with_most}."
    if curve.certain == first:
        return f"{sentence}, and significantly so."
    return f"{sentence}, for certain from {curve.certain}."


def _at_most(shots: Shots) -> str:
    last = [curve.points[-1] for curve in shots.curves]
    reached = ", ".join(
        f"{METHODS[curve.method]} {percent(point.value)}"
        for curve, point in zip(shots.curves, last, strict=True)
    )
    return f"With {many(last[0].shots, 'picture')} a class: {reached}."


def _some_of(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"


COLOURS: Final = {"probe": "s2", "blend": "s3"}

# how far beside the number of shots a method's points stand, so that whiskers do not cover others
BESIDE: Final = {"probe": 1.0, "blend": 1.05}
MARGIN: Final = 1.25


@dataclass(frozen=True, slots=True)
class ShotsSection:
    """Zero-shot against few-shot."""

    shots: Shots

    key = "shots"
    title = "Zero-shot, few-shot, linear probe"

    def words(self) -> list[str]:
        """The verdicts, in sentences."""
        shots = self.shots
        share = shots.zero_shot
        return [
            f"Zero-shot, without any picture: {percent(share.value)} of "
            f"{many(shots.tested, 'test picture')} ({span(*share.interval)}), among "
            f"{many(len(shots.classes), 'class', 'classes')}.",
            *(_crossing(curve) for curve in shots.curves),
            _at_most(shots),
        ]

    def json(self) -> Mapping[str, Any]:
        """All points and their draws."""
        measured = self.shots
        return {
            "zero_shot": share_json(measured.zero_shot),
            "curves": {curve.method: _curve(curve) for curve in measured.curves},
            "classes": len(measured.classes),
            "left_out": list(measured.left_out),
            "short": {str(count): list(names) for count, names in measured.short.items() if names},
            "not_drawn": list(measured.too_many),
            "test_pictures": measured.tested,
            "pool_pictures": measured.pool,
            "draws": measured.draws,
            "resamples": measured.resamples,
            "seed": measured.seed,
            "words": [*self.words(), *notes_of(measured)],
        }

    def html(self) -> str:
        """Verdicts, plot, table, what the data lacked, and the method."""
        shots = self.shots
        notes = "".join(f'<p class="note">{esc(note)}</p>' for note in notes_of(shots))
        caption = (
            f"Top-1 on the same {shots.tested:,} test pictures. Line and band: zero-shot with its "
            "95 % interval. Whiskers: 95 % interval of the mean over draws."
        )
        keys = [("line s1", "zero-shot")]
        keys += [(f"line {COLOURS[c.method]}", METHODS[c.method]) for c in shots.curves]
        return (
            "".join(paragraph(line) for line in self.words())
            + figure(self._plot() + legend(keys), caption)
            + table(
                "Top-1 by shots, which are pictures a class; ± of the mean over draws, at 95 %",
                with_numbers(self._head()),
                self._rows(),
            )
            + notes
            + how(*method_of(shots))
        )

    def table(self) -> RenderableType:
        """Points, verdicts, and what the data lacked."""
        lines = [*self.words(), *notes_of(self.shots), *method_of(self.shots)]
        return Group(plain_table(self._head(), self._rows()), *(Text(line) for line in lines))

    def _head(self) -> list[str]:
        names = [METHODS[curve.method] for curve in self.shots.curves]
        return ["shots", *(part for name in names for part in (name, "to zero-shot"))]

    def _rows(self) -> list[list[Cell]]:
        zero = percent(self.shots.zero_shot.value)
        rows: list[list[Cell]] = [["0 (zero-shot)", *(zero, None) * len(self.shots.curves)]]
        for together in zip(*(curve.points for curve in self.shots.curves), strict=True):
            shots = together[0].shots
            short = len(self.shots.short[shots])
            row: list[Cell] = [f"{'up to ' if short else ''}{shots}"]
            for point in together:
                row += [_mean(point), f"{points(point.lead)} ({_ends(point)})"]
            rows.append(row)
        return rows

    def _plot(self) -> str:
        measured = self.shots
        every = [point for curve in measured.curves for point in curve.points]
        low, high = measured.zero_shot.interval
        y = shares(
            "top-1, %", min(low, *(p.low for p in every)), max(high, *(p.high for p in every))
        )
        numbers = sorted({point.shots for point in every})
        ticks = [(float(number), str(number)) for number in numbers]
        x = Scale(
            numbers[0] / MARGIN, numbers[-1] * MARGIN, ticks, "pictures a class", logarithmic=True
        )
        plot = Plot(x, y, 640, 380)
        ends = (x.low, x.high)
        plot.band([(at, low) for at in ends], [(at, high) for at in ends], "s1")
        plot.level(measured.zero_shot.value, "s1")
        for curve in measured.curves:
            colour, beside = COLOURS[curve.method], BESIDE[curve.method]
            for point in curve.points:
                plot.whisker(point.shots * beside, point.low, point.high, colour)
            line = [(point.shots * beside, point.value) for point in curve.points]
            plot.line(line, colour)
            plot.dots(line, colour, lambda at: percent(at[1]))
        return plot.svg(" ".join(self.words()))


def _mean(point: Point) -> str:
    half = 100 * (point.high - point.low) / 2
    return percent(point.value) + (f" ± {half:.1f}" if half else "")


def _ends(point: Point) -> str:
    return f"{points(point.lead_low)} to {points(point.lead_high)}"


def _curve(curve: Curve) -> dict[str, Any]:
    chosen = "l2_strength_log10" if curve.method == "probe" else "weight"
    return {
        "overtakes": curve.overtakes,
        "overtakes_for_certain": curve.certain,
        "level_at": None if curve.crossing is None else number(curve.crossing),
        "points": [
            {
                "shots": point.shots,
                "value": number(point.value),
                "interval95": [number(point.low), number(point.high)],
                "draws": [number(draw) for draw in point.draws],
                "lead": number(point.lead),
                "lead_interval95": [number(point.lead_low), number(point.lead_high)],
                chosen: number(point.chosen),
            }
            for point in curve.points
        ],
    }
