"""A report as one HTML page: its own sections, and what is around all of them."""

import base64
import hashlib
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from markupsafe import Markup

from app.evaluation.figures import Share
from app.evaluation.report.advice import advice
from app.evaluation.report.html import (
    ASSETS,
    NO_VALUE,
    TEMPLATES,
    Cell,
    Column,
    Html,
    esc,
    figure,
    how,
    legend,
    many,
    paragraph,
    percent,
    piece,
    scrolled,
    share_cell,
    span,
    table,
)
from app.evaluation.report.plots import (
    NAMED,
    by_mistakes,
    class_bar,
    matrix_image,
    matrix_svg,
    reliability,
)
from app.evaluation.report.result import Picture, Result
from app.labelsets.calibration.reliability import BINS


def tiles(result: Result) -> str:
    """The headline figures."""
    figures, classes = result.figures, result.figures.classes
    shown = [
        (name, percent(share.value), f"95 %: {span(*share.interval)}")
        for name, share in figures.tops()
    ]
    mean_ap = ("mAP", percent(classes.mean_average_precision), "mean average precision")
    per_class = "mean per class" if shown else "mean recall"
    rest = [
        (per_class, percent(classes.mean_recall), "each class weighs the same"),
        ("macro F1", percent(classes.macro_f1), "precision and recall"),
        (
            "calibration error",
            percent(figures.calibration.error),
            f"claims {percent(figures.calibration.mean_confidence, 0)}",
        ),
    ]
    shown = [*shown, rest[0], mean_ap, *rest[1:]] if shown else [mean_ap, *rest]
    return piece("tiles", shown)


def verdict(result: Result) -> str:
    """The result in a sentence or two."""
    figures, data = result.figures, result.encoded.dataset
    if figures.top1 is None:
        mean = percent(figures.classes.mean_average_precision)
        return (
            f"Ranked by the score of a label, the pictures that show it come first with a mean "
            f"average precision of {mean} over {many(len(data.classes), 'label')}."
        )
    by_chance = 1 / len(data.classes)
    return (
        f"{figures.top1.hits:,} of {many(figures.top1.count, 'picture')} were classified correctly "
        f"({percent(figures.top1.value)}, {many(len(data.classes), 'class', 'classes')}). For "
        f"pictures like these, accuracy lies within {span(*figures.top1.interval)}; guessing would "
        f"reach {percent(by_chance)}. {_sureness(result)}"
    )


def _sureness(result: Result) -> str:
    reliability = result.figures.calibration
    right = result.figures.top1
    if right is None or abs(reliability.mean_confidence - right.value) < 0.02:
        return "On average, scores are as high as they should be."
    kind = "Overconfident" if reliability.mean_confidence > right.value else "Underconfident"
    gap = 100 * abs(reliability.mean_confidence - right.value)
    return f"{kind} by {gap:.1f} points."


# rows of the table of confused pairs that are shown at once
PAIRS: Final = 15

# sides of a matrix in points beyond which it is no picture any more
MOST_POINTS: Final = 3_000


def calibrated(result: Result) -> str:
    """The reliability diagram."""
    what = (
        "A score of 0.8 should be right in 80 of 100 cases. Answers are grouped by score into "
        f"{BINS} bins of equal width; a bar shows the share of right answers in its bin. The "
        "expected calibration error (Guo et al. 2017) is the mean gap, weighted by the number of "
        "answers."
    )
    if result.figures.top1 is None:
        what += " Every score of every label counts as an answer here."
    error = percent(result.figures.calibration.error)
    largest = percent(result.figures.calibration.largest)
    caption = f"Expected calibration error {error}, largest gap of a bin {largest}."
    lead = "How often answers of each score are right. Ideally, bars end on the line."
    return (
        paragraph(lead, "lead")
        + figure(reliability(result.figures.calibration), caption, kind="narrow")
        + how(what)
    )


