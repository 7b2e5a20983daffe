"""From the fields of a request to a checked query. Knows nothing of bodies or images."""

import re
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from app import labels, logs
from app.classification import Query
from app.errors import Invalid, Problem, TooLarge
from app.labels import LabelLimits
from app.labelset_schemas import NAME_PATTERN
from app.schemas import ClassifyFields
from app.templates import Asked
from prompts import PLACEHOLDER, TemplateError, validate_templates

IMAGE: Final = "image"
NAME: Final = re.compile(NAME_PATTERN)
KNOWN: Final = ", ".join([IMAGE, *ClassifyFields.model_fields])


@dataclass(frozen=True, slots=True)
class InputLimits:
    """What one request may carry; `templates` counts own templates."""

    labels: LabelLimits
    templates: int

    @property
    def fields(self) -> int:
        """Parts of a form: every list repeated up to its limit, and each other field once."""
        return self.labels.count + self.templates + len(ClassifyFields.model_fields)


def build_query(fields: dict[str, Any], limits: InputLimits) -> Query:
    """Check every field and put the query together.

    Raises:
        Invalid, TooLarge: with the field at fault, its limit and its value.
    """
    try:
        checked = ClassifyFields.model_validate(fields)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False), fields, KNOWN) from None
    query = Query(
        labels=() if checked.labels is None else labels.clean(checked.labels, limits.labels),
        labelset=None if checked.labelset is None else checked_name(checked.labelset, "labelset"),
        templates=own_or_named(checked.templates, limits.templates),
        top_k=checked.top_k,
        threshold=checked.threshold,
        multi_label=checked.multi_label,
        abstain=checked.abstain,
        explain=checked.explain,
    )
    logs.note(labels=query.labels, labelset=query.labelset)
    return query


def checked_name(name: str, field: str = "name") -> str:
    """The name of a label set, if it is one. Raises Invalid."""
    if not NAME.fullmatch(name):
        detail = (
            f"{labels.shown(name)} is no name for a label set: letters, digits, dots, hyphens and "
            "underscores, 64 at most, a letter or digit first"
        )
        raise Invalid(detail, field=field, value=labels.excerpt(name))
    return name


def own_or_named(asked: list[str] | None, limit: int) -> Asked:
    """Own templates, checked, or a set's name, not looked up yet. Raises Invalid, TooLarge."""
    if asked is None:
        return None
    if len(asked) == 1 and asked[0].strip() and not set(PLACEHOLDER) & set(asked[0]):
        return asked[0]
    try:
        return validate_templates(asked, limit)
    except TemplateError as error:
        value, most = error.value, error.limit
        over = isinstance(value, int) and most is not None and value > most
        kind: type[Problem] = TooLarge if over else Invalid
        raise kind(str(error), field="templates", limit=most, value=value) from None


def invalid(errors: list[ErrorDetails], fields: dict[str, Any], known: str) -> Invalid:
    """One problem from what pydantic found; a misspelt name explains a missing field, so first."""
    error = next((found for found in errors if found["type"] == "extra_forbidden"), errors[0])
    name = str(error["loc"][0]) if error["loc"] else "labels"
    if error["type"] == "extra_forbidden":
        detail = f"there is no field {labels.shown(name)}; the fields are {known}"
        return Invalid(detail, field=labels.excerpt(name))
    if error["type"] == "missing":
        return Invalid(f"{name} is missing", field=name)
    message = error["msg"].removeprefix("Value error, ")
    context = error.get("ctx", {})
    limit = next((context[key] for key in ("ge", "gt", "le", "lt") if key in context), None)
    return Invalid(
        f"{name}: {message[:1].lower()}{message[1:]}",
        field=name,
        limit=limit,
        value=_value(fields.get(name)),
    )


def _value(sent: Any) -> Any:
    if isinstance(sent, str):
        return labels.excerpt(sent)
    return sent if isinstance(sent, bool | int | float) else None
