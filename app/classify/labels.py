"""Check the labels of a request. Pure: knows neither templates nor vectors."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.errors import Invalid, TooLarge, excerpt, shown

NONE: Final = "_none"

# bytes of a folder's name; file systems allow 255
LONGEST: Final = 100

# separators, and what Windows forbids
UNSAFE: Final = frozenset('/\\<>:"|?*')
RESERVED: Final = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?|_none", re.IGNORECASE)


def folder_name(label: str | None) -> str:
    """A label as a folder may be called anywhere; different labels differ. None is `_none`.

    A name that had to be changed ends in a digest of the label.
    """
    if label is None:
        return NONE
    text = unicodedata.normalize("NFC", label)
    # what does not print would also lead a terminal or a reader astray
    name = "".join("_" if c in UNSAFE or not c.isprintable() else c for c in text)
    name = name.encode()[:LONGEST].decode(errors="ignore").lstrip(" .-").rstrip(" .")
    if name == label and not RESERVED.fullmatch(name):
        return name
    digest = hashlib.sha256(label.encode(errors="surrogatepass")).hexdigest()[:6]
    return f"{name or '_'}~{digest}"


# Unicode names of letters begin with their script; a tower trained on these languages reads these
SCRIPTS: Final = {"en": ("LATIN",)}


@dataclass(frozen=True, slots=True)
class LabelLimits:
    """How many labels one request may name and how long each may be, in characters."""

    count: int = 1_000
    length: int = 200


def clean(raw: Sequence[str], limits: LabelLimits, field: str = "labels") -> tuple[str, ...]:
    """Labels without the white space around them, or the reason why they cannot be used.

    Raises:
        TooLarge: too many labels, or one too long.
        Invalid: none at all, an empty one, one twice, or one with characters that are not text.
    """
    if not raw:
        raise Invalid(f"at least one label is needed in {field}", field=field, limit=1, value=0)
    if len(raw) > limits.count:
        detail = f"{field} holds {len(raw)} labels, the limit is {limits.count}"
        raise TooLarge(detail, field=field, limit=limits.count, value=len(raw))
    labels = tuple(map(str.strip, raw))
    together = "".join(labels)
    if (
        all(labels)
        and max(map(len, labels)) <= limits.length
        and len(set(labels)) == len(labels)
        and together.isprintable()
    ):
        return labels  # the loop below finds what is wrong, and costs ten times as much
    seen: dict[str, int] = {}
    for place, label in enumerate(labels, start=1):
        _check(label, place, limits, field)
        if label in seen:
            detail = f"label {shown(label)} is given twice, as number {seen[label]} and {place}"
            raise Invalid(detail, field=field, value=excerpt(label))
        seen[label] = place
    return labels


def unread(labels: Sequence[str], languages: Sequence[str]) -> list[str]:
    """The labels with letters of a script that a tower of these languages (BCP 47) does not read.

    Empty where the languages are unknown or many: then nothing can be said.
    """
    scripts = tuple(script for language in languages for script in SCRIPTS.get(language, ()))
    if not scripts or all(map(str.isascii, labels)):
        return []
    return [label for label in labels if _has_foreign_letter(label, scripts)]


def _check(label: str, place: int, limits: LabelLimits, field: str) -> None:
    if not label:
        raise Invalid(f"label number {place} is empty", field=field, value="")
    if len(label) > limits.length:
        detail = f"label {shown(label)} has {len(label)} characters, the limit is {limits.length}"
        raise TooLarge(detail, field=field, limit=limits.length, value=len(label))
    if not label.isprintable() and any(
        unicodedata.category(character) in ("Cc", "Cs") for character in label
    ):
        detail = f"label {shown(label)} holds a control character or half of a surrogate pair"
        raise Invalid(detail, field=field, value=excerpt(label))


def _has_foreign_letter(label: str, scripts: tuple[str, ...]) -> bool:
    return not label.isascii() and any(
        character.isalpha() and not unicodedata.name(character, "").startswith(scripts)
        for character in label
    )
