"""Check prompt templates, fill them with labels, and read the sets in `sets/`.

Knows nothing of tokens, models or HTTP.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from prompts.texts import breaks_line, shown

PLACEHOLDER = "{}"
MAX_TEMPLATE_LENGTH = 200
MAX_TEMPLATES = 200
MAX_DESCRIPTION_LENGTH = 200

_KEYS = frozenset({"description", "language", "templates"})
_NAME = re.compile(r"[a-z0-9-]+")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")


@dataclass(frozen=True, slots=True)
class TemplateSet:
    """A named ensemble of templates in one language (BCP 47)."""

    name: str
    description: str
    language: str
    templates: tuple[str, ...]


class TemplateError(ValueError):
    """A template or a set is invalid; `field`, `limit` and `value` say where and by how much.

    A `value` that is text is an abbreviated repr, so it can always be encoded as UTF-8.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str = "templates",
        limit: int | None = None,
        value: int | str | None = None,
    ) -> None:
        super().__init__(message)
        self.field = field
        self.limit = limit
        self.value = value


def validate_template(template: str) -> str:
    """Return `template` unchanged, or raise TemplateError if it is not one usable line."""
    _check_line(template, "templates", "a template", MAX_TEMPLATE_LENGTH)
    count = template.count(PLACEHOLDER)
    if count != 1:
        raise TemplateError(
            f"a template needs exactly 1 placeholder {PLACEHOLDER}, {shown(template)} has {count}",
            limit=1,
            value=shown(template),
        )
    if template.count("{") != 1 or template.count("}") != 1:
        raise TemplateError(
            f"a template has no brace other than its placeholder {PLACEHOLDER}, "
            f"{shown(template)} does",
            value=shown(template),
        )
    return template


def validate_templates(templates: Sequence[str], limit: int = MAX_TEMPLATES) -> tuple[str, ...]:
    """Return the templates as a tuple, or raise TemplateError: 1 to `limit`, all different."""
    # a str is a sequence of str too, and its characters are never what the caller meant
    if isinstance(templates, str) or not isinstance(templates, Sequence):
        raise TemplateError("templates must be a list of texts", value=shown(templates))
    if not templates:
        raise TemplateError("at least 1 template is needed, got 0", limit=1, value=0)
    if len(templates) > limit:
        raise TemplateError(
            f"at most {limit} templates are allowed, got {len(templates)}",
            limit=limit,
            value=len(templates),
        )
    seen: set[str] = set()
    for template in templates:
        if validate_template(template) in seen:
            raise TemplateError(
                f"the template {shown(template)} is given twice", value=shown(template)
            )
        seen.add(template)
    return tuple(templates)


def fill(template: str, label: str) -> str:
    """Put `label`, verbatim, in the place of the placeholder of a valid template."""
    return template.replace(PLACEHOLDER, label)


def expand(templates: Sequence[str], label: str) -> tuple[str, ...]:
    """Fill each template with `label`, in order."""
    return tuple(fill(template, label) for template in templates)


def load_sets(folder: Path | None = None) -> Mapping[str, TemplateSet]:
    """Read every `*.toml` of `folder` (default: the sets shipped here), sorted by name.

    The mapping is read-only. A bad file raises a TemplateError that names it, and so does a
    folder without any, because that is an incomplete installation.
    """
    folder = Path(__file__).parent / "sets" if folder is None else folder
    paths = sorted(folder.glob("*.toml"), key=lambda path: path.stem)
    if not paths:
        raise TemplateError(f"no template sets (*.toml) in {folder}")
    return MappingProxyType({path.stem: _load_set(path) for path in paths})


def _load_set(path: Path) -> TemplateSet:
    try:
        return _parse_set(path.stem, path.read_text(encoding="utf-8"))
    except TemplateError as error:
        raise TemplateError(
            f"{path}: {error}", field=error.field, limit=error.limit, value=error.value
        ) from error
    except (OSError, ValueError) as error:  # unreadable, not UTF-8, not TOML
        raise TemplateError(f"{path}: {error}") from error


def _parse_set(name: str, text: str) -> TemplateSet:
    if not _NAME.fullmatch(name):
        raise TemplateError(
            f"a set's name is lower-case letters, digits and hyphens, got {shown(name)}",
            field="name",
            value=shown(name),
        )
    data = tomllib.loads(text)
    for problem, keys in (("unknown", data.keys() - _KEYS), ("missing", _KEYS - data.keys())):
        if keys:
            raise TemplateError(f"{problem} key: {', '.join(sorted(keys))}", field=min(keys))
    description, language = data["description"], data["language"]
    _check_line(description, "description", "a description", MAX_DESCRIPTION_LENGTH)
    if not description.strip():
        raise TemplateError("a description must not be blank", field="description")
    if not isinstance(language, str) or not _LANGUAGE.fullmatch(language):
        raise TemplateError(
            f"a language is a BCP 47 tag such as en or pt-BR, got {shown(language)}",
            field="language",
            value=shown(language),
        )
    return TemplateSet(name, description, language, validate_templates(data["templates"]))


def _check_line(text: object, field: str, what: str, limit: int) -> None:
    if not isinstance(text, str):
        raise TemplateError(
            f"{what} must be a text, got {shown(text)}", field=field, value=shown(text)
        )
    if len(text) > limit:
        raise TemplateError(
            f"{what} has at most {limit} characters, {shown(text)} has {len(text)}",
            field=field,
            limit=limit,
            value=len(text),
        )
    wrong = breaks_line(text)
    if wrong is not None:
        raise TemplateError(
            f"{what} is one line without control characters, lone surrogates or marks that turn "
            f"the direction of text, {shown(text)} contains U+{ord(wrong):04X}",
            field=field,
            value=shown(text),
        )
