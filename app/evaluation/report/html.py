"""Pieces of a report's HTML: escaping, numbers, tables, figures. Knows nothing of evaluations.

The HTML itself stands in assets/pieces.html, where Jinja escapes every value.

Colours and sizes are classes of report.css, so that a piece looks right by day, by night and on
paper. Series of a plot are of class s1 to s6.
"""

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

ASSETS: Final = Path(__file__).parent / "assets"

# what a name may not do to the text around it: move the cursor, turn the writing direction
HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Co"})

NO_VALUE: Final = "–"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; numbers are right-aligned."""

    heading: str
    number: bool = False


@dataclass(frozen=True, slots=True)
class Html:
    """What is HTML already, in a cell; with the value that it sorts by."""

    text: str
    sort: str | float = ""


Cell = str | int | float | None | Html


def visible(text: object) -> object:
    """A text without characters that act on the text around; Markup and numbers as they are."""
    if not isinstance(text, str) or isinstance(text, Markup) or text.isprintable():
        return text
    return "".join(c if unicodedata.category(c) not in HIDDEN else "\N{REPLACEMENT CHARACTER}"
                   for c in text)  # fmt: skip


TEMPLATES: Final = Environment(
    loader=FileSystemLoader(ASSETS),
    autoescape=True,
    finalize=visible,
    undefined=StrictUndefined,
    trim_blocks=False,
    keep_trailing_newline=True,
)


def piece(name: str, *values: Any) -> str:
    """One of the macros in pieces.html; texts are escaped, Markup is not."""
    markup: str = getattr(TEMPLATES.get_template("pieces.html").module, name)(*values)
    return str(markup)


def esc(text: object) -> str:
    """Any text as HTML and SVG may hold it, between tags or in a quoted attribute."""
    return html.escape(str(visible(str(text))), quote=True)


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a person reads it: 0.845 -> 84.5 %."""
    if value is None or value != value:  # noqa: PLR0124  NaN is the one that differs from itself
        return NO_VALUE
    return f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign: 0.035 -> +3.5."""
    rounded = round(100 * value, 1) + 0.0  # no difference has no sign to the left
    return f"{rounded:+.1f}".replace("-", "\N{MINUS SIGN}")


def span(low: float, high: float) -> str:
    """An interval of shares: 81.1 to 87.4 %."""
    return f"{100 * low:.1f} to {100 * high:.1f}\N{NO-BREAK SPACE}%"


def many(count: int, singular: str, more: str = "") -> str:
    """A number with its noun: 1 picture, 2,000 pictures."""
    return f"{count:,} {singular if count == 1 else more or singular + 's'}"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return piece("paragraph", text, kind)


def how(*texts: str) -> str:
    """How figures were computed, folded; a paragraph each."""
    return piece("how", texts)


def table(
    caption: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Cell]],
    *,
    sortable: bool = False,
    captioned: bool = True,
) -> str:
    """A table whose first column names the rows. `captioned`: the caption can be seen."""
    cells = [
        [(column, *_cell(cell)) for column, cell in zip(columns, row, strict=True)] for row in rows
    ]
    return piece("table", caption, columns, cells, sortable, captioned)


def _cell(cell: Cell) -> tuple[str | Markup, str | float | None]:
    """What a cell shows, and the value that it sorts by, where that is another."""
    if isinstance(cell, Html):
        return Markup(cell.text), cell.sort  # noqa: S704 (made by this package from escaped parts)
    if cell is None:
        return NO_VALUE, None
    return f"{cell:,}" if isinstance(cell, int) else str(cell), None


def share_cell(value: float) -> Html:
    """A share in a table; one that does not exist sorts last."""
    return Html(esc(percent(value)), -1.0 if value != value else value)  # noqa: PLR0124


def figure(picture: str, caption: str, *, kind: str = "") -> str:
    """A picture (HTML) with its caption (plain text) below."""
    return piece("figure", Markup(picture), caption, kind)  # noqa: S704


def scrolled(html_text: str, label: str) -> str:
    """What may be wider than a phone, moved by a finger or the arrow keys."""
    return piece("scrolled", Markup(html_text), label)  # noqa: S704


def svg(width: float, height: float, label: str, body: str, kind: str = "plot") -> str:
    """A drawing of so many units; `label` says in words what it shows."""
    return (
        f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{esc(label)}" style="--w:{width:g}px" xmlns="http://www.w3.org/2000/svg">'
        f"{body}</svg>"
    )


def legend(names: Sequence[tuple[str, str]]) -> str:
    """What the colours mean: (class, name) of each, in order."""
    return piece("legend", names)


def with_numbers(headings: Iterable[str]) -> list[Column]:
    """Columns whose first one names the rows, and the others have numbers."""
    return [Column(heading, number=place > 0) for place, heading in enumerate(headings)]


TAG: Final = re.compile(r"<[^>]*>")


def plain(cell: Cell) -> Text:
    """A cell as a terminal shows it."""
    if isinstance(cell, Html):
        return Text(html.unescape(TAG.sub("", cell.text)))
    return Text(NO_VALUE if cell is None else str(cell))


def plain_table(headings: Iterable[str], rows: Iterable[Sequence[Cell]]) -> Table:
    """A table as a terminal shows it."""
    grid = Table(*headings, box=SIMPLE, padding=(0, 0, 0, 1))
    for row in rows:
        grid.add_row(*map(plain, row))
    return grid
