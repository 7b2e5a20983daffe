"""From a request's bytes to the name and definition of a label set. Knows no store."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field
from starlette.requests import Request

from app import errors
from app.api import json_text
from app.api.bodies import (
    FORM,
    URLENCODED,
    address_fields,
    form_fields,
    is_json,
    json_body,
    media_type,
    merge,
    offload,
    percent_decoded,
    single,
    text_of,
    too_many,
)
from app.api.fields import (
    NAME_PATTERN,
    Labels,
    RequestFields,
    Templates,
    checked_name,
    listed,
    own_or_named,
    validated,
)
from app.classify import labels
from app.classify.labels import LabelLimits
from app.classify.templates import TemplateChoice, numbered
from app.errors import Invalid
from app.labelsets.definition import Combine, Definition, Entry
from prompts import PLACEHOLDER, Vocabulary

# how often one template may count
MOST_WEIGHT: Final = 10

# groups in groups
MOST_DEPTH: Final = 8

# texts of a label, or a group: labels and groups in turn
Nested = list[str] | dict[str, Any]
Weighted = dict[str, Annotated[int, Field(ge=1, le=MOST_WEIGHT)]]

EXAMPLE: dict[str, Any] = {
    "name": "pets",
    "labels": {"cat": ["cat", "kitten"], "dog": ["dog", "puppy"], "parrot": []},
    "description": "What comes through the cat flap",
}


class LabelSetBody(RequestFields):
    """A label set as its owner writes it."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    name: str | None = Field(
        None, description=f"For POST; a name is {NAME_PATTERN}.", examples=["pets"]
    )
    labels: list[str] | dict[str, Nested] | None = Field(
        None,
        description="Labels, or labels with the texts that stand for them (none: itself), or "
        "groups of such, in each other.",
    )
    combine: Combine | dict[str, Combine] = Field(
        "mean",
        description="For labels with several texts: `mean`, one vector of them all, or `best`, the "
        "text decides that fits a picture best; for all labels, or by label.",
    )
    prompts: dict[str, list[str]] = Field(
        default_factory=dict, description="Whole prompts for a label, used as they are."
    )
    prompts_with: Literal["templates"] | None = Field(
        None, description="Read the prompts of labels beside the templates, not in their place."
    )
    templates: Weighted | Templates | None = Field(
        None,
        description="A template set's name or own templates, or these with whole numbers that say "
        f"how often each counts (1 to {MOST_WEIGHT}); default: the model's.",
    )
    nots: Labels = Field(
        default_factory=list,
        alias="not",
        description="What pictures may show instead of the labels: with abstain nothing is "
        "answered where one of these fits better.",
        examples=[["a blank page"]],
    )
    truncate: bool = Field(
        False,
        description="Take the beginning of texts that are longer than the model reads, with a "
        "warning; else such a label is left out, and named.",
    )
    description: str = Field("", max_length=1_000, description="Description of the label set.")
    preset: str | None = Field(
        None, description="A shipped vocabulary instead of labels: `imagenet-1k`, …"
    )


OPTIONS: Final = ("model", "wait")
LISTS: Final = ("templates", "not")
FORM_LISTS: Final = ("labels", *LISTS)

# what JSON may have as an object, as well as `labels`
OBJECTS: Final = ("combine", "prompts", "templates")

KNOWN: Final = tuple(field.alias or name for name, field in LabelSetBody.model_fields.items())

