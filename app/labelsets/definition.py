"""What a label set says, as checked values and as the bytes a store keeps. Knows no store."""

import hashlib
import json
import re
import secrets
import zlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any, Final, Literal

from app.classify.concept import Concept
from app.classify.scoring import Alternatives, Groups
from app.classify.templates import BARE, TemplateChoice
from app.errors import UnreadableLabelset
from app.labelsets.calibration.value import Calibration

# no name of a label set holds it, and every such name sorts before it
MARK: Final = "~"
_END: Final = "/"
_AFTER_END: Final = "0"  # the character that follows "/"


def in_namespace(namespace: str, name: str) -> str:
    """The name under which the store keeps a label set; "" is the namespace of no key."""
    return f"{MARK}{namespace}{_END}{name}" if namespace else name


def without_namespace(stored: str) -> str:
    """The name as its owner knows it."""
    return stored.partition(_END)[2] if stored.startswith(MARK) else stored


def namespace_of(stored: str) -> str:
    """The namespace that a stored name is in."""
    return stored[len(MARK) :].partition(_END)[0] if stored.startswith(MARK) else ""


def namespace_bounds(namespace: str) -> tuple[str, str]:
    """What all stored names of a namespace lie strictly between, and no other's do."""
    if not namespace:
        return "", MARK
    return f"{MARK}{namespace}{_END}", f"{MARK}{namespace}{_AFTER_END}"


# definitions that an older release cannot serve correctly are written in the newer format, which it
# refuses; all others in the older one, so that both releases can run side by side
PLAIN: Final = 1
FORMAT: Final = 2

