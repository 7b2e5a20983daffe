"""From the fields of a request to a checked query. Knows nothing of bodies or images."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from app import errors
from app.api.boxes import MOST_BOXES, Background, Boxes, look_of
from app.api.json_text import LISTED, OBJECT, json_list, looks_like_json, small_object
from app.classify import labels
from app.classify.labels import LabelLimits
from app.classify.query import Query, one_label
from app.classify.scoring import Scoring
from app.classify.templates import TemplateChoice
from app.errors import Invalid, Problem, TooLarge
from app.images.views import View
from app.labelsets.presets import PREFIX, TAGS
from app.telemetry import logs
from prompts import PLACEHOLDER, TemplateError, validate_templates


def listed_lines(text: str, most: int = LISTED.values) -> list[str] | None:
    """The non-blank lines of a text with several lines that is not JSON; else None.

    Raises TooLarge for over `most` of them, blank ones counted.
    """
    text = text.strip()
    if looks_like_json(text) or not ("\n" in text or "\r" in text):
        return None
    if max(text.count("\n"), text.count("\r")) > most:
        raise _too_many(most)
    # not splitlines: it also splits at characters that a label may hold
    return [line for line in LINE.split(text) if line.strip()]


def listed(value: Any, *, most: int = LISTED.values) -> Any:
    """A list as shells send it: a JSON list, one text per line, or comma-separated."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json_list(value)
    if OBJECT.match(value):
        raise ValueError("looks like a JSON object; a list is expected")
    lines = listed_lines(value, most)
    if lines:
        return lines
    if value.count(",") >= most:
        raise _too_many(most)
    return value.split(",")


def _too_many(most: int) -> TooLarge:
    detail = f"a text has more than {most} commas or lines (the limit)"
    return TooLarge(detail, field="labels", limit=most)


def _one_or_listed(value: Any) -> Any:
    """Templates contain commas, so only lines and JSON lists are split."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json_list(value)
    return listed_lines(value) or [value]


def _with_texts(value: Any) -> Any:
    """Labels as `listed`, or a JSON object of labels with the texts that stand for them."""
    if isinstance(value, str) and OBJECT.match(value):
        return small_object(value, "labels")
    return listed(value)


# whole numbers up to this are the same in every reader of JSON (RFC 8259, section 6)
MOST_EXACT: Final = 2**53 - 1

LINE: Final = re.compile(r"\r\n|\n|\r")

Labels = Annotated[list[str], BeforeValidator(listed)]
LabelTexts = Annotated[list[str] | dict[str, list[str]], BeforeValidator(_with_texts)]
Templates = Annotated[list[str], BeforeValidator(_one_or_listed)]

MODEL_DESCRIPTION: Final = "Model to use (GET /models); default: the server's first."


class RequestFields(BaseModel):
    """Fields of a request: unknown ones are errors, and JSON's null is the default."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, fields: dict[str, Any]) -> dict[str, Any]:
        if None not in fields.values():
            return fields
        known = {field.alias or name for name, field in cls.model_fields.items()}
        return {k: value for k, value in fields.items() if value is not None or k not in known}

    @classmethod
    def checked(cls, fields: dict[str, Any], known: Sequence[str] = ()) -> Self:
        """The fields, all checked; `known` are the names that a problem lists, if not its own.

        Raises Invalid, TooLarge.
        """
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            names = ", ".join(known or cls.model_fields)
            raise invalid(error.errors(include_url=False), fields, names) from None


