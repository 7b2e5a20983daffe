"""Which templates a request or a label set means. Knows nothing of labels or vectors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from app.errors import UnknownTemplates
from app.labels import excerpt, shown
from prompts import TemplateSet

OWN: Final = "custom"

# a set's name, own templates, or None for the default
Asked = str | tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class TemplateSets:
    """The sets by name, and the one that the model's provenance makes the default."""

    sets: Mapping[str, TemplateSet]
    default: str

    def name_of(self, asked: Asked) -> str:
        """The name that answers give, whether or not there is such a set."""
        return OWN if isinstance(asked, tuple) else asked or self.default

    def resolve(self, asked: Asked) -> tuple[str, tuple[str, ...]]:
        """The name that answers give, and the templates themselves.

        Raises:
            UnknownTemplates: no set has this name.
        """
        name = self.name_of(asked)
        if isinstance(asked, tuple):
            return name, asked
        found = self.sets.get(name)
        if found is None:
            detail = f"no template set is called {shown(name)}; GET /templates lists them"
            raise UnknownTemplates(detail, field="templates", value=excerpt(name))
        return name, found.templates
