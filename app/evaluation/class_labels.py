"""What a class is called and what its label is embedded as. Knows nothing of pictures.

A folder's name, or a label of a CSV, is a key; `--names` and `--labels` say what keys stand for.
"""

import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.api.json_text import loaded
from app.classify import labels
from app.classify.labels import LabelLimits
from app.classify.templates import presets
from app.cli.files import reason
from app.cli.label_file import label_file
from app.cli.labelset_client import BadFile, definition, exported
from app.errors import Problem, shown
from app.evaluation import tables
from app.evaluation.tables import BadData
from app.labelsets.definition import Definition, Entry

LIMITS: Final = LabelLimits(count=100_000)
TEXT_LIMITS: Final = LabelLimits(length=2_000)
MOST_TEMPLATES: Final = 1_000

# columns of --names as CSV
FOLDER: Final = "folder"
LABEL: Final = "label"

# keys that an error names
NAMED: Final = 5


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
            by_label[label] += [label, *more]
        entries = tuple(
            Entry(label, tuple(dict.fromkeys(texts_of_label)))
            for label, texts_of_label in by_label.items()
        )
        order = {label: place for place, label in enumerate(checked)}
        return Chosen(Definition(entries), {key: order[t[0]] for key, t in texts.items()})

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
    missing = [key for key in keys if _plain(key) not in names]
    if missing:
        raise BadData(f"{file} does not say what these are: {_listed(missing)}")
    return {key: names[_plain(key)] for key in keys}


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return ", ".join(map(shown, keys[:NAMED])) + more


def _names(file: Path) -> dict[str, tuple[str, ...]]:
    """Key, as `_plain` has it -> label and its synonyms, from TOML, JSON or CSV by the suffix."""
    table = file.suffix.lower() in (".csv", ".tsv")
    names: dict[str, tuple[str, ...]] = {}
    for where, key, raw in _names_of_csv(file) if table else _names_of_object(file):
        texts = _checked_texts(raw, where)
        if names.setdefault(_plain(key), texts) != texts:
            raise BadData(f"{where}: {shown(key)} has another label already")
    return names


def _plain(key: str) -> str:
    """A key as it is looked up: some systems write accents as characters of their own."""
    return labels.composed(key).strip()


def _names_of_object(file: Path) -> Iterable[tuple[str, str, list[str]]]:
    text = tables.text(file)
    try:
        content: Any = tomllib.loads(text) if file.suffix.lower() == ".toml" else loaded(text)
    except (ValueError, RecursionError) as error:
        raise BadData(f"{file}: {error}") from None
    if not isinstance(content, dict):
        raise BadData(f"{file}: an object is needed, of folder names with their labels")
    for key, value in content.items():
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
            raise BadData(f"{file}: {shown(key)} is neither a label nor a list of texts")
        yield f"{file}: {shown(key)}", key, texts


def _names_of_csv(file: Path) -> Iterable[tuple[str, str, list[str]]]:
    for line, (key, cell) in tables.rows(file, FOLDER, LABEL):
        where = f"{file}, line {line}, column {LABEL}"
        yield where, key, tables.texts(cell, where) or [""]


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
