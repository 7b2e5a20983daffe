"""Prompt template sets and their loader. Knows nothing of models, vectors or HTTP."""

from prompts.loader import (
    MAX_TEMPLATE_LENGTH,
    MAX_TEMPLATES,
    PLACEHOLDER,
    TemplateError,
    TemplateSet,
    expand,
    fill,
    load_sets,
    validate_template,
    validate_templates,
)

__all__ = [
    "MAX_TEMPLATES",
    "MAX_TEMPLATE_LENGTH",
    "PLACEHOLDER",
    "TemplateError",
    "TemplateSet",
    "expand",
    "fill",
    "load_sets",
    "validate_template",
    "validate_templates",
]
