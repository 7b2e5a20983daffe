"""Calibrations as they go out over HTTP. Knows nothing of how they are fitted."""

from typing import Any

from pydantic import BaseModel, Field

from app.definitions import Stored
from app.schemas import BatchLine


class CalibrationSummary(BaseModel):
    """What a label set's answer says of its calibration."""

    status: str = Field(description="`used`, or `stale`: it is kept, and not used.")
    detail: str | None = Field(description="Why it is stale.")
    temperature: float = Field(description="What the model's logits are divided by.")
    floor: float = Field(description="Least similarity that is answered with abstain.")
    margin: float = Field(description="Least lead of the best similarity over the second.")
    pictures: int = Field(description="Pictures of its labels that it was fitted to.")
    others: int = Field(description="Pictures of none of its labels.")
    coverage: float = Field(description="Share of the former that is answered.")
    risk: float = Field(description="Share of the answers that are wrong.")
    risk_at_most: float = Field(
        description="The same at most, with 95 % confidence, or that asked for."
    )


class CalibratedAnswer(BaseModel):
    """The answer of POST /labelsets/{name}/calibrate."""

    labelset: str
    version: int
    count: int = Field(description="Images that were sent.")
    failed: int
    errors: list[BatchLine] = Field(description="Those that could not be used.")
    calibration: dict[str, Any] = Field(
        description="All of it, as GET and PUT /labelsets/{name}/calibration have it."
    )


def summary(stored: Stored, stale: str | None) -> CalibrationSummary | None:
    """What is told of a label set's calibration; None where it has none."""
    found = stored.definition.calibration
    if found is None:
        return None
    return CalibrationSummary(
        status="used" if stale is None else "stale",
        detail=stale,
        temperature=found.temperature,
        floor=found.floor,
        margin=found.margin,
        pictures=found.pictures,
        others=found.others,
        coverage=found.held_out.coverage,
        risk=found.held_out.risk,
        risk_at_most=found.held_out.risk_at_most,
    )
