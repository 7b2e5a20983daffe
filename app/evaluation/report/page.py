"""What a report shows in each of its own sections, as HTML. Knows nothing of the page around."""

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Final

import numpy as np

from app.evaluation.figures import Share
from app.evaluation.report.html import (
    NO_VALUE,
    Cell,
    Column,
    Html,
    esc,
    figure,
    legend,
    many,
    paragraph,
    percent,
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
    """The figures that are asked for first."""
    found, classes = result.figures, result.figures.classes
    tops = [
        ("top-1", found.top1),
        (f"top-{min(5, len(classes.count))}", found.top5),
    ]
    shown = [
        (name, percent(s.value), f"95 %: {span(*s.interval)}") for name, s in tops if s is not None
    ]
    mean_ap = ("mAP", percent(classes.mean_average_precision), "mean average precision")
    per_class = "mean per class" if shown else "mean recall"
    rest = [
        (per_class, percent(classes.mean_recall), "each class weighs the same"),
        ("macro F1", percent(classes.macro_f1), "precision and recall"),
        (
            "calibration error",
            percent(found.calibration.error),
            f"claims {percent(found.calibration.mean_confidence, 0)}",
        ),
    ]
    shown = [*shown, rest[0], mean_ap, *rest[1:]] if shown else [mean_ap, *rest]
    items = "".join(
        f'<div{_first(place)}><dt>{esc(name)}</dt><dd class="value">{esc(value)}</dd>'
        f'<dd class="more">{esc(more)}</dd></div>'
        for place, (name, value, more) in enumerate(shown)
    )
    return f'<dl class="tiles">{items}</dl>'


def _first(place: int) -> str:
    return "" if place else ' class="first"'


def verdict(result: Result) -> str:
    """The result in a sentence or two."""
    found, data = result.figures, result.encoded.dataset
    if found.top1 is None:
        mean = percent(found.classes.mean_average_precision)
        return (
            f"Ranked by the score of a label, the pictures that show it come first with a mean "
            f"average precision of {mean} over {many(len(data.classes), 'label')}."
        )
    by_chance = 1 / len(data.classes)
    return (
        f"The right label of {len(data.classes):,} comes first for {found.top1.hits:,} of "
        f"{many(found.top1.count, 'picture')}: {percent(found.top1.value)}. For pictures drawn "
        f"like these the accuracy lies within {span(*found.top1.interval)}; guessing would reach "
        f"{percent(by_chance)}. {_sureness(result)}"
    )


def _sureness(result: Result) -> str:
    found = result.figures.calibration
    right = result.figures.top1
    if right is None or abs(found.mean_confidence - right.value) < 0.02:
        return "Its scores mean what they say, on average."
    kind = "surer" if found.mean_confidence > right.value else "less sure"
    gap = 100 * abs(found.mean_confidence - right.value)
    return f"It is {kind} than it should be, by {gap:.1f} points on average."


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


FOLDER: Final = Path(__file__).parent / "assets"

# files and groups that a report lists
LISTED: Final = 200


def page(result: Result) -> str:
    """The whole file."""
    style = (FOLDER / "report.css").read_text(encoding="utf-8")
    script = (FOLDER / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # a second lock: even a name that were not escaped could load and run nothing
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    sections = [one for one in _sections(result) if one[2]]
    links = "".join(f'<li><a href="#{key}">{esc(title)}</a></li>' for key, title, _ in sections)
    body = "".join(
        f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{esc(title)}</h2>'
        f"{html}</section>"
        for key, title, html in sections
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{esc(result.source)}: evaluation</title>\n"
        f"<style>\n{style}</style>\n</head>\n<body>\n"
        f"<header>{_head(result)}</header>\n"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n<main>{body}</main>\n'
        f"<footer>{_foot(result)}</footer>\n<script>{script}</script>\n</body>\n</html>\n"
    )


def _sections(result: Result) -> Iterator[tuple[str, str, str]]:
    """Name, heading and HTML of each, in order; those without HTML have nothing to say."""
    wrong = "Where it goes wrong"
    yield "confusion", wrong, confusions(result)
    yield "mistakes", "Worst mistakes", mistakes(result)
    for section in result.sections:
        yield esc(section.key.replace("_", "-")), section.title, section.html()
    yield "reliability", "How far its scores can be trusted", calibrated(result)
    yield "classes", "Class by class", classes(result)
    yield "data", "What this is made of", _facts(result)


def _head(result: Result) -> str:
    info, data = result.encoded.info, result.encoded.dataset
    about = [
        ("model", info.name),
        ("templates", result.template_set),
        ("pictures", f"{len(data.files):,}"),
        ("classes", f"{len(data.classes):,}"),
        ("precision", info.precision),
        ("on", f"{result.when:%Y-%m-%d %H:%M} UTC"),
    ]
    items = "".join(f"<li>{esc(name)} <b>{esc(value)}</b></li>" for name, value in about)
    return (
        f'<p class="kicker">openvocab evaluation</p><h1>{esc(result.source)}</h1>'
        f'<p class="verdict">{esc(verdict(result))}</p>'
        f'<ul class="about">{items}</ul>{_missing(result)}{tiles(result)}'
    )


def _missing(result: Result) -> str:
    """What a reader must know before any figure."""
    found = []
    if result.encoded.unread:
        some = many(len(result.encoded.unread), "picture")
        found.append(f"Not read, so in no figure: {some}; the last section says why.")
    if result.conflicts():
        some = many(len(result.conflicts()), "picture")
        found.append(f"Labelled in two ways: {some}; the last section says which.")
    found += [f"Left out: {line}." for line in result.missing]
    return "".join(f'<p class="note">{esc(line)}</p>' for line in found)


def _facts(result: Result) -> str:
    info = result.encoded.info
    facts = [
        ("command", f"<code>{esc(result.command)}</code>"),
        ("model", f"{esc(info.name)}, {esc(info.precision)} on {esc(info.device)}"),
        ("fingerprint", f"<code>{esc(info.fingerprint)}</code>"),
        ("temperature", f"{info.scale:.4g}" + ("" if info.bias is None else f", {info.bias:.4g}")),
        ("template set", f"{esc(result.template_set)}, {many(len(result.templates), 'template')}"),
        ("pictures and labels", f"<code>sha256 {esc(result.data)}</code>"),
        ("openvocab", esc(result.version)),
    ]
    rows = "".join(f"<dt>{esc(name)}</dt><dd>{value}</dd>" for name, value in facts)
    found = f'<dl class="facts">{rows}</dl>'
    found += "".join(f'<p class="soft">{esc(note)}</p>' for note in result.notes)
    unread = [f"{one.file}: {one.reason}" for one in result.encoded.unread]
    found += _listed("Not read", unread)
    conflicts = result.conflicts()
    found += _listed("Equal pictures, different labels", [_group(result, g) for g in conflicts])
    same = [group for group in result.same if group not in conflicts]
    found += _listed("Equal pictures, equal labels", [_group(result, group) for group in same])
    return found + _listed("Templates", list(result.templates))


def _group(result: Result, places: tuple[int, ...]) -> str:
    return " = ".join(result.names[place] for place in places)


def _listed(title: str, lines: list[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li><code>{esc(line)}</code></li>" for line in lines[:LISTED])
    more = (
        f"<li>and {len(lines) - LISTED:,} more in report.json</li>" if len(lines) > LISTED else ""
    )
    return (
        f"<details><summary>{esc(title)}: {len(lines):,}</summary><ul>{items}{more}</ul></details>"
    )


def _foot(result: Result) -> str:
    return (
        f"Made by openvocab {esc(result.version)}. The same figures are in report.json, the answer "
        "for each picture is in predictions.csv. This page loads nothing and works offline."
    )
