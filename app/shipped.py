"""Template sets and vocabularies that come with the service. Knows nothing of requests."""

from collections.abc import Mapping, Sequence

from prompts import TemplateSet, load_sets, load_vocabularies


def template_sets() -> Mapping[str, TemplateSet]:
    """The shipped sets, and `imagenet` as open_clip has it."""
    from models.templates import imagenet_templates

    about = "The 80 templates of the CLIP paper, for photographs."
    imagenet = TemplateSet("imagenet", about, "en", imagenet_templates())
    return dict(sorted({**load_sets(), "imagenet": imagenet}.items()))


def presets() -> Mapping[str, Sequence[str]]:
    """The shipped vocabularies, and `imagenet-1k` as open_clip has it."""
    from models.templates import imagenet_classes

    shipped = {name: found.labels for name, found in load_vocabularies().items()}
    return dict(sorted({**shipped, "imagenet-1k": imagenet_classes()}.items()))
