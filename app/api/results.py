"""What a classification is answered with: JSON, lines of text or CSV. Knows no request."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Final

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny

from app.api.answers import CSV, TEXT, preferred
from app.classify.query import Classification, Image, Prediction, Result
from app.classify.score_text import score_text
from app.classify.scoring import Reason


class ImageAnswer(BaseModel):
    """The image that was classified, upright, as a viewer shows it."""

    width: int
    height: int
    sha256: str = Field(description="Digest of the bytes that were sent.")
    cached: bool = Field(description="Its embedding was known, so nothing was encoded.")

    @classmethod
    def of(cls, image: Image) -> "ImageAnswer":
        """The answer's part on an image."""
        return cls(width=image.width, height=image.height, sha256=image.sha256, cached=image.cached)


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


class ResultAnswer(BaseModel):
    """Predictions among the labels of one list, best first."""

    templates: str = Field(description="Name of the template set; `custom` for own templates.")
    labelset: str | None = None
    labelset_version: int | None = Field(None, description="The version that answered.")
    cached: int = Field(description="How many of the label vectors needed no encoding.")
    predictions: list[SerializeAsAny[PredictionAnswer]]
    abstained: bool = Field(description="There are no predictions, for a reason.")
    reason: ReasonAnswer | None = None
    calibrated: bool = Field(False, description="The label set's calibration was used.")
    warnings: list[str]


class _Head(BaseModel):
    model: str
    image: ImageAnswer


class ClassifyAnswer(ResultAnswer, _Head):
    """The answer of POST /classify for one list of labels, best prediction first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "pictogram",
                    "image": {"width": 256, "height": 256, "sha256": "9f2c…", "cached": False},
                    "templates": "pictogram",
                    "labelset": None,
                    "labelset_version": None,
                    "cached": 0,
                    "predictions": [{"label": "cat", "score": 0.98, "similarity": 0.41}],
                    "abstained": False,
                    "reason": None,
                    "calibrated": False,
                    "warnings": [],
                }
            ]
        }
    )


class SeveralAnswer(_Head):
    """The answer of POST /classify for several label sets: a result for each, by its name."""

    results: dict[str, ResultAnswer]


Answer = ClassifyAnswer | SeveralAnswer


def answer_of(classification: Classification) -> Answer:
    """The answer to a classification, numbers to 7 significant digits (float32 has no more)."""
    model, image = classification.model, ImageAnswer.of(classification.image)
    if len(classification.results) == 1:
        return ClassifyAnswer(model=model, image=image, **_result(classification.results[0]))
    results = {
        result.labelset or "": ResultAnswer(**_result(result)) for result in classification.results
    }
    return SeveralAnswer(model=model, image=image, results=results)


def _result(result: Result) -> dict[str, object]:
    return {
        "templates": result.templates,
        "labelset": result.labelset,
        "labelset_version": result.labelset_version,
        "cached": result.cached,
        "predictions": [_prediction(prediction) for prediction in result.predictions],
        "abstained": result.abstained,
        "reason": result.reason and _reason(result.reason, result.withheld),
        "calibrated": result.calibrated,
        "warnings": list(result.warnings),
    }


def _reason(reason: Reason, withheld: Sequence[Prediction]) -> ReasonAnswer:
    return ReasonAnswer(
        code=reason.code,
        value=float(f"{reason.value:.7g}"),
        limit=float(f"{reason.limit:.7g}"),
        detail=reason.detail,
        withheld=[_prediction(prediction) for prediction in withheld],
    )


def _prediction(prediction: Prediction) -> PredictionAnswer:
    fields = {
        "label": prediction.label,
        "score": float(f"{prediction.score:.7g}"),
        "similarity": float(f"{prediction.similarity:.7g}"),
    }
    if prediction.heatmap is None:
        return PredictionAnswer.model_validate(fields)
    return ExplainedPredictionAnswer.model_validate(fields | {"heatmap": prediction.heatmap})


# what a line of text says where nothing fits
NONE: Final = "none of these"

# decimals of a score in text
DECIMALS: Final = 6


def render(answer: Answer, accept: str, *, says_none: bool = False) -> Response:
    """JSON; or `score<TAB>label` lines; or CSV with a header line (RFC 4180).

    Of several label sets each line has one column more, the name of the set. Where there are no
    predictions there is no line, or in text one that says so.
    """
    kind = preferred(accept)
    if kind == TEXT:
        # a label may hold no line break, so a line is a prediction
        content = "".join("\t".join(row) + "\n" for row in _text_rows(answer, says_none))
    elif kind == CSV:
        lines = io.StringIO()
        writer = csv.writer(lines)
        several = isinstance(answer, SeveralAnswer)
        writer.writerow(("label", "score", "similarity", *(["labelset"] if several else [])))
        for result, more in _results(answer):
            writer.writerows((p.label, p.score, p.similarity, *more) for p in result.predictions)
        content = lines.getvalue()
    else:
        content = answer.model_dump_json() + "\n"  # a terminal's prompt belongs on its own line
    return Response(content, media_type=kind, headers={"Vary": "Accept"})


def _text_rows(answer: Answer, says_none: bool) -> Iterator[tuple[str, ...]]:
    for result, more in _results(answer):
        for prediction in result.predictions:
            yield score_text(prediction.score, DECIMALS), prediction.label, *more
        if says_none and result.abstained:
            yield "-", NONE, *more


def _results(answer: Answer) -> Iterator[tuple[ResultAnswer, tuple[str, ...]]]:
    """Each result, and what stands in the columns that are there for several alone."""
    if isinstance(answer, ClassifyAnswer):
        yield answer, ()
        return
    for name, result in answer.results.items():
        yield result, (name,)
