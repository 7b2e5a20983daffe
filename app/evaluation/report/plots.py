"""Axes, lines, bands, bars and points of a plot, as SVG. Knows nothing of what is plotted."""

import base64
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final

import numpy as np
from PIL import Image

from app.arrays import Places
from app.evaluation.figures import Share
from app.evaluation.report.html import ASSETS, Html, esc, legend, many, percent, points, svg
from app.labelsets.calibration.reliability import Reliability

# units around the plot: room for numbers and titles
LEFT: Final = 54
RIGHT: Final = 14
TOP: Final = 12
BELOW: Final = 44

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from `low` to `high` with `ticks`, each with what is written beside it."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    title: str
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """Where a value is: 0 at the low end, 1 at the high one."""
        low, high, place = self.low, self.high, value
        if self.logarithmic:
            low, high, place = math.log(low), math.log(high), math.log(max(value, 1e-12))
        return (place - low) / (high - low) if high > low else 0.5


def shares(title: str, low: float = 0.0, high: float = 1.0) -> Scale:
    """A scale of shares, written in percent; its ends are moved out to round numbers."""
    step = _round_step((high - low) / 5)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    count = round((high - low) / step)
    values = [low + step * i for i in range(count + 1)]
    digits = 0 if step >= 0.01 else 1
    return Scale(low, high, [(v, f"{100 * v:.{digits}f}") for v in values], title)


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(max(least, 1e-4)))
    return next(power * n for n in (1, 2, 2.5, 5, 10) if power * n >= least - 1e-12)


@dataclass(slots=True)
class Plot:
    """A plot that things are drawn on, in the order of the calls; `kind` is always a CSS class."""

    x: Scale
    y: Scale
    width: float = 520
    height: float = 340
    below: float = BELOW
    _parts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        left, right, top, base = self.px(self.x.low), self.px(self.x.high), TOP, self.py(self.y.low)
        for value, text in self.y.ticks:
            y = self.py(value)
            self._add(f'<path class="grid" d="M{left:g} {y:.1f}H{right:g}"/>')
            self._add(
                f'<text class="tick" x="{left - 8:g}" y="{y + 4:.1f}" text-anchor="end">'
                f"{esc(text)}</text>"
            )
        for value, text in self.x.ticks:
            x = self.px(value)
            self._add(f'<path class="grid" d="M{x:.1f} {top}V{base:.1f}"/>')
            self._add(
                f'<text class="tick" x="{x:.1f}" y="{base + 17:.1f}" text-anchor="middle">'
                f"{esc(text)}</text>"
            )
        middle = (left + right) / 2
        self._add(
            f'<text class="axis" x="{middle:.1f}" y="{self.height - 6:g}" text-anchor="middle">'
            f"{esc(self.x.title)}</text>"
        )
        at = f"13 {(TOP + base) / 2:.1f}"
        self._add(
            f'<text class="axis" transform="translate({at}) rotate(-90)" text-anchor="middle">'
            f"{esc(self.y.title)}</text>"
        )

    def px(self, value: float) -> float:
        """Units from the left."""
        return LEFT + self.x.at(value) * (self.width - LEFT - RIGHT)

    def py(self, value: float) -> float:
        """Units from the top."""
        return TOP + (1 - self.y.at(value)) * (self.height - TOP - self.below)

    def line(self, points_drawn: Sequence[Point], kind: str) -> None:
        """A line through points, in their order."""
        self._add(f'<path class="line {kind}" d="{self._path(points_drawn)}"/>')

    def band(self, low: Sequence[Point], high: Sequence[Point], kind: str) -> None:
        """What lies between two lines."""
        path = self._path([*low, *reversed(high)])
        self._add(f'<path class="band {kind}" d="{path}Z"/>')

    def dots(self, points_drawn: Sequence[Point], kind: str, title: Callable[[Point], str]) -> None:
        """A dot at each point; `title` says what is read where a mouse rests on it."""
        for point in points_drawn:
            x, y = self.px(point[0]), self.py(point[1])
            circle = f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"'
            self._shape(circle, title(point))

    def whisker(self, x: float, low: float, high: float, kind: str) -> None:
        """A vertical interval at x."""
        at, top, base = self.px(x), self.py(high), self.py(low)
        cap = f"M{at - 4:.1f} {top:.1f}h8M{at - 4:.1f} {base:.1f}h8"
        self._add(f'<path class="whisker {kind}" d="M{at:.1f} {top:.1f}V{base:.1f}{cap}"/>')

    def bar(self, left: float, right: float, value: float, kind: str, title: str) -> None:
        """A bar from the lower end of y to a value."""
        self.box(left, right, self.y.low, value, kind, title)

    def box(
        self, left: float, right: float, low: float, high: float, kind: str, title: str
    ) -> None:
        """A rectangle."""
        x, y = self.px(left) + 1, self.py(max(low, high))
        wide = max(0.5, self.px(right) - x - 1)
        tall = max(0.0, self.py(min(low, high)) - y)
        rect = f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}"'
        self._shape(f'{rect} height="{tall:.1f}"', title)

    def level(self, value: float, kind: str, text: str = "") -> None:
        """A horizontal line over the whole width, with a text on it at the right."""
        y = self.py(value)
        right = self.px(self.x.high)
        self._add(f'<path class="line {kind}" d="M{self.px(self.x.low):g} {y:.1f}H{right:g}"/>')
        if text:
            self._add(
                f'<text class="tick" x="{right - 4:g}" y="{y - 6:.1f}" text-anchor="end">'
                f"{esc(text)}</text>"
            )

    def svg(self, label: str) -> str:
        """The drawing; `label` says in words what it shows."""
        return svg(self.width, self.height, label, "".join(self._parts))

    def _path(self, points_drawn: Sequence[Point]) -> str:
        return "M" + "L".join(f"{self.px(x):.1f} {self.py(y):.1f}" for x, y in points_drawn)

    def _shape(self, begun: str, title: str) -> None:
        tag = begun[1 : begun.index(" ")]
        self._add(f"{begun}><title>{esc(title)}</title></{tag}>")

    def _add(self, part: str) -> None:
        self._parts.append(part)


