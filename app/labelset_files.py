"""Label sets as files: what a person writes, and the lines of a backup. Knows no server."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


class BadFile(ValueError):
    """A file that holds no label set; a line for a person."""


def definition(data: bytes) -> dict[str, Any]:
    """What a file says: a JSON object as the API takes it, a JSON list, or one label a line.

    Raises BadFile.
    """
    text = _text(data)
    if not text.lstrip().startswith(("{", "[")):
        # not splitlines: it also splits at characters that a label may hold
        return {"labels": [line for line in re.split(r"\r\n|\n|\r", text) if line.strip()]}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BadFile(f"begins like JSON and is none: {error}") from None
    return dict(found) if isinstance(found, dict) else {"labels": found}


def exported(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What an owner wrote, from the server's answer: sent again, it makes an equal label set."""
    synonyms = answer["synonyms"]
    labels = {label: synonyms.get(label, []) for label in answer["labels"]}
    by_name = answer["own_templates"] or answer["templates"]
    found = {
        "name": answer["name"],
        "labels": labels if synonyms else answer["labels"],
        "prompts": answer["prompts"],
        "templates": answer.get("asked_templates", by_name),
        "description": answer["description"],
    }
    return {key: value for key, value in found.items() if value or key in ("name", "labels")}


def imported(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The label sets of a backup, one JSON object a line. Raises BadFile, with the line."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(_text(line))
        except ValueError:
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("name"), str):
            raise BadFile(f"line {number} is no JSON object with a name")
        yield found


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(f"is not UTF-8 text: {error.reason} at byte {error.start}") from None
