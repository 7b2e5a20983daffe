"""Check the labels of a request. Pure: knows neither templates nor vectors."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.errors import Invalid, TooLarge, excerpt, shown
from prompts.texts import breaks_line

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
    text = composed(label)
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


# accents one after the other, or symbols, which have no other form; no language has as many
ROW: Final = 64
ACCENTS: Final = re.compile(rf"(?<![^\w\x00-\x7f])[^\w\x00-\x7f]{{{ROW}}}")


def composed(text: str) -> str:
    """A text in NFC (Unicode Standard Annex 15); with ROW accents or symbols in a row, as it is.

    These are put in order in a time that grows with the square of their number.
    """
    strange = len(text) >= ROW and ACCENTS.search(text) is not None
    return text if strange else unicodedata.normalize("NFC", text)


# what reads as one space, and what is not seen at all
SPACES: Final = re.compile(r"[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")
UNSEEN: Final = re.compile("[\u00ad\u200b\u2060\ufeff]")


def normal(label: str) -> str:
    """A label as it is kept: NFC, single spaces, none around it, nothing invisible."""
    if label.isascii():
        return SPACES.sub(" ", label.strip()) if "  " in label else label.strip()
    return SPACES.sub(" ", UNSEEN.sub("", composed(label))).strip()


def merged(raw: Sequence[str]) -> tuple[list[str], list[str]]:
    """Labels that differ only in what `normal` takes out count once; a warning for each such.

    Labels that are the same to the letter stay: `clean` refuses them.
    """
    together = "\n".join(raw)
    if together.isascii() and "  " not in together:
        return list(raw), []
    spelt: dict[str, set[str]] = {}
    kept, warnings = [], []
    for label in raw:
        name, written = normal(label), label.strip()
        seen = spelt.setdefault(name, set())
        if not seen or written in seen or not name:
            kept.append(label)
        else:
            warnings.append(
                f"{written!r} is the label {name!r} written another way; it counts once"
            )
        seen.add(written)
    return kept, warnings


def clean(
    raw: Sequence[str],
    limits: LabelLimits,
    field: str = "labels",
    kind: str = "label",
    owner: str | None = None,
) -> tuple[str, ...]:
    """Labels in their normal form, or the reason why they cannot be used.

    A problem calls them by their `kind`: labels, or texts of the label that is their `owner`.

    Raises:
        TooLarge: too many labels, or one too long.
        Invalid: none at all, an empty one, one twice, or one with characters that are not text.
    """
    if not raw:
        raise Invalid(f"at least one {kind} is needed in {field}", field=field, limit=1, value=0)
    if len(raw) > limits.count:
        holder = f"{field} holds" if owner is None else f"{shown(owner)} has"
        detail = f"{holder} {len(raw)} {kind}s, the limit is {limits.count}"
        raise TooLarge(detail, field=field, limit=limits.count, value=len(raw))
    labels = tuple(map(normal, raw))
    together = "".join(labels)
    if (
        all(labels)
        and max(map(len, labels)) <= limits.length
        and len(set(labels)) == len(labels)
        and together.isprintable()
    ):
        return labels  # the loop below finds what is wrong, and costs ten times as much
    seen: dict[str, int] = {}
    of = "" if owner is None else f" of {shown(owner)}"
    for place, label in enumerate(labels, start=1):
        last = place == len(labels) and owner is None
        _check(label, place, limits, field, kind, of, last=last)
        if label in seen:
            detail = f"duplicate {kind} {shown(label)}{of} (positions {seen[label]} and {place})"
            raise Invalid(detail, field=field, value=excerpt(label))
        seen[label] = place
    return labels


# such models hardly understand negation: to them, "no cat" looks like a cat
NEGATION: Final = re.compile(
    r"(?:.*\s)?(no|not|without|non|never|isn['\u2019]t|aren['\u2019]t)\s.*"
    r"|(none of|neither|anything but|absence of|lack of)\s.*",
    re.IGNORECASE,
)


# what separates items of a list elsewhere, and not here
OTHER_COMMAS: Final = re.compile("[\uff0c\u3001\uff1b\u060c;|]")


def one_for_many(labels: Sequence[str]) -> list[str]:
    """A warning where a single label looks like a list of several."""
    mark = OTHER_COMMAS.search(labels[0]) if len(labels) == 1 else None
    if mark is None:
        return []
    return [f"{labels[0]!r} is one label, since only ',' separates labels, not {mark[0]!r}"]


def negated(labels: Sequence[str]) -> list[str]:
    """The labels that say what is not in the picture."""
    return [label for label in labels if NEGATION.fullmatch(label)]


def unread(labels: Sequence[str], languages: Sequence[str]) -> list[str]:
    """The labels with letters of a script that a tower of these languages (BCP 47) does not read.

    Empty where the languages are unknown or many: then nothing can be said.
    """
    scripts = tuple(script for language in languages for script in SCRIPTS.get(language, ()))
    if not scripts or all(map(str.isascii, labels)):
        return []
    return [label for label in labels if _has_foreign_letter(label, scripts)]


def _check(
    label: str, place: int, limits: LabelLimits, field: str, kind: str, of: str, *, last: bool
) -> None:
    if not label:
        why = "; is there a comma at the end?" if last and place > 1 else ""
        raise Invalid(f"{kind} number {place}{of} is empty{why}", field=field, value="")
    named = f"{kind} {shown(label)}{of}"
    if len(label) > limits.length:
        detail = f"{named} has {len(label)} characters, the limit is {limits.length}"
        raise TooLarge(detail, field=field, limit=limits.length, value=len(label))
    if breaks_line(label) is not None:
        detail = f"{named} holds a control character, a line or paragraph separator, "
        detail += "a mark that turns the direction of text or half of a surrogate pair"
        raise Invalid(detail, field=field, value=excerpt(label))


def _has_foreign_letter(label: str, scripts: tuple[str, ...]) -> bool:
    return not label.isascii() and any(
        character.isalpha() and not unicodedata.name(character, "").startswith(scripts)
        for character in label
    )
