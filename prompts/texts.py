"""Which texts can stand in a line of a list, an answer or a log. Standard library only."""

import unicodedata
from collections.abc import Callable

SHOWN = 60

# control characters and halves of surrogate pairs; separators of lines and of paragraphs
_NO_TEXT = frozenset({"Cc", "Cs"})
_SEPARATORS = frozenset({"Zl", "Zp"})

# embeddings, overrides and isolates of Unicode's bidirectional algorithm (UAX 9), and their ends
_TURNING = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def breaks_line(text: str) -> str | None:
    """The first character that splits or turns the line that it stands in, or is no text.

    Marks that only say which way their neighbours run stay: names in Arabic or Hebrew hold them.
    """
    return _first(text, _breaks)


def no_text(text: str) -> str | None:
    """The first character that is no text, of sentences: unlike a label they may have lines."""
    return _first(text, lambda c: c not in "\n\r\t" and unicodedata.category(c) in _NO_TEXT)


def shown(value: object) -> str:
    """An abbreviated repr: printable, and short whatever a caller sent."""
    if isinstance(value, str):
        return repr(value) if len(value) <= SHOWN else repr(value[:SHOWN]) + "…"
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _first(text: str, is_wrong: Callable[[str], bool]) -> str | None:
    # printable is nearly every text, and told ten times as fast
    return None if text.isprintable() else next(filter(is_wrong, text), None)


def _breaks(character: str) -> bool:
    if unicodedata.category(character) in _NO_TEXT | _SEPARATORS:
        return True
    return unicodedata.bidirectional(character) in _TURNING
