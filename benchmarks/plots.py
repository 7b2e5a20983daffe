"""A small plot as SVG, the same bytes for the same figures. Knows nothing of measurements."""

import io
from pathlib import Path
from typing import Any, Final

# readable on a white and on a near-black ground alike
GREY: Final = "#7f858c"
COLOURS: Final = ("#2f81d8", "#d9822b", "#2f9e6e", "#b05fc4")
MARKERS: Final = ("o", "s", "^", "D")
INCHES: Final = (5.2, 2.9)


class NoPlotter(Exception):
    """matplotlib is not installed."""


def draw(plot: dict[str, Any], title: str) -> str:
    """The SVG of a `record.Plot` as its file holds it. Raises NoPlotter."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise NoPlotter("matplotlib is missing (pip install 'openvocab[bench]')") from None
    look: Any = {
        "svg.hashsalt": "openvocab",
        "svg.fonttype": "none",
        "font.size": 9,
        "font.family": ["sans-serif"],
        "text.color": GREY,
        "axes.edgecolor": GREY,
        "axes.labelcolor": GREY,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(look):
        figure = Figure(figsize=INCHES, layout="constrained")
        axes = figure.add_subplot()
        for number, (name, points) in enumerate(plot["series"].items()):
            axes.plot(
                *zip(*points, strict=True),
                label=name,
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                markersize=4,
                linewidth=1.5,
            )
        if plot["log_x"]:
            axes.set_xscale("log")
            _plain_ticks(axes, plot)
        if plot["log_y"]:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(plot["x"])
        axes.set_ylabel(plot["y"])
        axes.set_title(title, fontsize=9)
        axes.grid(color=GREY, alpha=0.25, linewidth=0.6)
        if len(plot["series"]) > 1:
            axes.legend(frameon=False, labelcolor=GREY)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def save(plot: dict[str, Any], title: str, path: Path) -> None:
    """Write the SVG."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(draw(plot, title), encoding="utf-8")


def _plain_ticks(axes: Any, plot: dict[str, Any]) -> None:
    """The measured places themselves, thinned where they would touch."""
    places = sorted({x for points in plot["series"].values() for x, _ in points})
    labelled = [places[0]]
    span = places[-1] / places[0]
    for place in places[1:]:
        if place / labelled[-1] > span ** (1 / 9):
            labelled.append(place)
    axes.set_xticks(labelled, [f"{place:,g}" for place in labelled])
    axes.minorticks_off()
