"""A report as one HTML file that needs no network and no other file. Knows no terminal."""

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from app.evaluation import report_head, report_sections
from app.evaluation.report import Result
from app.evaluation.report_parts import esc, many

FOLDER: Final = Path(__file__).parent / "report_page"

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
    yield "confusion", wrong, report_sections.confusions(result)
    yield "mistakes", "Worst mistakes", report_sections.mistakes(result)
    for section in result.sections:
        yield esc(section.key.replace("_", "-")), section.title, section.html()
    yield "reliability", "How far its scores can be trusted", report_sections.calibrated(result)
    yield "classes", "Class by class", report_sections.classes(result)
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
        f'<p class="verdict">{esc(report_head.verdict(result))}</p>'
        f'<ul class="about">{items}</ul>{_missing(result)}{report_head.tiles(result)}'
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
