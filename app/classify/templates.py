"""Which templates a request or a label set means. Knows nothing of labels or vectors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.errors import UnknownTemplates, excerpt, shown
from prompts import TemplateSet, Vocabulary, load_sets, load_vocabularies


def template_sets() -> Mapping[str, TemplateSet]:
    """The shipped sets, and `imagenet` as open_clip has it."""
    from models.imagenet import imagenet_templates

    about = "The 80 templates of the CLIP paper, for photographs."
    imagenet = TemplateSet("imagenet", about, "en", imagenet_templates())
    return dict(sorted({**load_sets(), "imagenet": imagenet}.items()))


def presets() -> Mapping[str, Vocabulary]:
    """The shipped vocabularies by name, and `imagenet-1k` as open_clip has it."""
    from models.imagenet import imagenet_classes

    about = "The 1,000 classes of ImageNet, in the order of its class numbers."
    source = "class names of the CLIP paper (Radford et al., 2021), as open_clip has them"
    imagenet = Vocabulary("imagenet-1k", about, source, imagenet_classes())
    return dict(sorted({**load_vocabularies(), imagenet.name: imagenet}.items()))


def numbered(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Labels of a vocabulary with the text of each.

    Two classes of ImageNet share a name: the second is told apart by a number.
    """
    sets: dict[str, tuple[str, ...]] = {}
    for name in names:
        sets[f"{name} (2)" if name in sets else name] = (name,)
    return sets


OWN: Final = "custom"

# a text as it is, in no template
BARE: Final[tuple[str, ...]] = ("{}",)

# a set's name, own templates, or None for the default
TemplateChoice = str | tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class TemplateSets:
    """The sets by name, and the one that the model's provenance makes the default."""

    sets: Mapping[str, TemplateSet]
    default: str

    def name_of(self, requested: TemplateChoice) -> str:
        """The name that answers give, whether or not there is such a set."""
        return OWN if isinstance(requested, tuple) else requested or self.default

    def resolve(self, requested: TemplateChoice) -> tuple[str, tuple[str, ...]]:
        """The name that answers give, and the templates themselves.

        Raises:
            UnknownTemplates: no set has this name.
        """
        name = self.name_of(requested)
        if isinstance(requested, tuple):
            return name, requested
        template_set = self.sets.get(name)
        if template_set is None:
            detail = f"template set {shown(name)} not found; GET /templates lists them"
            detail += ", and a template of your own contains {}"
            raise UnknownTemplates(detail, field="templates", value=excerpt(name))
        return name, template_set.templates
