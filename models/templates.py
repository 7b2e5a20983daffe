"""ImageNet's templates and class names, rendered from open_clip's own lists. Knows no model."""

from open_clip import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES


def imagenet_templates() -> tuple[str, ...]:
    """The 80 templates with `{}` where the label goes (Radford et al. 2021, section 3.1.4)."""
    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 class names that the CLIP paper's authors wrote; two of them occur twice."""
    return tuple(IMAGENET_CLASSNAMES)