# a form begins with one of its fields, and no line of a file of labels does
FIELD: Final = re.compile(rb"(?:%b)=" % b"|".join(map(str.encode, KNOWN)))


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Limits of one label set; `texts` of one label."""

    labels: LabelLimits
    texts: LabelLimits
    templates: int
    presets: Mapping[str, Vocabulary]

    @property
    def fields(self) -> int:
        """Parts of a form: every list repeated up to its limit, and each other field once."""
        return self.labels.count + self.templates + len(LabelSetBody.model_fields)


@dataclass(frozen=True, slots=True)
class Upload:
    """A label set as it was sent, and sentences on what of it was understood otherwise."""

    name: str
    definition: Definition
    warnings: Sequence[str]


async def read_labelset(request: Request, limits: UploadLimits, name: str | None = None) -> Upload:
    """The name (from the path, if given) and the contents of the label set.

    The body is JSON, a form, or text with one label a line and the other fields in the URL; an
    object is JSON whatever type was sent with it.

    Raises:
        Unparsable, Invalid, TooLarge: with the field at fault.
    """
    kind = media_type(request.headers.get("content-type", ""))
    in_address = address_fields(request, LISTS)
    fields = _typed({name: value for name, value in in_address.items() if name not in OPTIONS})
    if kind == FORM:
        form = await form_fields(request, (), limits)
        own = {key: single(key, values, FORM_LISTS) for key, values in form.items()}
        fields = merge(fields, _typed(own))
        return _with_name(fields, limits, name)
    body = await request.body()
    if is_json(kind) or await offload(len(body), _is_object, body, kind):
        fields = merge(fields, await json_body(request))
        return await offload(len(body), _with_name, fields, limits, name)
    return await offload(len(body), _read, body, kind, fields, limits, name)


def _is_object(body: bytes, kind: str) -> bool:
    """Whether a body can only be meant as JSON, though another type, or none, was sent with it."""
    if kind == URLENCODED:
        return body.lstrip()[:1] == b"{"
    return json_text.OBJECT.match(text_of(body)) is not None


def _read(
    body: bytes, kind: str, fields: dict[str, Any], limits: UploadLimits, name: str | None
) -> Upload:
    if kind == URLENCODED:
        fields = merge(fields, _from_curl(body, limits))
    else:
        lines = _lines(body, limits)
        fields = merge(fields, {"labels": lines} if lines else {})
    return _with_name(fields, limits, name)


def _with_name(fields: dict[str, Any], limits: UploadLimits, name: str | None) -> Upload:
    if name is not None:
        if fields.get("name", name) not in (name, None):
            detail = f"the URL names the label set {errors.shown(name)}, and `name` another one"
            raise Invalid(detail, field="name", limit=name)
        fields["name"] = name
    checked = LabelSetBody.checked(fields, KNOWN)
    if checked.name is None:
        raise Invalid("name is missing", field="name")
    return Upload(checked_name(checked.name), *_definition(checked, limits))


def definition_of(fields: dict[str, Any], limits: UploadLimits) -> Definition:
    """The contents of a label set, whatever its name. Raises Invalid, TooLarge."""
    definition, _ = _definition(LabelSetBody.checked(fields, KNOWN), limits)
    return definition


def _from_curl(body: bytes, limits: UploadLimits) -> dict[str, Any]:
    """What came with curl's own content type: a form, or the lines of a file if they are left."""
    if FIELD.match(body):
        try:
            form = percent_decoded(text_of(body), limits.fields)
        except ValueError:
            raise too_many(limits) from None
        return _typed({key: single(key, values, FORM_LISTS) for key, values in form.items()})
    lines = _lines(body, limits)
    if len(lines) == 1:
        detail = (
            f"the body is one label, {errors.shown(lines[0])}: curl's -d @FILE takes the line ends "
            "out of a file; send it with --data-binary @FILE, or one label as text/plain"
        )
        raise Invalid(detail, field="labels", limit=2, value=1)
    return {"labels": lines} if lines else {}


