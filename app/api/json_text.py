"""Untrusted JSON: its cost is estimated before any of it is parsed.

Three bytes of it (`[],`) become seventy in memory, and the parser holds the interpreter while it
makes them. Knows nothing of what the values mean.
"""

from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json

from app.errors import TooLarge, Unparsable

# bytes that are looked at before other threads get a turn
PIECE: Final = 1_000_000

# bytes of memory for a value, and for an object, a list or a name in one
VALUE: Final = 64
NESTED: Final = 300


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """How many values there may be in one JSON text, and how many objects, lists and names."""

    values: int
    nested: int


@dataclass(frozen=True, slots=True)
class JsonCost:
    """How many there are, at most."""

    values: int
    nested: int

    @property
    def bytes(self) -> int:
        """The memory of the parsed values, without the texts themselves."""
        return VALUE * self.values + NESTED * self.nested


# quotes for each value, of which honest texts have two
QUOTES: Final = 4

# a list that stands in a text field
LISTED: Final = JsonLimits(100_000, 50_000)


def cost(text: bytes, limits: JsonLimits) -> JsonCost:
    """What parsing a JSON text will cost. Raises TooLarge for more than the limits."""
    total = JsonCost(0, 0)
    for start in range(0, len(text), PIECE):
        total = _add(total, text, start, start + PIECE)
        if total.values > limits.values or total.nested > limits.nested:
            return _without_strings(text, limits)
    return total


def _add(total: JsonCost, text: bytes, start: int, end: int) -> JsonCost:
    nested = sum(text.count(mark, start, end) for mark in (b"[", b"{", b":"))
    return JsonCost(total.values + text.count(b",", start, end) + nested, total.nested + nested)


def _without_strings(text: bytes, limits: JsonLimits) -> JsonCost:
    """The same, ignoring the contents of strings."""
    if text.count(b'"') > QUOTES * limits.values:
        raise _too_many(limits.values, "values")
    total, at = JsonCost(0, 0), 0
    while at < len(text):
        begin = text.find(b'"', at)
        total = _add(total, text, at, len(text) if begin < 0 else begin)
        if total.values > limits.values:
            raise _too_many(limits.values, "values")
        if total.nested > limits.nested:
            raise _too_many(limits.nested, "objects, lists and names")
        at = len(text) if begin < 0 else _end_of_string(text, begin + 1)
    return total


def _too_many(limit: int, what: str) -> TooLarge:
    detail = f"the JSON has more than {limit} {what} (the limit)"
    return TooLarge(detail, limit=limit)


def _end_of_string(text: bytes, at: int) -> int:
    """The place behind the quote that ends a string, or the end of the text."""
    while (end := text.find(b'"', at)) >= 0:
        slashes = end - at - len(text[at:end].rstrip(b"\\"))
        if slashes % 2 == 0:
            return end + 1
        at = end + 1
    return len(text)


def json_list(text: str) -> Any:
    """What a text field holds that begins like a JSON list. Raises TooLarge, ValueError."""
    raw = text.encode(errors="surrogatepass")
    cost(raw, LISTED)
    try:
        return from_json(raw)
    except ValueError:
        raise ValueError("looks like a JSON list but is not valid JSON") from None


def json_object(body: bytes) -> dict[str, Any]:
    """The object of a JSON body whose cost was checked. Raises Unparsable."""
    try:
        value = from_json(body)
    except ValueError as error:
        hint = "; send a file with its own Content-Type, or in a form" if _is_binary(body) else ""
        raise Unparsable(f"the body is not JSON: {error}{hint}") from None
    if not isinstance(value, dict):
        raise Unparsable(f"the body is a JSON {type(value).__name__}, an object is expected")
    return value


def small_object(text: str) -> dict[str, Any]:
    """The object that a text field holds. Raises TooLarge, Unparsable."""
    raw = text.encode(errors="surrogatepass")
    cost(raw, LISTED)
    return json_object(raw)


def _is_binary(body: bytes) -> bool:
    """Whether it begins as pictures do: with a NUL soon, or a byte that no UTF-8 begins with."""
    return b"\0" in body[:64] or any(0x80 <= byte < 0xC2 or byte > 0xF4 for byte in body[:1])