WIDTH: Final = 640
ROW: Final = 30
FOREST_TOP: Final = 10


FOREST_RIGHT: Final = 16

# units of a character of a name where a small screen enlarges it; of which so many are shown
FOREST_CHARACTER: Final = 9.6
LONGEST: Final = 22


@dataclass(frozen=True, slots=True)
class Lead:
    """A lead, as a share, with its interval; `kind` is the CSS class of its colour."""

    name: str
    value: float
    low: float
    high: float
    kind: str
    verdict: str


def forest(leads: Sequence[Lead], title: str, label: str) -> str:
    """One row per lead, in order; `title` is printed below the axis, `label` describes the plot."""
    low = min(-0.01, *(lead.low for lead in leads))
    high = max(0.01, *(lead.high for lead in leads))
    axis = shares(title, low, high)
    left = max(len(_short(lead.name)) for lead in leads) * FOREST_CHARACTER + 18
    base = FOREST_TOP + ROW * len(leads)

    def at(value: float) -> float:
        return left + axis.at(value) * (WIDTH - left - FOREST_RIGHT)

    parts = [
        f'<path class="grid" d="M{at(value):.1f} {FOREST_TOP}V{base}"/>'
        f'<text class="tick" x="{at(value):.1f}" y="{base + 17}" text-anchor="middle">'
        f"{esc(text.replace('-', chr(0x2212)))}</text>"
        for value, text in axis.ticks
    ]
    parts.append(f'<path class="ideal" d="M{at(0):.1f} {FOREST_TOP}V{base}"/>')
    parts.append(
        f'<text class="axis" x="{(left + WIDTH - FOREST_RIGHT) / 2:.1f}" y="{base + 38}" '
        f'text-anchor="middle">{esc(title)}</text>'
    )
    for place, lead in enumerate(leads):
        y = FOREST_TOP + ROW * (place + 0.5)
        title_text = (
            f"{lead.name}: {points(lead.value)} ({points(lead.low)} to {points(lead.high)}), "
        )
        ends = f"M{at(lead.low):.1f} {y - 4}v8M{at(lead.high):.1f} {y - 4}v8"
        parts.append(
            f"<g><title>{esc(title_text + lead.verdict)}</title>"
            f'<text class="axis" x="{left - 12:.1f}" y="{y + 4}" text-anchor="end">'
            f"{esc(_short(lead.name))}</text>"
            f'<path class="whisker {lead.kind}" d="M{at(lead.low):.1f} {y}H{at(lead.high):.1f}'
            f'{ends}"/>'
            f'<circle class="dot {lead.kind}" cx="{at(lead.value):.1f}" cy="{y}" r="4.5"/></g>'
        )
    return svg(WIDTH, base + BELOW, label, "".join(parts))


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