class ClassifyFields(RequestFields):
    """The fields of a classification, the same in form, JSON and query."""

    labels: LabelTexts | None = Field(
        None,
        description="Repeat the field, one label each; or send it once, comma-separated, one a "
        "line, or as a JSON list; or a JSON object of labels with the texts that stand for them "
        "(none: the label itself).",
        examples=[["cat", "dog", "pizza", "rocket"]],
    )
    combine: Literal["mean", "best"] = Field(
        "mean",
        description="For labels with several texts: `mean`, one vector of them all, or `best`, "
        "the text that fits the picture best decides.",
    )
    nots: Labels | None = Field(
        None,
        alias="not",
        description="What the picture may show instead: if one of these fits better, no label is "
        "answered. Implies `abstain`.",
        examples=[["a blank page"]],
    )
    labelset: Labels | None = Field(
        None,
        description="Instead of labels: a registered label set, or `preset:NAME` for a shipped "
        "vocabulary. Several (repeated or comma-separated) are answered separately.",
        examples=[["pets"]],
    )
    templates: Templates | None = Field(
        None,
        description="A template set's name (GET /templates), or own templates with one `{}` each.",
        examples=[["a photo of a {}."]],
    )
    model: str | None = Field(None, description=MODEL_DESCRIPTION)
    top_k: int | None = Field(None, ge=1, description="Maximum number of predictions; default: 5.")
    threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Minimum score; if no label reaches it, the answer has `abstained`.",
    )
    multi_label: bool = Field(
        False, description="Score each label independently instead of against the others."
    )
    scores: Scoring | None = Field(
        None,
        description="`softmax`: scores add up to 1; `sigmoid`: each from 0 to 1 by itself; "
        "default: as the model was trained, and sigmoid for labels that are scored alone.",
    )
    coverage: float | None = Field(
        None,
        ge=0.01,
        le=0.99,
        allow_inf_nan=False,
        description="For a calibrated label set: the smallest `set` of labels that contains the "
        "right one in this share of pictures.",
    )
    background: Background = Field(
        "auto",
        description="Background for transparent pictures: a colour name or #rrggbb. `auto`: white, "
        "or black where what is drawn would not show on white.",
    )
    view: View = Field(
        "auto",
        description="How the picture is fitted to the model. `auto`: as the model was trained; "
        "`center`: the middle, cropped to the model's shape; `pad`: all of it, with a border; "
        "`squash`: all of it, distorted; `tiles`: all of it and parts, the best of which counts "
        "for each label; `tiles-mean`: the mean of these.",
    )
    boxes: Boxes | None = Field(
        None,
        description="Parts of the picture, classified separately: x, y, width, height in pixels, "
        "or as fractions of its edges if no number is above 1.",
        examples=[[[0, 0, 0.5, 1], [0.5, 0, 0.5, 1]]],
    )
    abstain: bool | None = Field(
        None,
        description="Answer no label, and why, if none fits or two are too close; default: false, "
        "but true if no labels are given.",
    )
    truncate: bool = Field(
        False,
        description="Cut labels that are longer than the model reads, with a warning; otherwise "
        "such a label is an error.",
    )
    explain: bool = Field(
        False, description="Add a heat map to each prediction: where in the image the label is."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.labels is not None and self.labelset is not None:
            raise ValueError("give either labels or labelset, not both")
        return self


class ClassifyBody(ClassifyFields):
    """The JSON body of POST /classify: the fields, and the image as text."""

    image: str = Field(
        "",
        description="The image file in base64 (RFC 4648, section 4), or a data URI of it. This, "
        "`image_sha256` or `image_url`.",
    )
    image_sha256: str = Field(
        "",
        pattern=r"^[0-9a-fA-F]{64}$",
        description="In place of the image, `image.sha256` of an earlier answer: the picture is "
        "not sent again where its embedding is still in memory (else 404 `image_unknown`).",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )
    image_url: str = Field(
        "",
        description="Instead of the image: its URL, if the operator allows that.",
        examples=["https://example.org/cat.png"],
    )


NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


IMAGE: Final = "image"
NAME: Final = re.compile(NAME_PATTERN)
# label sets of one request
MOST_LABELSETS: Final = 20

FIELDS: Final = (
    IMAGE, *(field.alias or name for name, field in ClassifyFields.model_fields.items())
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class InputLimits:
    """Limits of one request; `templates` counts the request's own templates."""

    labels: LabelLimits
    templates: int

    @property
    def fields(self) -> int:
        """Parts of a form: every list repeated up to its limit, and each other field once."""
        lists = 2 * self.labels.count + self.templates + MOST_LABELSETS + MOST_BOXES
        return lists + len(ClassifyFields.model_fields)


def build_query(
    fields: dict[str, Any], limits: InputLimits, known: Sequence[str] = FIELDS
) -> Query:
    """Check every field and put the query together. `known` are the names that a problem lists.

    Raises:
        Invalid, TooLarge: with the field at fault, its limit and its value.
    """
    checked = ClassifyFields.checked(fields, known)
    if checked.multi_label and checked.scores == "softmax":
        detail = "scores=softmax and multi_label cannot be combined; leave one out"
        raise Invalid(detail, field="scores", value="softmax")
    if checked.coverage is not None and (checked.multi_label or checked.labelset is None):
        detail = "coverage is for a calibrated label set of which one label is right"
        raise Invalid(detail, field="coverage", value=checked.coverage)
    tags = checked.labels is None and checked.labelset is None
    words, texts, warnings = _words(checked.labels, limits.labels)
    if checked.combine == "best" and all(len(each) == 1 for each in texts):
        detail = "combine=best needs labels with several texts, as a JSON object: "
        detail += '{"dog": ["corgi", "poodle"], "cat": []}; a label set has its own'
        raise Invalid(detail, field="combine", value="best")
    query = Query(
        labels=words,
        texts=texts,
        best=checked.combine == "best",
        nots=_nots(checked, words, limits.labels),
        labelsets=(TAGS,) if tags else _labelsets(checked.labelset),
        templates=own_or_named(checked.templates, limits.templates),
        model=checked.model,
        top_k=checked.top_k,
        threshold=checked.threshold,
        multi_label=checked.multi_label,
        abstain=tags or checked.nots is not None if checked.abstain is None else checked.abstain,
        explain=checked.explain,
        scores=checked.scores,
        coverage=checked.coverage,
        look=look_of(checked.view, checked.boxes, checked.background, explain=checked.explain),
        tags=tags,
        truncate=checked.truncate,
        warnings=(*warnings, *labels.one_for_many(words)),
    )
    if len(query.labels) == 1 and not query.scores_alone:
        raise one_label("labels", query.labels[0])
    logs.note(labels=query.labels, labelset=",".join(query.labelsets) or None)
    return query


def _words(
    sent: Sequence[str] | Mapping[str, Sequence[str]] | None, limits: LabelLimits
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...], Sequence[str]]:
    """Labels, the texts of each where they have some, and warnings. Raises Invalid, TooLarge."""
    if sent is None:
        return (), (), ()
    if isinstance(sent, Mapping):
        words = labels.clean(tuple(sent), limits)
        return words, _texts(sent, words, limits), ()
    merged, warnings = labels.merged(sent)
    return labels.clean(tuple(merged), limits), (), warnings


def _texts(
    by_label: Mapping[str, Sequence[str]], words: Sequence[str], limits: LabelLimits
) -> tuple[tuple[str, ...], ...]:
    """The texts of each label, itself where there are none. Raises Invalid, TooLarge."""
    count = sum(map(len, by_label.values()))
    if count > limits.count:
        detail = f"labels have {count} texts, the limit of a request is {limits.count}"
        raise TooLarge(detail, field="labels", limit=limits.count, value=count)
    return tuple(
        labels.clean(texts, limits, "labels", "text", word) if texts else (word,)
        for word, texts in zip(words, by_label.values(), strict=True)
    )


def _nots(fields: ClassifyFields, words: Sequence[str], limits: LabelLimits) -> tuple[str, ...]:
    """The words that rule the labels out. Raises Invalid, TooLarge."""
    if fields.nots is None:
        return ()
    if fields.abstain is False:
        detail = "not has an effect only where nothing may be answered; leave abstain out"
        raise Invalid(detail, field="not")
    words_ruled_out = labels.clean(fields.nots, limits, "not", "word")
    for word in words_ruled_out:
        if word in words:
            raise Invalid(f"not: {errors.shown(word)} is a label", field="not", value=word)
    return words_ruled_out


def _labelsets(names: Sequence[str] | None) -> tuple[str, ...]:
    """The names of label sets, and of shipped vocabularies behind `preset:`.

    Raises Invalid, TooLarge.
    """
    if names is None:
        return ()
    if not names:
        detail = "at least one label set is needed in labelset"
        raise Invalid(detail, field="labelset", limit=1, value=0)
    stripped = tuple(map(str.strip, names))
    if len(stripped) > MOST_LABELSETS:
        detail = f"{len(stripped)} label sets are named, the limit is {MOST_LABELSETS}"
        raise TooLarge(detail, field="labelset", limit=MOST_LABELSETS, value=len(stripped))
    for place, name in enumerate(stripped):
        checked_name(name.removeprefix(PREFIX), "labelset")
        if name in stripped[:place]:
            detail = f"duplicate label set {errors.shown(name)}"
            raise Invalid(detail, field="labelset", value=errors.excerpt(name))
    return stripped


def checked_name(name: str, field: str = "name") -> str:
    """The name of a label set, if it is one. Raises Invalid."""
    if not NAME.fullmatch(name):
        detail = (
            f"{errors.shown(name)} is not a valid label set name: letters, digits, dots, hyphens "
            "and underscores, 64 at most, a letter or digit first"
        )
        raise Invalid(detail, field=field, value=errors.excerpt(name))
    return name


def own_or_named(values: list[str] | None, limit: int) -> TemplateChoice:
    """Own templates, checked, or a set's name, not looked up yet. Raises Invalid, TooLarge."""
    if values is None:
        return None
    if len(values) == 1 and values[0].strip() and not set(PLACEHOLDER) & set(values[0]):
        return values[0]
    return validated(values, limit)


def validated(own: list[str], limit: int) -> tuple[str, ...]:
    """Own templates, checked. Raises Invalid, TooLarge."""
    try:
        return validate_templates(own, limit)
    except TemplateError as error:
        value, most = error.value, error.limit
        over = isinstance(value, int) and most is not None and value > most
        kind: type[Problem] = TooLarge if over else Invalid
        raise kind(str(error), field="templates", limit=most, value=value) from None


def unknown_field(name: str, known: str, more: str = "") -> Invalid:
    """The problem of a field that is none of the `known` ones; `more` is what else helps."""
    # as PHP, axios and jQuery write lists
    listed = re.fullmatch(r"(\w+)\[\d*\]", name)
    if listed is not None and listed[1] in known.split(", "):
        detail = f"unknown field {errors.shown(name)}; it is called {listed[1]}, without brackets"
        detail += f" (a list in a form: {listed[1]} once for each value)"
        return Invalid(detail, field=errors.excerpt(name))
    detail = f"unknown field {errors.shown(name)}; the fields are {known}{more}"
    return Invalid(detail, field=errors.excerpt(name))


def invalid(
    errors_found: list[ErrorDetails], fields: dict[str, Any], known: str
) -> Invalid | TooLarge:
    """One problem from pydantic's errors; a misspelt name explains a missing field, so first."""
    error = next(
        (candidate for candidate in errors_found if candidate["type"] == "extra_forbidden"),
        errors_found[0],
    )
    name = str(error["loc"][0]) if error["loc"] else "labels"
    if error["type"] == "extra_forbidden":
        return unknown_field(name, known)
    if error["type"] == "missing":
        return Invalid(f"{name} is missing", field=name)
    if error["type"] == "string_too_long":
        length, limit = len(error["input"]), error["ctx"]["max_length"]
        detail = f"{name} has {length} characters, the limit is {limit}"
        return TooLarge(detail, field=name, limit=limit, value=length)
    # of what a list or an object may be, pydantic tells each: what comes closest says most
    of_field = (each for each in errors_found if each["loc"][:1] == error["loc"][:1])
    error = max(of_field, key=lambda each: len(each["loc"]))
    value, where = fields.get(name), ""
    if places := [str(step + 1) for step in error["loc"] if isinstance(step, int)]:
        value = error["input"]
        where = f" (position {', '.join(places)}{_quoted(value)})"
    message = error["msg"].removeprefix("Value error, ")
    context = error.get("ctx", {})
    limit = next((context[key] for key in ("ge", "gt", "le", "lt") if key in context), None)
    return Invalid(
        f"{name}: {message[:1].lower()}{message[1:]}{where}",
        field=name,
        limit=limit,
        value=_value(value),
    )


def _quoted(raw: Any) -> str:
    """A value behind its place; "" where it is too much to quote."""
    if isinstance(raw, list | dict):
        return ""
    return f": {errors.shown(raw) if isinstance(raw, str) else errors.excerpt(json.dumps(raw))}"


def _value(raw: Any) -> Any:
    if isinstance(raw, str):
        return errors.excerpt(raw)
    if isinstance(raw, int) and abs(raw) > MOST_EXACT:
        return errors.excerpt(str(raw))
    return raw if isinstance(raw, bool | int | float) else None
