"""Examples of label sets as they go out over HTTP. Knows nothing of how they are used."""

from datetime import UTC, datetime
from typing import Final

from pydantic import BaseModel, Field

from app.blending import Blended
from app.definitions import Example
from app.prototypes import Figures
from app.schemas import BatchLine

WHY: Final = {
    "one_label": "examples of one label say nothing of what tells it from the others: "
    "add some of another label",
    "too_few": "examples count for labels that have two or more, of which there must be two",
    "no_gain": "left out one at a time, the examples are told no better with their help",
}


class FiguresAnswer(BaseModel):
    """How the examples are told, each by all others: means over their labels."""

    accuracy: float = Field(description="Share told right.")
    log_loss: float


class BlendAnswer(BaseModel):
    """How much the examples count in the label set's vectors."""

    weight: float = Field(description="0: the text alone; 1 would be the pictures alone.")
    reason: str | None = Field(description="Why the weight is 0.")
    tried: int = Field(description="Examples that were left out in turn to choose the weight.")
    text: FiguresAnswer | None = Field(description="By the text alone.")
    blend: FiguresAnswer | None = Field(description="With the weight.")
    lost: int = Field(description="Examples whose picture the store has lost: send them again.")


class ExamplesAnswer(BaseModel):
    """What a change of examples has led to."""

    name: str
    version: int
    status: str = Field(description="`ready`, `building` or `failed`.")
    added: int = 0
    unchanged: int = Field(0, description="Sent, and there already.")
    removed: int = 0
    failed: int = 0
    errors: list[BatchLine] = Field([], description="Pictures that were not taken.")
    examples: dict[str, int] = Field(description="Examples of each label that has some.")
    blend: BlendAnswer | None = Field(description="null without examples, and while building.")


class ExampleAnswer(BaseModel):
    """One example."""

    id: str = Field(description="SHA-256 of the file.")
    label: str
    width: int
    height: int
    bytes: int
    added: datetime


class ExampleList(BaseModel):
    """A page of examples, in the order in which they were added."""

    examples: list[ExampleAnswer]
    next: str | None = Field(description="What to send as `after` for the next page.")


def blend_answer(found: Blended | None) -> BlendAnswer | None:
    """How examples are used, for a person."""
    if found is None:
        return None
    choice = found.choice
    return BlendAnswer(
        weight=choice.weight,
        reason=None if choice.reason is None else WHY[choice.reason],
        tried=choice.tried,
        text=_figures(choice.text),
        blend=_figures(choice.blend),
        lost=found.lost,
    )


def example_answer(example: Example) -> ExampleAnswer:
    """One example, without its picture."""
    return ExampleAnswer(
        id=example.sha256,
        label=example.label,
        width=example.width,
        height=example.height,
        bytes=example.size,
        added=datetime.fromtimestamp(example.added, UTC),
    )


def _figures(found: Figures | None) -> FiguresAnswer | None:
    if found is None:
        return None
    return FiguresAnswer(accuracy=round(found.accuracy, 4), log_loss=round(found.log_loss, 4))