def confusions(result: Result) -> str:
    """The confusion matrix, in two orders, and the pairs that are most often confused."""
    matrix, labels = result.figures.matrix, result.encoded.dataset.classes
    if matrix is None:
        return ""
    if not result.figures.confused:
        return paragraph("No picture was misclassified.")
    worst = by_mistakes(matrix)
    keys = legend([("hit", "right"), ("miss", "taken for another")])
    lead = "A row is what the pictures show, a column what they were taken for; stronger colours "
    lead += "are larger shares of the row. Hover over a cell for details."
    if len(labels) <= NAMED:
        body = _in_two_orders(
            [matrix_svg(matrix, labels, order) for order in (worst, list(range(len(labels))))],
            ("Most confused first", "In the order of the classes"),
        )
        return paragraph(lead, "lead") + figure(body + keys, _cut(labels)) + _pairs(result)
    some = worst[:NAMED]
    part = matrix_svg(matrix, labels, some)
    caption = f"The {NAMED} of {len(labels)} classes with most mistakes."
    parts = paragraph(lead, "lead") + figure(f"{scrolled(part, 'Confusion matrix')}{keys}", caption)
    if len(labels) <= MOST_POINTS:
        whole = _in_two_orders(
            [
                matrix_image(matrix),
                matrix_image(matrix[np.ix_(worst, worst)]),
            ],
            ("In the order of the classes", "Most confused first"),
            "whole",
        )
        parts += figure(whole + keys, f"All {len(labels)} classes, a point for each pair.")
    return parts + _pairs(result)


def _cut(labels: tuple[str, ...]) -> str:
    return f"Number of pictures of each pair of the {len(labels)} classes."


def _in_two_orders(panes: list[str], names: tuple[str, str], group: str = "order") -> str:
    marked = [Markup(pane) for pane in panes]  # noqa: S704 (made by plots.py)
    return piece("tabs", list(zip(names, marked, strict=True)), group)


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
    html = table("Most confused pairs", columns, rows[:PAIRS], captioned=False)
    html = f"<h3>Most confused pairs</h3>{html}"
    if len(rows) > PAIRS:
        more = table("More confused pairs", columns, rows[PAIRS:], captioned=False)
        html += f"<details><summary>{len(rows) - PAIRS} more</summary>{more}</details>"
    return html


def classes(result: Result) -> str:
    """A row for each class, worst first."""
    per_class, labels = result.figures.classes, result.encoded.dataset.classes
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
        range(len(labels)),
        key=lambda c: (per_class.recall[c] != per_class.recall[c], per_class.recall[c]),
    )
    rows: list[list[Cell]] = []
    for place in order:
        share: Share = result.recall(place)
        rows.append(
            [
                labels[place],
                int(per_class.count[place]),
                share_cell(float(per_class.recall[place])),
                class_bar(share) if share.count else Html(NO_VALUE, -1),
                share_cell(float(per_class.precision[place])),
                share_cell(float(per_class.f1[place])),
                share_cell(float(per_class.average_precision[place])),
            ]
        )
    what = (
        "Right: the share of a class's pictures that were given its label, with Wilson's 95 % "
        "interval. Precision: the share of pictures given the label that show it."
    )
    shown = table("Figures of each class", columns, rows, sortable=True, captioned=False)
    return shown + how(what)


def mistakes(result: Result) -> str:
    """The answers that were furthest off, with their pictures."""
    if not result.mistakes:
        return paragraph("There are no mistakes.")
    lead = (
        "The wrong answers with the highest scores, three at most of a pair of classes. Some show "
        "where the model fails; some, that a picture is labelled wrongly or shows two things."
    )
    items = [_mistake(result, mistake) for mistake in result.mistakes]
    return paragraph(lead, "lead") + piece("pictures", items)


def _mistake(result: Result, picture: Picture) -> dict[str, Any]:
    """The prediction, the label, and two more candidates."""
    labels, mistake = result.encoded.dataset.classes, picture.mistake
    lines: list[tuple[str, str, float | None, str]] = []
    if mistake.predicted is not None:
        lines.append(("taken for", labels[mistake.predicted], mistake.score, "said"))
    if mistake.truth is not None:
        verb = "is" if mistake.predicted is not None else "not seen"
        lines.append((verb, labels[mistake.truth], mistake.own, "was"))
    scores = result.scores.probabilities[mistake.picture]
    others = [
        place
        for place in np.argsort(-scores, kind="stable").tolist()
        if place not in (mistake.predicted, mistake.truth)
    ]
    lines += [("also", labels[place], float(scores[place]), "also") for place in others[:OTHERS]]
    return {
        "thumbnail": picture.thumbnail,
        "name": picture.name,
        "file": picture.name,
        "lines": lines,
    }


# candidates that a mistake shows beside the wrong and the right one
OTHERS: Final = 2