# classes whose names a matrix shows; of more only those with most mistakes
NAMED: Final = 32

# units of a cell, and of a character of a name, of which so many are shown
CELL: Final = 22
CHARACTER: Final = 7.2


# least strength of the colour of a cell with one picture
FAINTEST: Final = 0.14


def reliability(bins_of: Reliability) -> str:
    """How often the answers of each confidence are right, and how many there are of each."""
    bins = len(bins_of.count)
    plot = Plot(shares(""), shares("right, %"), 560, 330, below=24)
    for place in range(bins):
        if not bins_of.count[place]:
            continue
        low, high = place / bins, (place + 1) / bins
        right, sure = float(bins_of.accuracy[place]), float(bins_of.confidence[place])
        title_text = f"{many(int(bins_of.count[place]), 'answer')}: {percent(sure)} sure, "
        title_text += f"{percent(right)} right"
        plot.bar(low, high, min(right, sure), "bar s1", title_text)
        plot.box(low, high, right, sure, "over" if sure > right else "under", title_text)
    plot.line([(0, 0), (1, 1)], "ideal")
    about = f"Reliability diagram: expected calibration error {percent(bins_of.error)}"
    keys = legend(
        [
            ("bar s1", "right"),
            ("over", "scores too high by"),
            ("under", "scores too low by"),
            ("ideal", "ideal"),
        ]
    )
    return plot.svg(about) + _histogram(bins_of) + keys


def _histogram(bins_of: Reliability) -> str:
    bins, total = len(bins_of.count), max(1, int(bins_of.count.sum()))
    most = float(bins_of.count.max()) / total
    y = Scale(0, most, [(0, "0"), (most, f"{100 * most:.0f}")], "answers, %")
    plot = Plot(shares("confidence, %"), y, 560, 118)
    for place in range(bins):
        share = float(bins_of.count[place]) / total
        title_text = many(int(bins_of.count[place]), "answer")
        plot.bar(place / bins, (place + 1) / bins, share, "bar quiet", title_text)
    return plot.svg("How many answers there are of each confidence")


def by_mistakes(matrix: Places) -> list[int]:
    """Places of the classes, those first with most pictures that are confused with another."""
    wrong = matrix - np.diag(np.diag(matrix))
    troubles = wrong.sum(axis=1) + wrong.sum(axis=0)
    return [int(place) for place in np.argsort(-troubles, kind="stable")]


def matrix_svg(matrix: Places, names: Sequence[str], order: Sequence[int]) -> str:
    """The rows and columns of a confusion matrix in `order`, with names; colours by row share."""
    longest = max(min(LONGEST, len(names[place])) for place in order)
    side = longest * CHARACTER + 14
    size = len(order) * CELL
    counts = matrix.sum(axis=1)
    parts = [f'<rect class="ground" x="{side:g}" y="{side:g}" width="{size}" height="{size}"/>']
    for row, truth in enumerate(order):
        name, at = esc(_short(names[truth])), side + row * CELL + CELL / 2
        parts.append(
            f'<text class="name" x="{side - 8:g}" y="{at + 4:g}" text-anchor="end">{name}</text>'
            f'<text class="name" transform="translate({at + 4:g} {side - 8:g}) rotate(-90)">'
            f"{name}</text>"
        )
        for column, answer in enumerate(order):
            if matrix[truth, answer]:
                x, y = side + column * CELL, side + row * CELL
                share = float(matrix[truth, answer] / counts[truth])
                parts.append(_cell(x, y, share, int(matrix[truth, answer]), names, (truth, answer)))
    about = f"Confusion matrix of {len(order)} classes; the table of confused pairs says the same"
    return svg(side + size + 2, side + size + 2, about, "".join(parts), "plot matrix")


