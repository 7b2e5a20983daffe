"""The response of a classification: JSON, lines of text or CSV. Knows no request."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from operator import not_
from typing import Any, Final

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny

from app.api.answers import CSV, TEXT, preferred, rounded
from app.classify.query import Classification, Image, Part, Prediction, Result
from app.classify.score_text import score_text
from app.classify.scoring import Reason
from app.errors import Invalid
from app.images.views import Cut


class ImageAnswer(BaseModel):
    """The image that was classified, upright, as a viewer shows it."""

    width: int
    height: int
    sha256: str = Field(description="SHA-256 of the bytes received.")
    cached: bool = Field(description="Its embedding was cached, so nothing was encoded.")

    @classmethod
    def of(cls, image: Image) -> "ImageAnswer":
        """The image in the response."""
        return cls(width=image.width, height=image.height, sha256=image.sha256, cached=image.cached)


class PredictionAnswer(BaseModel):
    """One label with its score and the cosine similarity behind it."""

    label: str
    score: float
    similarity: float
    text: str | None = Field(
        None, exclude_if=not_, description="With combine=best: the text that decided."
    )
    path: list[str] = Field(
        [], exclude_if=not_, description="The groups that contain the label, widest first."
    )
    heatmap: str | None = Field(
        None,
        exclude_if=not_,
        description="With explain, the data URI of a grey PNG in the shape of the upright picture: "
        "white where covering it costs the label most, black where it costs nothing or the model "
        "does not look.",
    )


class GroupAnswer(BaseModel):
    """A group of labels."""

    path: list[str] = Field(description="Its name, after those of the groups that contain it.")
    score: float = Field(
        description="Sum of its labels' scores; for labels scored independently, the best score."
    )


class ReasonAnswer(BaseModel):
    """Why there are no predictions: `value` did not reach `limit`."""

    code: str = Field(
        description="`similarity_below_floor`, `margin_too_small`, `score_below_threshold` or "
        "`nearer_to_another_word`."
    )
    value: float
    limit: float
    detail: str
    word: str | None = Field(
        None, exclude_if=not_, description="The word that fits better than any label."
    )
    withheld: list[PredictionAnswer] = Field(description="What was withheld, best first.")


class ResultAnswer(BaseModel):
    """Predictions among the labels of one list, best first."""

    templates: str = Field(description="Name of the template set; `custom` for own templates.")
    labelset: str | None = None
    labelset_version: int | None = Field(None, description="The version that answered.")
    cached: int = Field(
        description="Older name of `labels_cached`.", json_schema_extra={"deprecated": True}
    )
    labels_cached: int = Field(0, description="Number of label vectors that needed no encoding.")
    predictions: list[PredictionAnswer]
    groups: list[GroupAnswer] = Field(
        [], exclude_if=not_, description="The label set's groups, if it has any, best first."
    )
    covering: list[str] | None = Field(
        None,
        alias="set",
        exclude_if=lambda value: value is None,
        description="With coverage: labels, one of which is right as often as requested.",
    )
    abstained: bool = Field(description="There are no predictions; `reason` says why.")
    reason: ReasonAnswer | None = None
    calibrated: bool = Field(False, description="The label set's calibration was used.")
    warnings: list[str]


class _Head(BaseModel):
    model: str
    image: ImageAnswer


class ClassifyAnswer(ResultAnswer, _Head):
    """The response of POST /classify for one list of labels, best prediction first."""

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
                    "labels_cached": 0,
                    "predictions": [{"label": "cat", "score": 0.98, "similarity": 0.41}],
                    "abstained": False,
                    "reason": None,
                    "calibrated": False,
                    "warnings": [],
                }
            ]
        }
    )


class _Several(BaseModel):
    results: dict[str, ResultAnswer]


class SeveralAnswer(_Several, _Head):
    """The response of POST /classify for several label sets: a result for each, by name."""


class BoxAnswer(BaseModel):
    """A part of the upright picture, in whole pixels from the upper left corner."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def of(cls, area: Cut) -> "BoxAnswer":
        """The pixels that a box of the request covers."""
        return cls(x=area.left, y=area.top, width=area.width, height=area.height)


class _InBox(BaseModel):
    box: BoxAnswer


class BoxResultAnswer(ResultAnswer, _InBox):
    """Predictions for one box among the labels of one list."""


class BoxSeveralAnswer(_Several, _InBox):
    """Results for one box, by label set."""


class BoxesAnswer(_Head):
    """The response of POST /classify for `boxes`: one result per box, in their order."""

    boxes: list[SerializeAsAny[BoxResultAnswer | BoxSeveralAnswer]]


Answer = ClassifyAnswer | SeveralAnswer | BoxesAnswer


def answer_of(classification: Classification) -> Answer:
    """The answer to a classification."""
    model, image = classification.model, ImageAnswer.of(classification.image)
    if classification.boxes:
        boxes = [_in_box(part) for part in classification.parts]
        return BoxesAnswer(model=model, image=image, boxes=boxes)
    (part,) = classification.parts
    if len(part.results) == 1:
        return ClassifyAnswer(model=model, image=image, **_fields(part.results[0]))
    return SeveralAnswer(model=model, image=image, results=_by_labelset(part))


