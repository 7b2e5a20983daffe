"""What a class is called and what its label is embedded as. Knows nothing of pictures.

A folder's name, or a label of a CSV, is a key; `--names` and `--labels` say what keys stand for.
"""

import csv
import io
import json
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.api.json_text import names_once
from app.classify import labels
from app.classify.labels import LabelLimits
from app.classify.templates import presets
from app.cli.files import reason
from app.cli.label_file import label_file
from app.cli.labelset_client import BadFile, definition, exported
from app.errors import Problem, shown
from app.labelsets.definition import Definition, Entry

LIMITS: Final = LabelLimits(count=100_000)
TEXT_LIMITS: Final = LabelLimits(length=2_000)
MOST_TEMPLATES: Final = 1_000

# columns of --names as CSV
FOLDER: Final = "folder"
LABEL: Final = "label"
BETWEEN: Final = "|"

# keys that an error names
NAMED: Final = 5


class BadData(ValueError):
    """Labelled data, or a file about it, that cannot be used; a line for a person."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The classes, as a label set says what each is embedded as, and the place of each key.

    `notes` are for a person.
    """

    definition: Definition
    places: Mapping[str, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Naming:
    """`names`: a file that maps keys to labels; `vocabulary`: a label set's file, or a preset."""

    names: Path | None = None
    vocabulary: str | None = None

    def chosen(self, keys: Sequence[str]) -> Chosen:
        """The classes of these keys, which are all different. Raises BadData."""
        texts: dict[str, tuple[str, ...]] = {key: (_spoken(key),) for key in keys}
        if self.names is not None:
            texts = _picked(keys, _names(self.names), self.names)
        chosen_labels = (
            self._own(texts)
            if self.vocabulary is None
            else self._from_vocabulary(texts, self.vocabulary)
        )
        if len(chosen_labels.definition.labels) < 2:
            raise BadData("at least two classes are needed")
        return chosen_labels

    def _own(self, texts: Mapping[str, tuple[str, ...]]) -> Chosen:
        """Each label as it comes; two folders are one class only where `--names` says so."""
        first: dict[str, str] = {}
        for key, (label, *_) in texts.items():
            other = first.setdefault(label, key)
            if other != key and self.names is None:
                both = f"{shown(other)} and {shown(key)} both read as {shown(label)}"
                raise BadData(f"{both}; rename one, or say with --names what they are")
        checked = _checked(first)
        by_label: dict[str, list[str]] = {label: [] for label in checked}
        for label, *more in texts.values():
            by_label[label.strip()] += [label.strip(), *more]
        entries = tuple(
            Entry(label, tuple(dict.fromkeys(texts_of_label)))
            for label, texts_of_label in by_label.items()
        )
        order = {label: place for place, label in enumerate(checked)}
        places = {key: order[t[0].strip()] for key, t in texts.items()}
        return Chosen(Definition(entries), places)

    def _from_vocabulary(self, texts: Mapping[str, tuple[str, ...]], vocabulary: str) -> Chosen:
        """The classes of a label set, whether or not there are pictures of each."""
        known_set = _vocabulary(vocabulary)
        exact = {label: place for place, label in enumerate(known_set.labels)}
        alike = {_folded(label): place for label, place in exact.items()}
        places: dict[str, int] = {}
        unknown = []
        for key, (label, *_) in texts.items():
            place = exact.get(key, exact.get(label, alike.get(_folded(label))))
            if place is None:
                unknown.append(key)
            else:
                places[key] = place
        if unknown:
            raise BadData(f"not among the labels of {vocabulary}: {_listed(unknown)}")
        passed_over = f"{vocabulary}: `not` is not evaluated, since it only counts with abstain"
        return Chosen(known_set, places, (passed_over,) if known_set.nots else ())


def labelset_file(definition: Definition, templates: str | Sequence[str], *, truncate: bool) -> str:
    """What `openvocab labelset create` and PUT /labelsets/{name} take to make this label set.

    `templates` in place of its own: a set's name, or texts.
    """
    entries = definition.entries
    fields = exported(
        {
            "name": "",
            "labels": list(definition.labels),
            "synonyms": {e.label: list(e.texts) for e in entries if e.texts != (e.label,)},
            "groups": {e.label: list(e.path) for e in entries if e.path},
            "combine": {e.label: e.combine for e in entries if e.combine != "mean"},
            "prompts": {e.label: list(e.prompts) for e in entries if e.prompts},
            "prompts_with": "templates" if definition.joined else None,
            "not": list(definition.nots),
            "asked_templates": templates if isinstance(templates, str) else Counter(templates),
            "templates": None,
            "own_templates": None,
            "truncate": truncate,
            "description": definition.description,
        }
    )
    del fields["name"]
    return json.dumps(fields, ensure_ascii=False, indent=1) + "\n"


def _spoken(key: str) -> str:
    return labels.normal(key.replace("_", " "))


def _folded(label: str) -> str:
    return " ".join(label.replace("_", " ").casefold().split())


def _checked(names: Iterable[str]) -> tuple[str, ...]:
    try:
        return labels.clean(list(names), LIMITS, "the data")
    except Problem as problem:
        raise BadData(problem.detail) from None


def _picked(
    keys: Sequence[str], names: Mapping[str, tuple[str, ...]], file: Path
) -> dict[str, tuple[str, ...]]:
    # some systems write accents as characters of their own
    known = {unicodedata.normalize("NFC", key): texts for key, texts in names.items()}
    own = {key: unicodedata.normalize("NFC", key) for key in keys}
    missing = [key for key in keys if own[key] not in known]
    if missing:
        raise BadData(f"{file} does not say what these are: {_listed(missing)}")
    return {key: known[own[key]] for key in keys}


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return ", ".join(map(shown, keys[:NAMED])) + more


def _names(file: Path) -> dict[str, tuple[str, ...]]:
    """Key -> label and its synonyms, from TOML, JSON or CSV by the file's suffix."""
    text = _text(file)
    kind = file.suffix.lower()
    try:
        if kind == ".csv":
            return dict(_names_of_csv(file, text))
        content: Any = (
            tomllib.loads(text)
            if kind == ".toml"
            else json.loads(text, object_pairs_hook=names_once)
        )
    except (ValueError, csv.Error) as error:
        if isinstance(error, BadData):
            raise
        raise BadData(f"{file}: {error}") from None
    if not isinstance(content, dict):
        raise BadData(f"{file}: an object is needed, of folder names with their labels")
    names: dict[str, tuple[str, ...]] = {}
    for key, value in content.items():
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
            raise BadData(f"{file}: {shown(key)} is neither a label nor a list of texts")
        names[key] = _checked_texts(texts, f"{file}: {shown(key)}")
    return names


def _names_of_csv(file: Path, text: str) -> Iterable[tuple[str, tuple[str, ...]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    header = reader.fieldnames or []
    if FOLDER not in header or LABEL not in header:
        raise BadData(f"{file}, line 1: the header is to be {FOLDER},{LABEL}")
    for row in reader:
        line = f"{file}, line {reader.line_num}"
        more = row.get(None, ())
        if any(more):
            columns = f"has {len(header) + len(more)} columns, the header {len(header)}"
            raise BadData(f"{line}: {columns}; quote labels that contain commas")
        where = f"{line}, column {LABEL}"
        yield row[FOLDER], _checked_texts((row[LABEL] or "").split(BETWEEN), where)


def _checked_texts(texts: Sequence[str], where: str) -> tuple[str, ...]:
    try:
        return labels.clean(texts, LIMITS)
    except Problem as problem:
        raise BadData(f"{where}: {problem.detail}") from None


def _vocabulary(name: str) -> Definition:
    """The words, what a label set's file says, as the API reads it, or a shipped vocabulary."""
    shipped = presets()
    named = label_file(name)
    try:
        if named is not None:
            fields = definition(Path(named).read_bytes())
        elif name in shipped:
            fields = {"preset": name}
        elif "," in name:
            fields = {"labels": name.split(",")}
        else:
            known = ", ".join(shipped)
            raise BadData(
                f"--labels {name}: not a file, not comma-separated words, and not one of {known}"
            )
        # reads what a server is sent, and brings all that a server needs for it
        from app.api.labelset_body import UploadLimits, definition_of

        limits = UploadLimits(LIMITS, TEXT_LIMITS, MOST_TEMPLATES, shipped)
        return definition_of(fields, limits)
    except OSError as error:
        raise BadData(f"{name}: {reason(error)}") from None
    except BadFile as error:
        raise BadData(f"{name} {error}") from None
    except Problem as problem:
        raise BadData(f"{name}: {problem.detail}") from None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadData(f"{file}: {reason(error)}") from None
    except UnicodeDecodeError as error:
        raise BadData(f"{file}: is not UTF-8 text ({error.reason})") from None
