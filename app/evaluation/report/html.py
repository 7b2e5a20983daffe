"""Pieces of a report's HTML: escaping, numbers, tables, figures. Knows nothing of evaluations.

Colours and sizes are classes of report.css, so that a piece looks right by day, by night and on
paper. Series of a plot are of class s1 to s6.
"""

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

# what a name may not do to the text around it: move the cursor, turn the writing direction
HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co"})

NO_VALUE: Final = "–"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; numbers stand right and line up."""

    heading: str
    number: bool = False


@dataclass(frozen=True, slots=True)
class Html:
    """What is HTML already, in a cell; with the value that it sorts by."""

    text: str
    sort: str | float = ""


Cell = str | int | float | None | Html


def esc(text: object) -> str:
    """Any text as HTML and SVG may hold it, between tags or in a quoted attribute."""
    plain = str(text)
    if not plain.isprintable():
        plain = "".join(c if unicodedata.category(c) not in HIDDEN else "\N{REPLACEMENT CHARACTER}"
                        for c in plain)  # fmt: skip
    return html.escape(plain, quote=True)


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a person reads it: 0.845 -> 84.5 %."""
    if value is None or value != value:  # noqa: PLR0124  NaN is the one that differs from itself
        return NO_VALUE
    return f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def points(value: float, digits: int = 1) -> str:
    """A difference of shares in percentage points, with its sign: 0.035 -> +3.5."""
    rounded = round(100 * value, digits) + 0.0  # no difference has no sign to the left
    return f"{rounded:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def span(low: float, high: float, digits: int = 1) -> str:
    """An interval of shares: 81.1 to 87.4 %."""
    return f"{100 * low:.{digits}f} to {100 * high:.{digits}f}\N{NO-BREAK SPACE}%"


def many(count: int, one: str, more: str = "") -> str:
    """A number with its noun: 1 picture, 2,000 pictures."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{esc(text)}</p>' if kind else f"<p>{esc(text)}</p>"


def table(
    caption: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Cell]],
    *,
    sortable: bool = False,
    captioned: bool = True,
) -> str:
    """A table whose first column names the rows. `captioned`: the caption can be seen."""
    heads = "".join(
        f'<th scope="col"{_number(column.number)}>{esc(column.heading)}</th>' for column in columns
    )
    body = "".join(f"<tr>{_cells(columns, row)}</tr>" for row in rows)
    hidden = "" if captioned else ' class="sr"'
    kind = ' class="sortable"' if sortable else ""
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{esc(caption)}"><table{kind}>'
        f"<caption{hidden}>{esc(caption)}</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _cells(columns: Sequence[Column], row: Sequence[Cell]) -> str:
    found = []
    for place, (column, cell) in enumerate(zip(columns, row, strict=True)):
        tag = 'th scope="row"' if not place else "td"
        sort, text = "", ""
        if isinstance(cell, Html):
            sort, text = f' data-sort="{esc(cell.sort)}"', cell.text
        elif cell is None:
            text = NO_VALUE
        else:
            text = esc(f"{cell:,}" if isinstance(cell, int) else cell)
        found.append(f"<{tag}{_number(column.number)}{sort}>{text}</{tag[:2]}>")
    return "".join(found)


def _number(right: bool) -> str:
    return ' class="n"' if right else ""


def share_cell(value: float, digits: int = 1) -> Html:
    """A share in a table; one that does not exist sorts last."""
    return Html(esc(percent(value, digits)), -1.0 if value != value else value)  # noqa: PLR0124


def figure(picture: str, caption: str, *, kind: str = "") -> str:
    """A picture (HTML) with its caption (plain text) below."""
    css = f' class="{kind}"' if kind else ""
    return f"<figure{css}>{picture}<figcaption>{esc(caption)}</figcaption></figure>"


def scrolled(html_text: str, label: str) -> str:
    """What may be wider than a phone, moved by a finger or the arrow keys."""
    return (
        f'<div class="overflow" tabindex="0" role="group" aria-label="{esc(label)}">'
        f"{html_text}</div>"
    )


def svg(width: float, height: float, label: str, body: str, kind: str = "plot") -> str:
    """A drawing of so many units; `label` says in words what it shows."""
    return (
        f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{esc(label)}" style="--w:{width:g}px" xmlns="http://www.w3.org/2000/svg">'
        f"{body}</svg>"
    )


def legend(names: Sequence[tuple[str, str]]) -> str:
    """What the colours mean: (class, name) of each, in order."""
    items = "".join(f'<li><i class="key {kind}"></i>{esc(name)}</li>' for kind, name in names)
    return f'<ul class="legend">{items}</ul>'


TAG: Final = re.compile(r"<[^>]*>")


def plain(cell: Cell) -> Text:
    """A cell as a terminal shows it."""
    if isinstance(cell, Html):
        return Text(html.unescape(TAG.sub("", cell.text)))
    return Text(NO_VALUE if cell is None else str(cell))