def _cell(
    x: float, y: float, share: float, count: int, names: Sequence[str], pair: tuple[int, int]
) -> str:
    truth, answer = pair
    kind = "hit" if truth == answer else "miss"
    strength = FAINTEST + (1 - FAINTEST) * np.sqrt(share)
    number = ""
    if count < 1_000:
        tone = _white(kind, float(strength))
        number = (
            f'<text class="count{tone}" x="{x + CELL / 2:g}" y="{y + CELL / 2 + 3.5:g}" '
            f'text-anchor="middle">{count}</text>'
        )
    title = f"{names[truth]} → {names[answer]}: {count:,} ({percent(share)})"
    return (
        f'<g><title>{esc(title)}</title><rect class="{kind}" x="{x + 1:g}" y="{y + 1:g}" rx="3" '
        f'width="{CELL - 2}" height="{CELL - 2}" fill-opacity="{strength:.2f}"/>{number}</g>'
    )


# where white and black are equally easy to read: (L + 0.05) ** 2 = 1.05 * 0.05 (WCAG 2.2)
MIDDLE: Final = 0.1791
LUMA: Final = (0.2126, 0.7152, 0.0722)

TOKEN: Final = re.compile(r"--(sunken|hit|miss): light-dark\(#(\w{6}), #(\w{6})\);")


@cache
def _colours() -> dict[str, dict[str, bytes]]:
    """By day and by night: red, green and blue of each token."""
    found = TOKEN.findall((ASSETS / "report.css").read_text(encoding="utf-8"))
    return {
        "day": {name: bytes.fromhex(day) for name, day, _ in found},
        "night": {name: bytes.fromhex(night) for name, _, night in found},
    }


def _white(kind: str, strength: float) -> str:
    """The classes of a number in a cell: when it is white."""
    classes = ""
    for time, colours in _colours().items():
        luminance = 0.0
        for weight, cell, ground in zip(LUMA, colours[kind], colours["sunken"], strict=True):
            mixed = (strength * cell + (1 - strength) * ground) / 255
            luminance += weight * (
                mixed / 12.92 if mixed <= 0.04045 else ((mixed + 0.055) / 1.055) ** 2.4
            )
        classes += f" white-by-{time}" if luminance < MIDDLE else ""
    return classes


def matrix_image(matrix: Places) -> str:
    """All cells of a large confusion matrix, one pixel each, as a picture for any background."""
    rows = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    share = matrix / rows
    strength = np.where(matrix > 0, FAINTEST + (1 - FAINTEST) * np.sqrt(share), 0.0)
    pixels = np.zeros((*matrix.shape, 4), np.uint8)
    pixels[..., :3] = (208, 72, 50)
    pixels[np.diag_indices(len(matrix))] = (22, 148, 130, 0)
    pixels[..., 3] = np.round(255 * strength)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", optimize=True)
    data = base64.b64encode(out.getvalue()).decode()
    about = f"Confusion matrix of all {len(matrix)} classes, a point for each pair"
    return f'<img class="matrix" src="data:image/png;base64,{data}" alt="{esc(about)}">'


def class_bar(share: Share) -> Html:
    """A bar as long as the share, with its interval, for a cell of a table; sorts by the share."""
    low, high = share.interval
    drawing = (
        '<svg class="meter" viewBox="0 0 120 14" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" x="0" y="4" width="120" height="6" rx="3"/>'
        f'<rect class="bar s1" x="0" y="4" width="{120 * share.value:.1f}" height="6" rx="3"/>'
        f'<path class="whisker" d="M{120 * low:.1f} 7H{120 * high:.1f}"/></svg>'
    )
    return Html(drawing, share.value)