def _in_box(part: Part) -> BoxResultAnswer | BoxSeveralAnswer:
    box = BoxAnswer.of(part.area)
    if len(part.results) == 1:
        return BoxResultAnswer(box=box, **_fields(part.results[0]))
    return BoxSeveralAnswer(box=box, results=_by_labelset(part))


def _by_labelset(part: Part) -> dict[str, ResultAnswer]:
    return {result.labelset or "": ResultAnswer(**_fields(result)) for result in part.results}


def _fields(result: Result) -> dict[str, Any]:
    return {
        "templates": result.templates,
        "labelset": result.labelset,
        "labelset_version": result.labelset_version,
        "cached": result.cached,
        "labels_cached": result.cached,
        "predictions": [_prediction(prediction) for prediction in result.predictions],
        "abstained": result.abstained,
        "reason": result.reason and _reason(result.reason, result.withheld),
        "calibrated": result.calibrated,
        "warnings": list(result.warnings),
        "set": None if result.covering is None else list(result.covering),
        "groups": [
            GroupAnswer(path=list(group.path), score=rounded(group.score))
            for group in result.groups
        ],
    }


def _reason(reason: Reason, withheld: Sequence[Prediction]) -> ReasonAnswer:
    return ReasonAnswer(
        code=reason.code,
        value=rounded(reason.value),
        limit=rounded(reason.limit),
        detail=reason.detail,
        word=reason.word,
        withheld=[_prediction(prediction) for prediction in withheld],
    )


def _prediction(prediction: Prediction) -> PredictionAnswer:
    return PredictionAnswer(
        label=prediction.label,
        score=rounded(prediction.score),
        similarity=rounded(prediction.similarity),
        text=prediction.text,
        path=list(prediction.path),
        heatmap=prediction.heatmap,
    )


# what a line of text says where nothing fits
NONE: Final = "none of these"

# decimals of a score in text
DECIMALS: Final = 6


def render(answer: Answer, accept: str, *, says_none: bool = False) -> Response:
    """JSON; or `score<TAB>label` lines; or CSV with a header line (RFC 4180).

    With `coverage` a table has a column with the labels of which one is right; with several label
    sets each line has a last column with the set's name, with boxes one with the box's index.
    Without predictions there is no line; with `says_none`, text has a line that says so.
    """
    kind = preferred(accept)
    if kind == TEXT:
        # a label may hold no line break, so a line is a prediction
        content = "".join("\t".join(row) + "\n" for row in text_rows(answer, says_none))
    elif kind == CSV:
        lines = io.StringIO()
        writer = csv.writer(lines)
        results = list(_results(answer))
        writer.writerow(("label", "score", "similarity", *results[0][1]))
        for result, more in results:
            columns = more.values()
            writer.writerows((p.label, p.score, p.similarity, *columns) for p in result.predictions)
        content = lines.getvalue()
    else:
        # a terminal's prompt belongs on its own line
        content = answer.model_dump_json(by_alias=True) + "\n"
    return Response(content, media_type=kind, headers={"Vary": "Accept"})


def check_columns(kind: str, coverage: float | None) -> None:
    """Nothing if an answer of this kind has room for the labels of `coverage`. Raises Invalid."""
    if kind == TEXT and coverage is not None:
        detail = f"coverage: lines of {TEXT} have no room for a set of labels; accept {CSV} or JSON"
        raise Invalid(detail, field="coverage", value=coverage)


# columns of a batch as CSV beside those of sets, label sets and boxes
BATCH_HEAD: Final = ("index", "name", "label", "score", "similarity")
BATCH_END: Final = ("reason", "error")


def csv_rows(answer: Answer) -> Iterator[tuple[str, ...]]:
    """Label, score, similarity; set with `coverage`, label set and box where there are several; why
    there is none.
    """
    for result, more in _results(answer):
        for p in result.predictions:
            yield p.label, str(p.score), str(p.similarity), *more.values(), ""
        if not result.predictions:
            yield "", "", "", *more.values(), result.reason.detail if result.reason else ""


def text_rows(answer: Answer, says_none: bool) -> Iterator[tuple[str, ...]]:
    """Score, label, and label set and box where there are several."""
    for result, more in _results(answer):
        for prediction in result.predictions:
            yield score_text(prediction.score, DECIMALS), prediction.label, *more.values()
        if says_none and result.abstained:
            yield "-", NONE, *more.values()


def _results(answer: Answer) -> Iterator[tuple[ResultAnswer, dict[str, str]]]:
    """Each result, and the columns that only `coverage`, several label sets or boxes have."""
    if not isinstance(answer, BoxesAnswer):
        yield from _of_part(answer, {})
        return
    for number, part in enumerate(answer.boxes):
        yield from _of_part(part, {"box": str(number)})


def _of_part(
    part: ResultAnswer | _Several, more: dict[str, str]
) -> Iterator[tuple[ResultAnswer, dict[str, str]]]:
    if isinstance(part, ResultAnswer):
        yield part, {**_set(part), **more}
        return
    for name, result in part.results.items():
        yield result, {**_set(result), "labelset": name, **more}


def _set(result: ResultAnswer) -> dict[str, str]:
    """The labels of which one is right, as a JSON list."""
    if result.covering is None:
        return {}
    return {"set": json.dumps(result.covering, ensure_ascii=False)}