def _typed(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a form or a URL as JSON has them: labels with commas or lines between are a
    list, and what may be an object is read as one.
    """
    typed = dict(fields)
    for name in OBJECTS:
        text = fields.get(name)
        if not isinstance(text, str) or not json_text.OBJECT.match(text):
            continue
        if name != "templates" or text.strip() != PLACEHOLDER:  # {} alone is a template
            typed[name] = json_text.small_object(text, name)
    if isinstance(text := typed.get("labels"), str):
        is_object = text.lstrip()[:1] == "{"
        typed["labels"] = json_text.small_object(text, "labels") if is_object else _listed(text)
    return typed


def _lines(body: bytes, limits: UploadLimits) -> Any:
    """One label per line; a single line is a JSON list or comma-separated."""
    text = text_of(body).strip()
    most = max(json_text.LISTED.values, 2 * limits.labels.count)
    return _listed(text, most) if text else []


def _listed(text: str, most: int = json_text.LISTED.values) -> Any:
    try:
        return listed(text, most=most)
    except ValueError as error:
        raise Invalid(f"labels: {error}", field="labels", value=errors.excerpt(text)) from None


def _definition(body: LabelSetBody, limits: UploadLimits) -> tuple[Definition, list[str]]:
    if body.labels is not None and body.preset is not None:
        raise Invalid("give either labels or preset, not both", field="preset")
    flat, warnings = _texts(body, limits)
    names = labels.clean([label for label, _, _ in flat], limits.labels)
    known = set(names)
    prompts = _prompts(body, known, limits)
    combine = _combine(body, known)
    entries = tuple(
        Entry(
            label,
            _all(own, limits, "labels", "text", label) or (label,),
            prompts.get(label, ()),
            combine.get(label, "mean"),
            path,
        )
        for label, (_, own, path) in zip(names, flat, strict=True)
    )
    joined = body.prompts_with is not None
    if joined and not prompts:
        raise Invalid("prompts_with needs prompts", field="prompts_with", value=body.prompts_with)
    nots = _all(body.nots, limits, "not", "word")
    for word in nots:
        if word in known:
            detail = f"not: {errors.shown(word)} is a label in this label set"
            raise Invalid(detail, field="not", value=errors.excerpt(word))
    templates = _templates(body, limits)
    definition = Definition(
        entries, templates, body.description, joined=joined, nots=nots, truncate=body.truncate
    )
    return definition, warnings


def _prompts(
    body: LabelSetBody, known: Collection[str], limits: UploadLimits
) -> dict[str, tuple[str, ...]]:
    prompts: dict[str, tuple[str, ...]] = {}
    for sent, lines in body.prompts.items():
        label = labels.normal(sent)
        if label not in known:
            detail = f"prompts are given for {errors.shown(sent)}, which is not a label"
            raise Invalid(detail, field="prompts")
        if label in prompts:
            detail = f"duplicate prompts for {errors.shown(label)}, in two spellings"
            raise Invalid(detail, field="prompts")
        prompts[label] = _all(lines, limits, "prompts", "prompt", sent)
    return prompts


def _combine(body: LabelSetBody, known: Collection[str]) -> dict[str, Combine]:
    if isinstance(body.combine, str):
        return dict.fromkeys(known, body.combine)
    for label in body.combine:
        if labels.normal(label) not in known:
            detail = f"combine: {errors.shown(label)} is not a label in this label set"
            raise Invalid(detail, field="combine", value=errors.excerpt(label))
    return {labels.normal(label): how for label, how in body.combine.items()}


def _templates(body: LabelSetBody, limits: UploadLimits) -> TemplateChoice:
    """A template of weight 2 appears twice: the mean over prompts is then the weighted one."""
    if not isinstance(body.templates, dict):
        return own_or_named(body.templates, limits.templates)
    own = validated(list(body.templates), limits.templates)
    times = body.templates.values()
    return tuple(
        chain.from_iterable([template] * count for template, count in zip(own, times, strict=True))
    )


# a label, its texts, and the groups that it is in
Flat = tuple[str, Sequence[str], tuple[str, ...]]


def _flat(nested: Mapping[str, Nested], limits: UploadLimits, path: tuple[str, ...]) -> list[Flat]:
    if path and not nested:
        detail = f"the group {errors.shown(path[-1])} has no labels"
        raise Invalid(detail, field="labels", value=errors.excerpt(path[-1]))
    if len(path) > MOST_DEPTH:
        detail = f"groups are nested {len(path)} deep, the limit is {MOST_DEPTH}"
        raise Invalid(detail, field="labels", limit=MOST_DEPTH, value=len(path))
    entries: list[Flat] = []
    for name, inside in nested.items():
        if isinstance(inside, list) and all(isinstance(text, str) for text in inside):
            entries.append((name, inside, path))
        elif not isinstance(inside, dict):
            detail = f"{errors.shown(name)} is neither a list of texts nor a group of labels"
            raise Invalid(detail, field="labels", value=errors.excerpt(name))
        else:
            (group,) = labels.clean([name], limits.labels)
            entries += _flat(inside, limits, (*path, group))
    return entries


def _texts(body: LabelSetBody, limits: UploadLimits) -> tuple[list[Flat], list[str]]:
    """The labels with their texts, and a warning for each that was written in two ways."""
    if body.preset is not None:
        if body.preset not in limits.presets:
            known, quoted = ", ".join(limits.presets), errors.shown(body.preset)
            detail = f"preset {quoted} not found; there are {known}"
            raise Invalid(detail, field="preset", value=errors.excerpt(body.preset))
        shipped = numbered(limits.presets[body.preset].labels)
        return [(label, texts, ()) for label, texts in shipped.items()], []
    if isinstance(body.labels, dict):
        return _flat(body.labels, limits, ()), []
    chosen = body.labels if body.labels is not None else list(body.prompts)
    chosen, warnings = labels.merged(chosen)
    cleaned = labels.clean(chosen, LabelLimits(max(1, len(chosen)), 10_000)) if chosen else ()
    return [(label, (), ()) for label in cleaned], warnings


def _all(
    texts: Sequence[str], limits: UploadLimits, field: str, kind: str, owner: str | None = None
) -> tuple[str, ...]:
    return labels.clean(texts, limits.texts, field, kind, owner) if texts else ()
