"""Template sets, vocabularies and their loaders. Knows nothing of models, vectors or HTTP."""

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
from prompts.vocabularies import (
    MAX_LABEL_LENGTH,
    Vocabulary,
    VocabularyError,
    load_vocabularies,
)

__all__ = [
    "MAX_LABEL_LENGTH",
    "MAX_TEMPLATES",
    "MAX_TEMPLATE_LENGTH",
    "PLACEHOLDER",
    "TemplateError",
    "TemplateSet",
    "Vocabulary",
    "VocabularyError",
    "expand",
    "fill",
    "load_sets",
    "load_vocabularies",
    "validate_template",
    "validate_templates",
]
