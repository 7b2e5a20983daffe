"""What a report shows in each of its own sections, as HTML. Knows nothing of the page around."""

from pathlib import PurePath
from typing import Final

import numpy as np

from app.evaluation.report import Picture, Result
from app.evaluation.report_parts import (
    NO_VALUE,
    Cell,
    Column,
    Html,
    esc,
    figure,
    legend,
    paragraph,
    percent,
    scrolled,
    share_cell,
    table,
)
from app.evaluation.report_plots import (
    NAMED,
    by_mistakes,
    class_bar,
    matrix_image,
    matrix_svg,
    reliability,
)
from app.figures import BINS, Share

# rows of the table of confused pairs that are shown at once
PAIRS: Final = 15

# sides of a matrix in points beyond which it is no picture any more
MOST_POINTS: Final = 3_000


def calibrated(result: Result) -> str:
    """The reliability diagram."""
    what = (
        "A score of 0.8 should be right in 80 of 100 cases. "
        f"The answers stand in {BINS} bins of equal width by their score; a bar says how many of a "
        "bin are right. The expected calibration error (Guo et al. 2017) is the mean gap, "
        "weighted by the number of answers."
    )
    if result.figures.top1 is None:
        what += " Every score of every label counts as an answer here."
    error = percent(result.figures.calibration.error)
    largest = percent(result.figures.calibration.largest)
    caption = f"Expected calibration error {error}, largest gap of a bin {largest}."
    return paragraph(what, "lead") + figure(
        reliability(result.figures.calibration), caption, kind="narrow"
    )


def confusions(result: Result) -> str:
    """The confusion matrix, in two orders, and the pairs that are most often confused."""
    matrix, labels = result.figures.matrix, result.encoded.dataset.classes
    if matrix is None:
        return ""
    worst = by_mistakes(matrix)
    keys = legend([("hit", "right"), ("miss", "taken for another")])
    lead = "A row is what the pictures show, a column what they were taken for; stronger colours "
    lead += "are larger shares of the row. Rest on a cell to read it."
    if len(labels) <= NAMED:
        body = _in_two_orders(
            [matrix_svg(matrix, labels, order) for order in (worst, list(range(len(labels))))],
            ("Most confused first", "In the order of the classes"),
        )
        return paragraph(lead, "lead") + figure(body + keys, _cut(labels)) + _pairs(result)
    some = worst[:NAMED]
    part = matrix_svg(matrix, labels, some)
    caption = f"The {NAMED} of {len(labels)} classes with most mistakes."
    found = paragraph(lead, "lead") + figure(f"{scrolled(part, 'Confusion matrix')}{keys}", caption)
    if len(labels) <= MOST_POINTS:
        whole = _in_two_orders(
            [
                matrix_image(matrix),
                matrix_image(matrix[np.ix_(worst, worst)]),
            ],
            ("In the order of the classes", "Most confused first"),
            "whole",
        )
        found += figure(whole + keys, f"All {len(labels)} classes, a point for each pair.")
    return found + _pairs(result)


def _cut(labels: tuple[str, ...]) -> str:
    return f"Number of pictures of each pair of the {len(labels)} classes."


def _in_two_orders(panes: list[str], names: tuple[str, str], group: str = "order") -> str:
    inputs = "".join(
        f'<input class="choice" type="radio" name="{group}" id="{group}-{n}"'
        f"{' checked' if n == 1 else ''}>"
        for n in (1, 2)
    )
    labels = "".join(
        f'<label for="{group}-{n}">{esc(name)}</label>' for n, name in enumerate(names, start=1)
    )
    shown = "".join(
        f'<div class="pane-{n}">{scrolled(pane, "Confusion matrix")}</div>'
        for n, pane in enumerate(panes, start=1)
    )
    return f'<div>{inputs}<div class="tabs">{labels}</div>{shown}</div>'


def _pairs(result: Result) -> str:
    labels = result.encoded.dataset.classes
    columns = (
        Column("what it is"),
        Column("what it was taken for"),
        Column("pictures", number=True),
        Column("of its class", number=True),
    )
    rows: list[list[Cell]] = [
        [labels[p.truth], labels[p.predicted], p.count, share_cell(p.share)]
        for p in result.figures.confused
    ]
    if not rows:
        return paragraph("No picture was taken for what it is not.")
    found = table("Most confused pairs", columns, rows[:PAIRS], captioned=False)
    found = f"<h3>Most confused pairs</h3>{found}"
    if len(rows) > PAIRS:
        more = table("More confused pairs", columns, rows[PAIRS:], captioned=False)
        found += f"<details><summary>{len(rows) - PAIRS} more</summary>{more}</details>"
    return found


def classes(result: Result) -> str:
    """A row for each class, worst first."""
    found, labels = result.figures.classes, result.encoded.dataset.classes
    single = result.figures.top1 is not None
    columns = (
        Column("class"),
        Column("pictures", number=True),
        Column("right" if single else "found", number=True),
        Column("with its 95 % interval"),
        Column("precision", number=True),
        Column("F1", number=True),
        Column("average precision", number=True),
    )
    order = sorted(
        range(len(labels)), key=lambda c: (found.recall[c] != found.recall[c], found.recall[c])
    )
    rows: list[list[Cell]] = []
    for place in order:
        share: Share = result.recall(place)
        rows.append(
            [
                labels[place],
                int(found.count[place]),
                share_cell(float(found.recall[place])),
                class_bar(share) if share.count else Html(NO_VALUE, -1),
                share_cell(float(found.precision[place])),
                share_cell(float(found.f1[place])),
                share_cell(float(found.average_precision[place])),
            ]
        )
    what = (
        "Right: the share of a class's pictures that were given its label, with Wilson's 95 % "
        "interval. Precision: the share of pictures given the label that show it."
    )
    return paragraph(what, "lead") + table(
        "Figures of each class", columns, rows, sortable=True, captioned=False
    )


def mistakes(result: Result) -> str:
    """The answers that were furthest off, with their pictures."""
    if not result.mistakes:
        return paragraph("There is no mistake.")
    lead = (
        "The wrong answers with the highest scores, three at most of a pair of classes. Some show "
        "where the model fails; some, that a picture is labelled wrongly or shows two things."
    )
    items = "".join(_mistake(result, found) for found in result.mistakes)
    return paragraph(lead, "lead") + f'<ol class="mistakes">{items}</ol>'


def _mistake(result: Result, found: Picture) -> str:
    labels, mistake = result.encoded.dataset.classes, found.mistake
    if found.thumbnail is None:
        picture = '<div class="none">no preview</div>'
    else:
        picture = f'<img src="{found.thumbnail}" alt="{esc(found.name)}" loading="lazy">'
    lines = ""
    if mistake.predicted is not None:
        lines += _line("taken for", labels[mistake.predicted], mistake.score, "said")
    if mistake.truth is not None:
        verb = "is" if mistake.predicted is not None else "not seen"
        lines += _line(verb, labels[mistake.truth], mistake.own, "was")
    own = esc(PurePath(found.name).name)
    file = f'<p class="file" title="{esc(found.name)}">{own}</p>'
    return f"<li>{picture}<dl>{lines}</dl>{file}</li>"


def _line(what: str, label: str, score: float, kind: str) -> str:
    return (
        f'<div><dt>{esc(what)}</dt><dd class="{kind}">{esc(label)}'
        f"<span>{score:.2f}</span></dd></div>"
    )
