"""Label sets as they come in and go out over HTTP. Knows nothing of stores or builds."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.blending import Blended
from app.builds import Status
from app.calibration_schemas import CalibrationSummary
from app.calibration_schemas import summary as calibration_summary
from app.definitions import Stored
from app.example_schemas import BlendAnswer, blend_answer
from app.namespaces import outside
from app.schemas import Templates

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

EXAMPLE: dict[str, Any] = {
    "name": "pets",
    "labels": {"cat": ["cat", "kitten"], "dog": ["dog", "puppy"], "parrot": []},
    "description": "What comes through the cat flap",
}


class LabelSetBody(BaseModel):
    """A label set as its owner writes it."""

    model_config = ConfigDict(
        extra="forbid", hide_input_in_errors=True, json_schema_extra={"examples": [EXAMPLE]}
    )

    name: str | None = Field(
        None, description=f"For POST; a name is {NAME_PATTERN}.", examples=["pets"]
    )
    labels: list[str] | dict[str, list[str]] | None = Field(
        None,
        description="Labels, or labels with the texts that stand for them (none: itself).",
    )
    prompts: dict[str, list[str]] = Field(
        default_factory=dict, description="Whole prompts for a label, used as they are."
    )
    templates: Templates | None = Field(
        None, description="A template set's name or own templates; default: the model's."
    )
    description: str = Field("", max_length=1_000)
    preset: str | None = Field(
        None, description="A vocabulary that is shipped, in place of labels: `imagenet-1k`, …"
    )


class LabelSetSummary(BaseModel):
    """A label set without its labels."""

    name: str
    version: int
    label_count: int
    templates: str = Field(description="Name of the template set; `custom` for own templates.")
    description: str
    model: str
    status: str = Field(description="`ready`, `building` or `failed`.")
    progress: float = Field(description="Share of the labels that have their vector, 0 to 1.")
    error: str | None = Field(None, description="Why it failed.")


class LabelSetAnswer(LabelSetSummary):
    """A label set with all that its owner wrote."""

    labels: list[str]
    synonyms: dict[str, list[str]] = Field(description="Texts of the labels that have their own.")
    prompts: dict[str, list[str]]
    own_templates: list[str] | None
    asked_templates: list[str] | str | None = Field(
        description="Templates as the owner chose them; null: the model's default."
    )
    serving_version: int | None = Field(
        description="The version that answers while this one is being built."
    )
    calibration: CalibrationSummary | None = None
    examples: dict[str, int] = Field({}, description="Examples of each label that has some.")
    blend: BlendAnswer | None = Field(
        None, description="How the examples are used; null without, and while building."
    )


class LabelSetsAnswer(BaseModel):
    """A page of label sets, by name."""

    labelsets: list[LabelSetSummary]
    next: str | None = Field(description="What to send as `after` for the next page.")


def summary(stored: Stored, status: Status, model: str, templates: str) -> LabelSetSummary:
    """A line of the list."""
    return LabelSetSummary(**_common(stored, status, model, templates))


def answer(
    stored: Stored,
    status: Status,
    model: str,
    templates: str,
    stale: str | None = None,
    blended: Blended | None = None,
) -> LabelSetAnswer:
    """The whole set; `stale` is why its calibration is not used."""
    definition = stored.definition
    before = None if stored.previous is None else stored.previous.version
    return LabelSetAnswer(
        **_common(stored, status, model, templates),
        labels=list(definition.labels),
        synonyms={e.label: list(e.texts) for e in definition.entries if e.texts != (e.label,)},
        prompts={e.label: list(e.prompts) for e in definition.entries if e.prompts},
        own_templates=(
            list(definition.templates) if isinstance(definition.templates, tuple) else None
        ),
        asked_templates=(
            list(definition.templates)
            if isinstance(definition.templates, tuple)
            else definition.templates
        ),
        serving_version=stored.version if status.state == "ready" else before,
        calibration=calibration_summary(stored, stale),
        examples=definition.counts(),
        blend=blend_answer(blended),
    )


def _common(stored: Stored, status: Status, model: str, templates: str) -> dict[str, Any]:
    return {
        "name": outside(stored.name),
        "version": stored.version,
        "label_count": len(stored.definition.entries),
        "templates": templates,
        "description": stored.definition.description,
        "model": model,
        "status": status.state,
        "progress": round(status.progress, 4),
        "error": status.error,
    }
