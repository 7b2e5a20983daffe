"""The plots of an evaluation: confusion matrix, reliability diagram, accuracy of each class.

Knows figures and how they are drawn, nothing of the page around them.
"""

import base64
import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image

from app.evaluation.data import Places
from app.evaluation.report_axes import Plot, Scale, shares
from app.evaluation.report_parts import Html, esc, legend, many, percent, svg
from app.figures import Calibration, Share

# classes whose names a matrix shows; of more only those with most mistakes
NAMED: Final = 32

# units of a cell, and of a character of a name, of which so many are shown
CELL: Final = 22
CHARACTER: Final = 7.2
LONGEST: Final = 22

# least strength of the colour of a cell with one picture
FAINTEST: Final = 0.14


def reliability(found: Calibration) -> str:
    """How often the answers of each confidence are right, and how many there are of each."""
    bins = len(found.count)
    plot = Plot(shares(""), shares("right, %"), 560, 330, below=24)
    for place in range(bins):
        if not found.count[place]:
            continue
        low, high = place / bins, (place + 1) / bins
        right, sure = float(found.accuracy[place]), float(found.confidence[place])
        said = f"{many(int(found.count[place]), 'answer')}: {percent(sure)} sure, "
        said += f"{percent(right)} right"
        plot.bar(low, high, right, "bar s1", said)
        plot.box(low, high, right, sure, "gap", said)
    plot.line([(0, 0), (1, 1)], "ideal")
    about = f"Reliability diagram: expected calibration error {percent(found.error)}"
    keys = legend([("bar s1", "right"), ("gap", "gap to what was claimed"), ("ideal", "ideal")])
    return plot.svg(about) + _histogram(found) + keys


def _histogram(found: Calibration) -> str:
    bins, total = len(found.count), max(1, int(found.count.sum()))
    most = float(found.count.max()) / total
    y = Scale(0, most, [(0, "0"), (most, f"{100 * most:.0f}")], "answers, %")
    plot = Plot(shares("confidence, %"), y, 560, 118)
    for place in range(bins):
        share = float(found.count[place]) / total
        said = many(int(found.count[place]), "answer")
        plot.bar(place / bins, (place + 1) / bins, share, "bar quiet", said)
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
        for column, said in enumerate(order):
            if matrix[truth, said]:
                x, y = side + column * CELL, side + row * CELL
                share = float(matrix[truth, said] / counts[truth])
                parts.append(_cell(x, y, share, int(matrix[truth, said]), names, (truth, said)))
    about = f"Confusion matrix of {len(order)} classes; the table of confused pairs says the same"
    return svg(side + size + 2, side + size + 2, about, "".join(parts), "plot matrix")


def _cell(
    x: float, y: float, share: float, count: int, names: Sequence[str], pair: tuple[int, int]
) -> str:
    truth, said = pair
    kind = "hit" if truth == said else "miss"
    strength = FAINTEST + (1 - FAINTEST) * np.sqrt(share)
    number = ""
    if count < 1_000:
        tone = " on" if strength > 0.62 else ""
        number = (
            f'<text class="count{tone}" x="{x + CELL / 2:g}" y="{y + CELL / 2 + 3.5:g}" '
            f'text-anchor="middle">{count}</text>'
        )
    title = f"{names[truth]} → {names[said]}: {count:,} ({percent(share)})"
    return (
        f'<g><title>{esc(title)}</title><rect class="{kind}" x="{x + 1:g}" y="{y + 1:g}" rx="3" '
        f'width="{CELL - 2}" height="{CELL - 2}" fill-opacity="{strength:.2f}"/>{number}</g>'
    )


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


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
