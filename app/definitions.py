"""What a label set says, as checked values and as the bytes a store keeps. Knows no store."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from app.concepts import Concept
from app.errors import UnreadableLabelset
from app.namespaces import outside
from app.templates import Asked

# raised when bodies written so far can no longer be read as they are
FORMAT: Final = 1

WHOLE: Final = ("{}",)


@dataclass(frozen=True, slots=True)
class Entry:
    """One label: the texts that stand for it, and whole prompts that replace the templates."""

    label: str
    texts: tuple[str, ...]
    prompts: tuple[str, ...] = ()

    def concept(self, templates: tuple[str, ...]) -> Concept:
        """What its vector is made of."""
        return Concept(self.prompts, WHOLE) if self.prompts else Concept(self.texts, templates)


@dataclass(frozen=True, slots=True)
class Definition:
    """A label set as its owner wrote it; `templates` as in `app.templates`."""

    entries: tuple[Entry, ...]
    templates: Asked = None
    description: str = ""
    labels: tuple[str, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # once, not at each request: there can be thousands
        object.__setattr__(self, "labels", tuple(entry.label for entry in self.entries))

    def concepts(self, templates: tuple[str, ...]) -> list[Concept]:
        """One concept for each label, in order."""
        return [entry.concept(templates) for entry in self.entries]


@dataclass(frozen=True, slots=True)
class Stored:
    """A version of a label set: what it says, and what served before it until it is built.

    `name` is the store's, with the namespace. `built` says that some process has had all of its
    vectors once; `previous` is kept until then. `digest` stands for the definition, whatever its
    name and version. `unreadable` is a body that this release cannot read, of a newer one or
    damaged; then the definition is empty.
    """

    name: str
    version: int
    definition: Definition
    digest: str
    built: bool = False
    previous: "Stored | None" = None
    unreadable: bool = False

    def body(self) -> bytes:
        """What a store keeps under the name."""
        previous = self.previous and {
            "version": self.previous.version,
            "definition": _content(self.previous.definition),
        }
        content = {
            "format": FORMAT,
            "definition": _content(self.definition),
            "built": self.built,
            "previous": previous,
        }
        return json.dumps(content, ensure_ascii=False).encode()


def new(name: str, version: int, definition: Definition, previous: Stored | None = None) -> Stored:
    """A version that is not built yet."""
    return Stored(name, version, definition, _digest(definition), previous=previous)


def from_body(name: str, version: int, body: bytes) -> Stored:
    """The reverse of `Stored.body`.

    Raises:
        ValueError, KeyError, TypeError: the body is of a newer format, or is none.
    """
    content = json.loads(body)
    if content["format"] != FORMAT:
        raise ValueError(
            f"label set {name!r} is stored in format {content['format']}, not {FORMAT}"
        )
    before = content["previous"]
    definition = _definition(content["definition"])
    return Stored(
        name=name,
        version=version,
        definition=definition,
        digest=_digest(definition),
        built=content["built"],
        previous=before
        and replace(new(name, before["version"], _definition(before["definition"])), built=True),
    )


def unreadable(name: str, version: int) -> Stored:
    """A version whose body cannot be read: it can be replaced and deleted, and nothing else."""
    return Stored(name, version, Definition(()), digest="", unreadable=True)


def unreadable_problem(name: str) -> UnreadableLabelset:
    """The problem of a definition that a newer release wrote, or that is damaged."""
    own = outside(name)
    detail = f"the label set {own} cannot be read by this release; replace it or delete it"
    return UnreadableLabelset(detail, field="labelset", value=own)


def _digest(definition: Definition) -> str:
    return hashlib.sha256(json.dumps(_content(definition)).encode()).hexdigest()


def _content(definition: Definition) -> dict[str, Any]:
    return {
        "entries": [(entry.label, entry.texts, entry.prompts) for entry in definition.entries],
        "templates": definition.templates,
        "description": definition.description,
    }


def _definition(content: Mapping[str, Any]) -> Definition:
    templates = content["templates"]
    return Definition(
        entries=tuple(
            Entry(label, tuple(texts), tuple(prompts))
            for label, texts, prompts in content["entries"]
        ),
        templates=tuple(templates) if isinstance(templates, list) else templates,
        description=content["description"],
    )