# files and groups that a report lists
LISTED: Final = 200


def page(result: Result) -> str:
    """The whole file."""
    style = (ASSETS / "report.css").read_text(encoding="utf-8")
    script = (ASSETS / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # a second lock: even a name that were not escaped could load and run nothing
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    # our own files and pieces are HTML already
    sections = [(key, title, Markup(text)) for key, title, text in _sections(result) if text]  # noqa: S704
    return TEMPLATES.get_template("report.html").render(
        policy=Markup(policy),  # noqa: S704
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        source=result.source,
        version=result.version,
        verdict=verdict(result),
        about=_about(result),
        notes=_missing(result),
        tiles=Markup(tiles(result)),  # noqa: S704
        advice=advice(result),
        sections=sections,
    )


def _sections(result: Result) -> Iterator[tuple[str, str, str]]:
    """Name, heading and HTML of each, in order; those without HTML have nothing to say."""
    wrong = "Where it goes wrong"
    yield "confusion", wrong, confusions(result)
    yield "mistakes", "Worst mistakes", mistakes(result)
    yield "conflicts", "Labelled in two ways", conflicts(result)
    for section in result.sections:
        yield esc(section.key.replace("_", "-")), section.title, section.html()
    yield "reliability", "Reliability of the scores", calibrated(result)
    yield "classes", "Class by class", classes(result)
    yield "data", "About this run", _facts(result)


def _about(result: Result) -> list[tuple[str, str]]:
    info, data = result.encoded.info, result.encoded.dataset
    return [
        ("model", info.name),
        ("templates", result.template_set),
        ("pictures", f"{len(data.files):,}"),
        ("classes", f"{len(data.classes):,}"),
        ("precision", info.precision),
        ("on", f"{result.when:%Y-%m-%d %H:%M} UTC"),
    ]


def _missing(result: Result) -> list[str]:
    """What a reader must know before any figure."""
    lines = []
    if result.encoded.unread:
        some = many(len(result.encoded.unread), "picture")
        lines.append(f"{some} could not be read and count in no figure; see About this run.")
    if result.conflicts:
        some = many(len(result.conflicts), "picture")
        lines.append(f"{some} labelled in two ways; see Labelled in two ways.")
    return [*lines, *(f"Left out: {line}." for line in result.missing)]


def conflicts(result: Result) -> str:
    """Equal pictures with different labels."""
    labels, data = result.encoded.dataset.classes, result.encoded.dataset
    items = []
    for group in result.conflicts[:LISTED]:
        label_texts = [", ".join(labels[c] for c in np.flatnonzero(data.truth[p])) for p in group]
        items.append(
            {
                "thumbnail": result.previews.get(group[0]),
                "name": _group(result, group),
                "file": " = ".join(result.names[place] for place in group),
                "lines": [("labelled", text or "nothing", None, "said") for text in label_texts],
            }
        )
    if not items:
        return ""
    lead = "The same bytes with different labels: one of them is wrong, or the picture shows both."
    return paragraph(lead, "lead") + piece("pictures", items)


def _facts(result: Result) -> str:
    info = result.encoded.info
    facts = [
        ("command", result.command, True),
        ("model", f"{info.name}, {info.precision} on {info.device}", False),
        ("fingerprint", info.fingerprint, True),
        ("temperature", f"{info.scale:.4g}" + ("" if info.bias is None else f", {info.bias:.4g}"),
         False),
        ("template set", f"{result.template_set}, {many(len(result.templates), 'template')}",
         False),
        ("pictures and labels", f"sha256 {result.data}", True),
        ("openvocab", result.version, False),
    ]  # fmt: skip
    html = piece("facts", facts)
    html += "".join(paragraph(note, "soft") for note in result.notes)
    unread = [f"{file.file}: {file.reason}" for file in result.encoded.unread]
    html += _listed("Not read", unread)
    different = [_group(result, group) for group in result.conflicts]
    html += _listed("Equal pictures, different labels", different)
    same = [_group(result, group) for group in result.copied()]
    html += _listed("Equal pictures, equal labels", same)
    return html + _listed("Templates", list(result.templates))


def _group(result: Result, places: tuple[int, ...]) -> str:
    return " = ".join(result.equals(places))


def _listed(title: str, lines: list[str]) -> str:
    return piece("listed", title, lines[:LISTED], len(lines), LISTED) if lines else ""
