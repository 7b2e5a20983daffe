"""Untrusted JSON: its cost is estimated before any of it is parsed.

Three bytes of it (`[],`) become seventy in memory, and the parser holds the interpreter while it
makes them. Knows nothing of what the values mean.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json

from app.errors import Invalid, TooLarge, Unparsable, excerpt, shown

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

# what can only be meant as a JSON object; a template may begin with {}
OBJECT: Final = re.compile(r'\s*\{\s*(?:"|\}\s*\Z)')


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


# the end of a name, with what follows it
NAME_END: Final = re.compile(rb'"[ \t\r\n]*:')


class RepeatedName(ValueError):
    """An object that has a name twice, of which a parser would keep the last alone."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{shown(name)} is there twice in one JSON object")
        self.name = name


def names_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, as `object_pairs_hook` of json.loads. Raises RepeatedName."""
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise RepeatedName(name)
        content[name] = value
    return content


def loaded(text: str) -> Any:
    """The value of a JSON text whose objects have each name once. Raises ValueError."""
    try:
        return json.loads(text, object_pairs_hook=names_once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _parsed(text: bytes) -> Any:
    """The value of a JSON text. Raises ValueError, Invalid."""
    value = from_json(text)
    names = _names(value)
    # what looks like one in strings is rare, and to pass over them takes five times as long
    if sum(1 for _ in NAME_END.finditer(text)) == names or _colons(text) == names:
        return value
    del value  # the other parser, which tells the name, takes as much again
    try:
        json.loads(text, object_pairs_hook=names_once, parse_int=str, parse_float=str)
    except RepeatedName as error:
        raise Invalid(str(error), limit=1, value=excerpt(error.name)) from None
    raise RuntimeError("a JSON text has fewer names than colons. This is a bug.")


def _colons(text: bytes) -> int:
    """Those outside of strings, of a text that is valid JSON."""
    bare = text.replace(rb"\\", b"").replace(rb"\"", b"")
    return sum(part.count(b":") for part in bare.split(b'"')[::2])


def _names(value: Any) -> int:
    """How many names all objects in it have."""
    count, left = 0, [value] if isinstance(value, dict | list) else []
    while left:
        each = left.pop()
        inside: Iterable[Any] = each
        if isinstance(each, dict):
            count += len(each)
            inside = each.values()
        left += [inner for inner in inside if isinstance(inner, dict | list)]
    return count


def json_list(text: str) -> Any:
    """What a text field holds that begins like a JSON list.

    Raises TooLarge, ValueError, Invalid.
    """
    raw = text.encode(errors="surrogatepass")
    cost(raw, LISTED)
    try:
        return _parsed(raw)
    except ValueError:
        raise ValueError("looks like a JSON list but is not valid JSON") from None


KINDS: Final = {
    type(None): "null", bool: "boolean", int: "number", float: "number", str: "string",
    list: "list",
}  # fmt: skip


def json_object(body: bytes, field: str | None = None) -> dict[str, Any]:
    """The object of a JSON body, or of a field, whose cost was checked.

    Raises Unparsable, Invalid.
    """
    what = "the body" if field is None else f"the field {field}"
    try:
        value = _parsed(body)
    except ValueError as error:
        raise Unparsable(f"{what} is not JSON: {error}{_hint(body)}", field=field) from None
    if not isinstance(value, dict):
        kind = KINDS[type(value)]
        raise Unparsable(f"{what} is a JSON {kind}, an object is expected", field=field)
    return value


def looks_like_json(text: str) -> bool:
    """Whether a text can only be meant as a JSON list or object."""
    return text.lstrip().startswith("[") or OBJECT.match(text) is not None


def small_object(text: str, field: str) -> dict[str, Any]:
    """The object that the text of a field holds. Raises TooLarge, Unparsable, Invalid."""
    raw = text.encode(errors="surrogatepass")
    cost(raw, LISTED)
    return json_object(raw, field)


def _hint(body: bytes) -> str:
    """What helps whoever sent something else as JSON."""
    if body.startswith(b"--"):
        return "; it begins as a form does: let your HTTP client set Content-Type"
    return "; send a file with its own Content-Type, or in a form" if _is_binary(body) else ""


def _is_binary(body: bytes) -> bool:
    """Whether it begins as pictures do: with a NUL soon, or a byte that no UTF-8 begins with."""
    return b"\0" in body[:64] or any(0x80 <= byte < 0xC2 or byte > 0xF4 for byte in body[:1])