Combine = Literal["mean", "best"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One label: the texts that stand for it, and whole prompts in place of the templates.

    `combine`: one vector is made of them all, or the best of them decides for each picture. `path`
    is the groups that the label is in, the widest first.
    """

    label: str
    texts: tuple[str, ...]
    prompts: tuple[str, ...] = ()
    combine: Combine = "mean"
    path: tuple[str, ...] = ()

    def alternatives(self, *, joined: bool) -> tuple[str, ...]:
        """What each row is made of, as shown to clients; () if there is one row for all."""
        if self.combine == "mean":
            return ()
        texts = (*self.texts, *self.prompts) if joined else self.prompts or self.texts
        return texts if len(texts) > 1 else ()

    def concepts(self, templates: tuple[str, ...], *, joined: bool) -> list[Concept]:
        """What its rows are made of: one, or one for each of its alternatives.

        `joined`: templates count beside its own prompts.
        """
        if not self.alternatives(joined=joined):
            if self.prompts and not joined:
                return [Concept(self.prompts, BARE)]
            return [Concept(self.texts, templates, self.prompts)]
        texts = self.texts if joined or not self.prompts else ()
        own = [Concept((prompt,), BARE) for prompt in self.prompts]
        return [Concept((text,), templates) for text in texts] + own


# the key of an example
KEY: Final = re.compile(r"[0-9a-f]{28}")


@dataclass(frozen=True, slots=True)
class Example:
    """A picture of a label: `sha256` names it, `key` is where the store keeps its bytes.

    Each addition has a key of its own, so that whoever removes a picture never removes one that
    was added again meanwhile; the key begins with the time, in milliseconds as 12 hex digits. Keys
    are in the order in which their pictures were sent.
    """

    sha256: str
    label: str
    width: int
    height: int
    size: int
    key: str

    @property
    def added(self) -> float:
        """When it was added: Unix time in seconds."""
        return int(self.key[:12], 16) / 1000


@dataclass(frozen=True, slots=True)
class Definition:
    """A label set as its owner wrote it; `templates` as in `app.classify.templates`.

    Each example's label is one of the entries'. Its `calibrations`, one of each model that has one,
    are no part of what it says: with others it is the same definition, with the same vectors.
    `joined`: prompts of labels are read beside the templates and do not replace them. `nots` are
    words that rule labels out. `truncate`: texts that are too long for the model are cut.
    """

    entries: tuple[Entry, ...]
    templates: TemplateChoice = None
    description: str = ""
    examples: tuple[Example, ...] = ()
    calibrations: tuple[Calibration, ...] = field(default=(), compare=False)
    joined: bool = False
    nots: tuple[str, ...] = ()
    truncate: bool = False
    labels: tuple[str, ...] = field(init=False, compare=False, repr=False)
    alternatives: Alternatives | None = field(init=False, compare=False, repr=False)
    groups: Groups | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # once, not at each request: there can be thousands
        object.__setattr__(self, "labels", tuple(entry.label for entry in self.entries))
        paths = [entry.path for entry in self.entries]
        object.__setattr__(self, "groups", Groups.of(paths) if any(paths) else None)
        of_labels = [entry.alternatives(joined=self.joined) for entry in self.entries]
        alternatives = Alternatives.of(of_labels) if any(of_labels) else None
        object.__setattr__(self, "alternatives", alternatives)

    @property
    def rows(self) -> int:
        """How many rows its labels have."""
        return len(self.alternatives.texts) if self.alternatives else len(self.labels)

    @property
    def plain(self) -> bool:
        """Whether releases that know only the plain format can serve it."""
        more = self.joined or self.nots or self.groups or self.alternatives or self.truncate
        return not self.examples and not self.calibrations and not more

    def keys(self) -> frozenset[str]:
        """Where the store keeps the pictures of its examples."""
        return frozenset(example.key for example in self.examples)

    def counts(self) -> dict[str, int]:
        """How many examples each label has; labels without are left out."""
        return dict(Counter(example.label for example in self.examples))

    def relearned(self, other: "Definition") -> "Definition":
        """The other one with what was learned of this one, unless it brings its own.

        Examples go with their labels.
        """
        labels = frozenset(other.labels)
        kept = tuple(example for example in self.examples if example.label in labels)
        return replace(
            other,
            examples=other.examples or kept,
            calibrations=other.calibrations or self.calibrations,
        )

    def calibrated(self, calibration: Calibration) -> "Definition":
        """With this calibration in place of the one of its model."""
        others = [
            known
            for known in self.calibrations
            if known.model != calibration.model and known.fingerprint != calibration.fingerprint
        ]
        return replace(self, calibrations=(*others, calibration))

    def uncalibrated(self, calibration: Calibration | None) -> "Definition":
        """Without this calibration."""
        left = tuple(known for known in self.calibrations if known != calibration)
        return replace(self, calibrations=left)

    def read(self, left_out: Collection[str], kept: Mapping[str, str]) -> "Definition":
        """The definition without some labels, and with some texts cut."""

        def shorter(texts: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(kept.get(text, text) for text in texts)

        return replace(
            self,
            entries=tuple(
                replace(entry, texts=shorter(entry.texts), prompts=shorter(entry.prompts))
                for entry in self.entries
                if entry.label not in left_out
            ),
            examples=tuple(e for e in self.examples if e.label not in left_out),
        )

    def concepts(self, templates: tuple[str, ...]) -> list[Concept]:
        """What the rows of the labels are made of, in order; one a label but for alternatives."""
        return [
            concept
            for entry in self.entries
            for concept in entry.concepts(templates, joined=self.joined)
        ]


@dataclass(frozen=True, slots=True)
class Stored:
    """A version of a label set: what it says, and what served before it until it is built.

    `name` is the store's, with the namespace. `built` says that some process has had all of its
    vectors once; `previous` is kept until then. `digest` stands for the definition, whatever its
    name and version. `lineage` is the same in all versions from a creation to the deletion; "" in
    what earlier releases wrote. `unreadable` is a body that this release cannot read, of a newer
    one or damaged; then the definition is empty. `cost` is how many bytes of memory it takes,
    about.

    As it serves here, `definition` may lack labels that the model cannot read, and `whole` is then
    the one that its owner wrote; `left_out` are these labels and `unread` says why.
    """

    name: str
    version: int
    definition: Definition
    digest: str
    built: bool = False
    previous: "Stored | None" = None
    lineage: str = ""
    unreadable: bool = False
    cost: int = field(default=0, compare=False)
    left_out: tuple[str, ...] = field(default=(), compare=False)
    unread: tuple[str, ...] = field(default=(), compare=False)
    whole: Definition | None = field(default=None, compare=False)

    @property
    def written(self) -> Definition:
        """The definition as its owner wrote it."""
        return self.whole or self.definition

    def read(
        self, left_out: Collection[str], kept: Mapping[str, str], unread: Sequence[str]
    ) -> "Stored":
        """As it serves where the model does not read all of it; `unread` says what."""
        definition = self.definition.read(left_out, kept)
        return replace(
            self,
            definition=definition,
            digest=_digest(definition),
            left_out=tuple(left_out),
            unread=tuple(unread),
            whole=self.definition,
        )

    @property
    def key(self) -> str:
        """The key of its vectors in caches, which namespaces do not share."""
        namespace = namespace_of(self.name)
        return f"{namespace}/{self.digest}" if namespace else self.digest

    def body(self) -> bytes:
        """What a store keeps under the name."""
        previous = self.previous and {
            "version": self.previous.version,
            "definition": _stored_fields(self.previous.definition),
        }
        plain = self.definition.plain and (not self.previous or self.previous.definition.plain)
        content: dict[str, Any] = {
            "format": PLAIN if plain else FORMAT,
            "definition": _stored_fields(self.definition),
            "built": self.built,
            "previous": previous,
        }
        if self.lineage:
            content["lineage"] = self.lineage
        return _sealed(json.dumps(content, ensure_ascii=False).encode())


def new(
    name: str,
    version: int,
    definition: Definition,
    previous: Stored | None = None,
    lineage: str = "",
) -> Stored:
    """A version that is not built yet."""
    digest = _digest(definition)
    return Stored(name, version, definition, digest, previous=previous, lineage=lineage)


def created(name: str, definition: Definition) -> Stored:
    """The first version of a name, to be numbered by the store."""
    return new(name, 0, definition, lineage=secrets.token_hex(8))


def from_body(name: str, version: int, body: bytes) -> Stored:
    """The reverse of `Stored.body`.

    Raises:
        ValueError, KeyError, TypeError: the body is of a newer format, damaged, or is none.
    """
    _check_seal(body)
    content = json.loads(body)
    if content["format"] not in (PLAIN, FORMAT):
        raise ValueError(
            f"label set {name!r} is stored in format {content['format']}, not up to {FORMAT}"
        )
    before, lineage = content["previous"], content.get("lineage", "")
    definition = _definition(content["definition"])
    return Stored(
        name=name,
        version=version,
        definition=definition,
        digest=_digest(definition),
        cost=memory_cost(body),
        built=content["built"],
        previous=before
        and replace(
            new(name, before["version"], _definition(before["definition"]), lineage=lineage),
            built=True,
        ),
        lineage=lineage,
    )


# a checksum of the body without it, as its last field: other releases read the body all the same
_SEAL: Final = b', "crc32": "%08x"}'
_SEAL_SIZE: Final = len(_SEAL % 0)
_SEAL_START: Final = _SEAL.partition(b"%")[0]


def _sealed(content: bytes) -> bytes:
    return content[:-1] + _SEAL % zlib.crc32(content)


def _check_seal(body: bytes) -> None:
    """ValueError if the body is not what was written; older ones have no checksum."""
    seal = body[-_SEAL_SIZE:]
    if seal.startswith(_SEAL_START):
        content = memoryview(body)[:-_SEAL_SIZE]
        if seal != _SEAL % zlib.crc32(b"}", zlib.crc32(content)):
            raise ValueError("the stored definition does not match its checksum")


def unreadable(name: str, version: int) -> Stored:
    """A version whose body cannot be read: it can be replaced and deleted, and nothing else."""
    return Stored(name, version, Definition(()), digest="", unreadable=True)


def unreadable_problem(name: str) -> UnreadableLabelset:
    """The problem of a definition that a newer release wrote, or that is damaged."""
    own = without_namespace(name)
    detail = f"the label set {own} cannot be read by this release; replace it or delete it"
    return UnreadableLabelset(detail, field="labelset", value=own)


def memory_cost(body: bytes) -> int:
    """Bytes that a body takes once it is read, about: each text and list costs more than it holds.

    Measured: 1,000,000 texts of 8 characters, 12 MB as JSON, are 98 MB.
    """
    return len(body) + 45 * body.count(b'"') + 80 * body.count(b"[")


def _digest(definition: Definition) -> str:
    return hashlib.sha256(json.dumps(_content(definition)).encode()).hexdigest()


def _content(definition: Definition) -> dict[str, Any]:
    content: dict[str, Any] = {
        "entries": [_row(entry) for entry in definition.entries],
        "templates": definition.templates,
        "description": definition.description,
    }
    # absent where there is nothing: the same bytes as in the plain format
    if definition.joined:
        content["joined"] = True
    if definition.nots:
        content["not"] = definition.nots
    if definition.truncate:
        content["truncate"] = True
    if definition.examples:
        content["examples"] = [astuple(example) for example in definition.examples]
    return content


def _row(entry: Entry) -> tuple[Any, ...]:
    row = (entry.label, entry.texts, entry.prompts)
    more = (entry.combine, entry.path)
    return row if more == ("mean", ()) else row + more


def _stored_fields(definition: Definition) -> dict[str, Any]:
    """The content, and what was learned of it."""
    content, known = _content(definition), [each.json() for each in definition.calibrations]
    if len(known) == 1:
        content["calibration"] = known[0]
    elif known:
        content["calibrations"] = known
    return content


def _definition(content: Mapping[str, Any]) -> Definition:
    templates, calibration = content["templates"], content.get("calibration")
    calibrations = content.get("calibrations", (calibration,) if calibration else ())
    return Definition(
        entries=tuple(
            Entry(label, tuple(texts), tuple(prompts), *_more(more))
            for label, texts, prompts, *more in content["entries"]
        ),
        templates=tuple(templates) if isinstance(templates, list) else templates,
        description=content["description"],
        examples=tuple(Example(*row) for row in content.get("examples", ())),
        joined=content.get("joined", False),
        nots=tuple(content.get("not", ())),
        truncate=content.get("truncate", False),
        calibrations=tuple(Calibration.from_json(each) for each in calibrations),
    )


def _more(stored: Sequence[Any]) -> tuple[Combine, tuple[str, ...]]:
    if not stored:
        return "mean", ()
    combine, path = stored
    if combine not in ("mean", "best"):
        raise ValueError(f"a label is combined by {combine!r}, not by mean or best")
    return combine, tuple(path)
