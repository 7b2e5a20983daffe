"""Axes, lines, bands, bars and points of a plot, as SVG. Knows nothing of what is plotted."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from app.evaluation.report_parts import esc, svg

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
        low, high, found = self.low, self.high, value
        if self.logarithmic:
            low, high, found = math.log(low), math.log(high), math.log(max(value, 1e-12))
        return (found - low) / (high - low) if high > low else 0.5


def shares(title: str, low: float = 0.0, high: float = 1.0, ticks: int = 5) -> Scale:
    """A scale of shares, written in percent; its ends are moved out to round numbers."""
    step = _round_step((high - low) / ticks)
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

    def line(self, found: Sequence[Point], kind: str = "s1", title: str = "") -> None:
        """A line through points, in their order."""
        self._shape(f'<path class="line {kind}" d="{self._path(found)}"', title)

    def band(self, low: Sequence[Point], high: Sequence[Point], kind: str = "s1") -> None:
        """What lies between two lines."""
        path = self._path([*low, *reversed(high)])
        self._add(f'<path class="band {kind}" d="{path}Z"/>')

    def dots(
        self, found: Sequence[Point], kind: str = "s1", title: Callable[[Point], str] | None = None
    ) -> None:
        """A dot at each point; `title` says what is read where a mouse rests on it."""
        for point in found:
            x, y = self.px(point[0]), self.py(point[1])
            circle = f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"'
            self._shape(circle, title(point) if title else "")

    def whisker(self, x: float, low: float, high: float, kind: str = "s1") -> None:
        """An interval that stands at x."""
        at, top, base = self.px(x), self.py(high), self.py(low)
        cap = f"M{at - 4:.1f} {top:.1f}h8M{at - 4:.1f} {base:.1f}h8"
        self._add(f'<path class="whisker {kind}" d="M{at:.1f} {top:.1f}V{base:.1f}{cap}"/>')

    def bar(self, left: float, right: float, value: float, kind: str, title: str = "") -> None:
        """A bar from the lower end of y to a value."""
        self.box(left, right, self.y.low, value, kind, title)

    def box(
        self, left: float, right: float, low: float, high: float, kind: str, title: str = ""
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

    def note(self, x: float, y: float, text: str, anchor: str = "start") -> None:
        """A text at a place."""
        at = f'x="{self.px(x):.1f}" y="{self.py(y):.1f}"'
        self._add(f'<text class="tick" {at} text-anchor="{anchor}">{esc(text)}</text>')

    def svg(self, label: str) -> str:
        """The drawing; `label` says in words what it shows."""
        return svg(self.width, self.height, label, "".join(self._parts))

    def _path(self, found: Sequence[Point]) -> str:
        return "M" + "L".join(f"{self.px(x):.1f} {self.py(y):.1f}" for x, y in found)

    def _shape(self, begun: str, title: str) -> None:
        tag = begun[1 : begun.index(" ")]
        self._add(f"{begun}><title>{esc(title)}</title></{tag}>" if title else f"{begun}/>")

    def _add(self, part: str) -> None:
        self._parts.append(part)
