"""A forest plot: leads with their intervals beside a line at 0. Knows nothing of what leads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.evaluation.report_axes import shares
from app.evaluation.report_parts import esc, points, svg

WIDTH: Final = 640
ROW: Final = 30
TOP: Final = 10
BELOW: Final = 44
RIGHT: Final = 16

# units of a character of a name where a small screen enlarges it; of which so many are shown
CHARACTER: Final = 9.6
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
    """One row a lead, in order; `title` stands below the axis, `label` says what is seen."""
    low = min(-0.01, *(lead.low for lead in leads))
    high = max(0.01, *(lead.high for lead in leads))
    axis = shares(title, low, high)
    left = max(len(_short(lead.name)) for lead in leads) * CHARACTER + 18
    base = TOP + ROW * len(leads)

    def at(value: float) -> float:
        return left + axis.at(value) * (WIDTH - left - RIGHT)

    parts = [
        f'<path class="grid" d="M{at(value):.1f} {TOP}V{base}"/>'
        f'<text class="tick" x="{at(value):.1f}" y="{base + 17}" text-anchor="middle">'
        f"{esc(text.replace('-', chr(0x2212)))}</text>"
        for value, text in axis.ticks
    ]
    parts.append(f'<path class="ideal" d="M{at(0):.1f} {TOP}V{base}"/>')
    parts.append(
        f'<text class="axis" x="{(left + WIDTH - RIGHT) / 2:.1f}" y="{base + 38}" '
        f'text-anchor="middle">{esc(title)}</text>'
    )
    for place, lead in enumerate(leads):
        y = TOP + ROW * (place + 0.5)
        said = f"{lead.name}: {points(lead.value)} ({points(lead.low)} to {points(lead.high)}), "
        ends = f"M{at(lead.low):.1f} {y - 4}v8M{at(lead.high):.1f} {y - 4}v8"
        parts.append(
            f"<g><title>{esc(said + lead.verdict)}</title>"
            f'<text class="axis" x="{left - 12:.1f}" y="{y + 4}" text-anchor="end">'
            f"{esc(_short(lead.name))}</text>"
            f'<path class="whisker {lead.kind}" d="M{at(lead.low):.1f} {y}H{at(lead.high):.1f}'
            f'{ends}"/>'
            f'<circle class="dot {lead.kind}" cx="{at(lead.value):.1f}" cy="{y}" r="4.5"/></g>'
        )
    return svg(WIDTH, base + BELOW, label, "".join(parts))


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
