"""The CLIP paper's 80 ImageNet templates, rendered from open_clip's own list. Knows no model."""

from open_clip import OPENAI_IMAGENET_TEMPLATES


def imagenet_templates() -> tuple[str, ...]:
    """The 80 templates with `{}` where the label goes (Radford et al. 2021, section 3.1.4)."""
    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
