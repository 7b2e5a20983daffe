"""Read the vocabularies in `vocabularies/`: lists of labels, ready to register by name.

Knows nothing of templates, label sets or HTTP: standard library only.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from prompts.texts import breaks_line, shown

MAX_LABEL_LENGTH = 200

_NAME = re.compile(r"[a-z0-9-]+")
_HEADER = ("# description: ", "# source: ")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A named list of labels, what it is good for, and where the labels come from."""

    name: str
    description: str
    source: str
    labels: tuple[str, ...]


class VocabularyError(ValueError):
    """A vocabulary's file is invalid; the message names the file, and the line where one is."""


def load_vocabularies(folder: Path | None = None) -> Mapping[str, Vocabulary]:
    """Read every `*.txt` of `folder` (default: the vocabularies shipped here), sorted by name.

    The mapping is read-only. A bad file raises a VocabularyError that names it, and so does a
    folder without any, because that is an incomplete installation.
    """
    folder = Path(__file__).parent / "vocabularies" if folder is None else folder
    paths = sorted(folder.glob("*.txt"), key=lambda path: path.stem)
    if not paths:
        raise VocabularyError(f"no vocabularies (*.txt) in {folder}")
    return MappingProxyType({path.stem: _load(path) for path in paths})


def _load(path: Path) -> Vocabulary:
    try:
        # as bytes: reading as text would turn other line ends into \n before they are seen
        return _parse(path.stem, path.read_bytes().decode("utf-8"))
    except (OSError, ValueError) as error:  # unreadable, not UTF-8, not a vocabulary
        raise VocabularyError(f"{path}: {error}") from error


def _parse(name: str, text: str) -> Vocabulary:
    if not _NAME.fullmatch(name):
        raise VocabularyError(
            f"a vocabulary's name is lower-case letters, digits and hyphens, got {shown(name)}"
        )
    lines = text.removesuffix("\n").split("\n")
    description, source = (
        _header(lines[number] if number < len(lines) else "", number + 1, key)
        for number, key in enumerate(_HEADER)
    )
    labels = lines[len(_HEADER) :]
    if not labels:
        raise VocabularyError("at least 1 label is needed, got 0")
    seen: dict[str, int] = {}
    for number, label in enumerate(labels, start=len(_HEADER) + 1):
        _check(label, number, "a label")
        if label.startswith("#"):
            raise VocabularyError(
                f"line {number}: only the first {len(_HEADER)} lines begin with #, got "
                f"{shown(label)}"
            )
        # one word in two cases, or composed in two ways, is one prompt said twice
        essence = unicodedata.normalize("NFC", label).casefold()
        if essence in seen:
            raise VocabularyError(
                f"line {number}: the label {shown(label)} is in line {seen[essence]} too"
            )
        seen[essence] = number
    return Vocabulary(name, description, source, tuple(labels))


def _header(line: str, number: int, key: str) -> str:
    if not line.startswith(key):
        raise VocabularyError(f"line {number}: must begin with {key!r}, got {shown(line)}")
    value = line.removeprefix(key)
    _check(value, number, f"the text after {key!r}")
    return value


def _check(text: str, number: int, what: str) -> None:
    if not text.strip():
        raise VocabularyError(f"line {number}: {what} must not be blank")
    if len(text) > MAX_LABEL_LENGTH:
        raise VocabularyError(
            f"line {number}: {what} has at most {MAX_LABEL_LENGTH} characters, "
            f"{shown(text)} has {len(text)}"
        )
    wrong = breaks_line(text)
    if wrong is not None:
        raise VocabularyError(
            f"line {number}: {what} has no control characters or marks that turn the direction of "
            f"text, {shown(text)} contains U+{ord(wrong):04X}"
        )
    if text != " ".join(text.split()):
        raise VocabularyError(
            f"line {number}: {what} has single spaces, and none around it, got {shown(text)}"
        )
