"""What comes in and goes out over HTTP, as pydantic sees it. Knows nothing of encoders."""

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    model_validator,
)
from pydantic_core import from_json

from app.classification import Classification, Prediction
from app.deciding import Reason


def _listed(value: Any) -> Any:
    """A list from what a shell sends: a JSON list, or texts between commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return _json_list(value)
    return value.split(",")


def _json_list(value: str) -> Any:
    try:
        return from_json(value)
    except (ValueError, TypeError):  # TypeError: half of a surrogate pair
        raise ValueError("starts like a JSON list and is none") from None


def _one_or_listed(value: Any) -> Any:
    """Templates hold commas, so only a JSON list is taken apart."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        return _json_list(value)
    return [value] if isinstance(value, str) else value


Labels = Annotated[list[str], BeforeValidator(_listed)]
Templates = Annotated[list[str], BeforeValidator(_one_or_listed)]


class ClassifyFields(BaseModel):
    """The fields of a classification, the same in form, JSON and query."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    labels: Labels | None = Field(
        None,
        description="Repeated, each taken as it is; or once, with commas between; or a JSON list.",
        examples=[["cat", "dog", "pizza", "rocket"]],
    )
    labelset: str | None = Field(
        None, description="A registered label set, in place of labels.", examples=["pets"]
    )
    templates: Templates | None = Field(
        None,
        description="A template set's name (GET /templates), or own templates with one `{}` each.",
        examples=[["a photo of a {}."]],
    )
    top_k: int | None = Field(None, ge=1, description="Predictions answered; default: 5 at most.")
    threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Least score that is answered; below it on all: abstained.",
    )
    multi_label: bool = Field(
        False, description="Score each label on its own, instead of against the others."
    )
    abstain: bool = Field(
        False, description="Answer nothing, and why, where no label fits or two fit alike."
    )
    explain: bool = Field(
        False, description="Answer a heat map for each prediction: where the image agrees with it."
    )

    @model_validator(mode="after")
    def _one_source_and_a_scale(self) -> Self:
        if (self.labels is None) == (self.labelset is None):
            raise ValueError("give either labels or a labelset")
        if (
            self.labels is not None
            and len(self.labels) == 1
            and not self.multi_label
            and self.threshold is None
            and not self.abstain
        ):
            raise ValueError("one label alone scores 1; give more, a threshold or multi_label")
        return self


class ClassifyBody(ClassifyFields):
    """The JSON body of POST /classify: the fields, and the image as text."""

    image: str = Field(
        description="The image file in base64 (RFC 4648, section 4), or a data URI of it."
    )


class ImageAnswer(BaseModel):
    """The image that was classified, upright, as a viewer shows it."""

    width: int
    height: int
    sha256: str = Field(description="Digest of the bytes that were sent.")
    cached: bool = Field(description="Its embedding was known, so nothing was encoded.")


class PredictionAnswer(BaseModel):
    """One label with its score and the cosine similarity behind it."""

    label: str
    score: float
    similarity: float


class ExplainedPredictionAnswer(PredictionAnswer):
    """The same, with where the image agrees with the label."""

    heatmap: str = Field(
        description="Data URI of a grey PNG in the shape of the upright picture: white where "
        "covering it costs the label most, black where it costs nothing or the model does not look."
    )


class ReasonAnswer(BaseModel):
    """Why there are no predictions: `value` did not reach `limit`."""

    code: str = Field(
        description="`similarity_below_floor`, `margin_too_small` or `score_below_threshold`."
    )
    value: float
    limit: float
    detail: str
    withheld: list[PredictionAnswer] = Field(description="What is not answered, best first.")


class ClassifyAnswer(BaseModel):
    """The answer of POST /classify, best prediction first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "pictogram",
                    "templates": "pictogram",
                    "labelset": None,
                    "cached": 0,
                    "labelset_version": None,
                    "image": {"width": 256, "height": 256, "sha256": "9f2c…", "cached": False},
                    "predictions": [{"label": "cat", "score": 0.98, "similarity": 0.41}],
                    "abstained": False,
                    "reason": None,
                    "calibrated": False,
                    "warnings": [],
                }
            ]
        }
    )

    model: str
    templates: str = Field(description="Name of the template set; `custom` for own templates.")
    labelset: str | None = None
    labelset_version: int | None = Field(None, description="The version that answered.")
    cached: int = Field(description="How many of the label vectors needed no encoding.")
    image: ImageAnswer
    predictions: list[SerializeAsAny[PredictionAnswer]]
    abstained: bool = Field(description="There are no predictions, for a reason.")
    reason: ReasonAnswer | None = None
    calibrated: bool = Field(False, description="The label set's calibration was used.")
    warnings: list[str]

    @classmethod
    def of(cls, found: Classification) -> "ClassifyAnswer":
        """The answer to a classification, numbers to 7 significant digits (float32 has no more)."""
        return cls(
            model=found.model,
            templates=found.templates,
            labelset=found.labelset,
            labelset_version=found.labelset_version,
            cached=found.cached,
            image=ImageAnswer(
                width=found.image.width,
                height=found.image.height,
                sha256=found.image.sha256,
                cached=found.image.cached,
            ),
            predictions=[_prediction(p) for p in found.predictions],
            abstained=found.abstained,
            reason=found.reason and _reason(found.reason, found.withheld),
            calibrated=found.calibrated,
            warnings=list(found.warnings),
        )


def _reason(found: Reason, withheld: Sequence[Prediction]) -> ReasonAnswer:
    return ReasonAnswer(
        code=found.code,
        value=float(f"{found.value:.7g}"),
        limit=float(f"{found.limit:.7g}"),
        detail=found.detail,
        withheld=[_prediction(one) for one in withheld],
    )


def _prediction(found: Prediction) -> PredictionAnswer:
    score, similarity = float(f"{found.score:.7g}"), float(f"{found.similarity:.7g}")
    if found.heatmap is None:
        return PredictionAnswer(label=found.label, score=score, similarity=similarity)
    return ExplainedPredictionAnswer(
        label=found.label, score=score, similarity=similarity, heatmap=found.heatmap
    )


class BatchLine(BaseModel):
    """What became of one image of a batch; without `index`, why the rest of it is missing."""

    index: int | None = Field(None, description="Place among the images that were sent, from 0.")
    name: str | None = Field(None, description="File name, as it was sent.")
    result: ClassifyAnswer | None = None
    error: "ProblemAnswer | None" = None


class BatchAnswer(BaseModel):
    """The answer of POST /classify/batch, in the order of the images."""

    count: int
    failed: int
    results: list[BatchLine]


class ProblemAnswer(BaseModel):
    """A problem document (RFC 9457), with `error` and `error_type` for inference clients."""

    type: str = Field(examples=["urn:openvocab:problem:too_large"])
    title: str
    status: int
    detail: str
    error: str = Field(description="The same text as `detail`.")
    error_type: str = Field(description="The last part of `type`.")
    field: str | None = None
    limit: int | float | str | None = None
    value: Any = None
    request_id: str | None = None
