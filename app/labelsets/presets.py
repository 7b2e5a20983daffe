"""Shipped vocabularies as ready-made label sets. Knows no store."""

from collections.abc import Mapping
from typing import Final

from app.classify.templates import BARE, TemplateChoice, numbered
from app.errors import UnknownLabelset, excerpt, shown
from app.labelsets.definition import Definition, Entry, Stored, new
from prompts import Vocabulary

# no name of a registered label set holds the colon
PREFIX: Final = "preset:"

# what a request without labels is answered from; in a few templates where the model's own are many,
# so that the first such request need not wait for minutes
TAGS: Final = PREFIX + "everyday-nouns"
MANY: Final = "imagenet"
FEW: Final = "simple"

# what `abstain` holds labels against, as bare words: thousands in several templates cost minutes
OTHERS: Final = PREFIX + "other-words"


class Presets:
    """Label sets in version 0 by the names `preset:NAME`, made at first use."""

    def __init__(self, vocabularies: Mapping[str, Vocabulary], templates: str) -> None:
        """`templates` is the name of the set that is the model's own."""
        self._vocabularies = vocabularies
        self._templates = templates
        self._stored: dict[str, Stored] = {}

    def named(self, name: str) -> bool:
        """Whether a name means a shipped vocabulary."""
        return name.startswith(PREFIX)

    def stored(self, name: str) -> Stored:
        """The label set of this name. Raises UnknownLabelset."""
        stored = self._stored.get(name)
        if stored is None:
            vocabulary = self._vocabularies.get(name.removeprefix(PREFIX))
            if vocabulary is None:
                known = ", ".join(self._vocabularies)
                detail = f"preset {shown(name)} not found; there are {known}"
                raise UnknownLabelset(detail, field="labelset", value=excerpt(name))
            labels = numbered(vocabulary.labels)
            entries = tuple(Entry(label, texts) for label, texts in labels.items())
            templates = self._templates_of(name)
            stored = self._stored[name] = new(name, 0, Definition(entries, templates))
        return stored

    def _templates_of(self, name: str) -> TemplateChoice:
        if name == OTHERS:
            return BARE
        return FEW if name == TAGS and self._templates == MANY else None
