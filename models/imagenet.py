"""ImageNet's templates and class names, rendered from open_clip's own lists. Knows no model."""

import functools
import importlib.util
from pathlib import Path
from types import ModuleType


def imagenet_templates() -> tuple[str, ...]:
    """The 80 templates with `{}` where the label goes (Radford et al. 2021, section 3.1.4)."""
    return tuple(template("{}") for template in _lists().OPENAI_IMAGENET_TEMPLATES)


def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 class names that the CLIP paper's authors wrote; two of them occur twice."""
    return tuple(_lists().IMAGENET_CLASSNAMES)


@functools.cache
def _lists() -> ModuleType:
    """open_clip's module of lists alone: the package would bring torch, which not all need."""
    package = importlib.util.find_spec("open_clip")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).with_name("zero_shot_metadata.py")
    spec = importlib.util.spec_from_file_location("zero_shot_metadata", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
