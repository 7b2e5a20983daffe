"""The requests of immich's server to its machine-learning service, as far as CLIP is concerned.

Where it puts things, read in the source of immich 2.x (server/src/repositories/
machine-learning.repository.ts): a form with `entries`, JSON of task, type and `modelName`, and
either the file `image` or the field `text`; the embedding comes back as a text that holds a JSON
list. Knows no task but CLIP.
"""

from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from app import errors
from app.api import bodies, openapi
from app.api.answers import rows_as_json
from app.api.bodies import media_type, single
from app.api.embeddings import LONGEST_TEXT, checked_texts
from app.api.fields import IMAGE, InputLimits
from app.api.json_text import small_object
from app.api.problems import SENT, documented
from app.api.services import ServicesDep, StagesDep, of_model
from app.classify import embedding
from app.errors import Invalid, NotFound, Problem, TooLarge, Unparsable

ENTRIES: Final = "entries"
TEXT: Final = "text"
CLIP: Final = "clip"
MODEL: Final = "modelName"

# which field a type of CLIP's task reads
INPUTS: Final = {"visual": IMAGE, "textual": TEXT}

# fields that the ensemble complains of, as they are called here
NAMES: Final = {"labels": TEXT, "texts": TEXT, "model": MODEL}

# characters of `entries`; those of one task have 200
LONGEST_ENTRIES: Final = 10_000


async def read_predict(request: Request, limits: InputLimits) -> tuple[bytes | str, str]:
    """The image file or text of POST /predict, and immich's name of the model to embed it with.

    Raises Unparsable, Invalid, TooLarge.
    """
    if media_type(request.headers.get("content-type", "")) != bodies.FORM:
        raise Unparsable("send a multipart form with entries, and image or text")
    form = await bodies.form_fields(request, (IMAGE,), limits)
    fields = {name: single(name, values, ()) for name, values in form.items()}
    kind, model = _task(_entries(fields.get(ENTRIES)))
    content = fields.get(INPUTS[kind])
    if not content or isinstance(content, str) != (kind == "textual"):
        detail = f"the task {CLIP}.{kind} needs the field {INPUTS[kind]}"
        raise Invalid(f"{detail}, a {'text' if kind == 'textual' else 'file'}", field=INPUTS[kind])
    return content, model


def _entries(text: Any) -> dict[str, Any]:
    if not isinstance(text, str):
        raise Invalid("entries is missing: it says which task and model", field=ENTRIES)
    if len(text) > LONGEST_ENTRIES:
        detail = f"entries has {len(text)} characters, the limit is {LONGEST_ENTRIES}"
        raise TooLarge(detail, field=ENTRIES, limit=LONGEST_ENTRIES, value=len(text))
    try:
        return small_object(text, "entries")
    except Unparsable:
        raise Invalid("entries is not a JSON object", field=ENTRIES) from None


def _task(entries: dict[str, Any]) -> tuple[str, str]:
    """The type of CLIP task requested, and the model's name. Raises Invalid."""
    if others := [task for task in entries if task != CLIP]:
        detail = (
            f"the task {errors.shown(others[0])} is not served here, only {CLIP}; switch it off in "
            "immich, or list immich's own machine-learning server after this one"
        )
        raise Invalid(detail, field=ENTRIES, limit=CLIP, value=errors.excerpt(others[0]))
    types = entries.get(CLIP)
    if not isinstance(types, dict) or len(types) != 1 or (kind := next(iter(types))) not in INPUTS:
        raise Invalid(f"entries holds no {CLIP} with either visual or textual", field=ENTRIES)
    entry = types[kind]
    model = entry.get(MODEL) if isinstance(entry, dict) else None
    if not isinstance(model, str):
        raise Invalid(f"entries names no {MODEL} for {CLIP}.{kind}", field=ENTRIES)
    return kind, model


def served_as(name: str, served: list[str]) -> str:
    """The served model that immich means: it writes `ViT-B-32__laion2b-s34b-b79k` for
    `ViT-B-32/laion2b_s34b_b79k`.

    Raises NotFound: another model's vectors would look alike and compare with nothing.
    """
    for own in served:
        if name == own or _spelling(name) == _spelling(own):
            return own
    detail = (
        f"the model {errors.shown(name)} is not served here, but {', '.join(served)}; choose it in "
        "immich, serve it with --model, or make it an alias (OPENVOCAB_MODEL_ALIASES) of one with "
        "vectors of the same width"
    )
    raise NotFound(detail, field=MODEL, value=errors.excerpt(name))


def _spelling(name: str) -> str:
    return name.replace("/", "__").replace("-", "_").lower()


class ImmichAnswer(BaseModel):
    """The embedding as a text that holds a JSON list, and of an image its size."""

    clip: str = Field(description="A JSON list of numbers, as a text.", examples=["[0.0123,-0.04]"])
    imageHeight: int | SkipJsonSchema[None] = Field(  # noqa: N815
        None, description="Of an image its height in pixels, upright.", examples=[1080]
    )
    imageWidth: int | SkipJsonSchema[None] = Field(  # noqa: N815
        None, description="Of an image its width in pixels, upright.", examples=[1440]
    )


FORM: Final[dict[str, Any]] = {
    "properties": {
        ENTRIES: {
            "type": "string",
            "description": "JSON: task, type and model.",
            "examples": ['{"clip":{"visual":{"modelName":"ViT-B-32__openai"}}}'],
        },
        IMAGE: {**openapi.FILE, "description": "The image file, for `visual`."},
        TEXT: {"type": "string", "description": "The text, for `textual`.", "examples": ["a cat"]},
    },
    "required": [ENTRIES],
}
BODY: Final = openapi.body({bodies.FORM: openapi.titled("ImmichForm", FORM)})

router = APIRouter(tags=["immich's API"])


@router.get(
    "/ping",
    operation_id="immichPing",
    summary="Alive, for immich's server",
    response_class=PlainTextResponse,
)
async def ping() -> PlainTextResponse:
    return PlainTextResponse("pong")


@router.post(
    "/predict",
    operation_id="immichPredict",
    summary="The CLIP vector of an image or a text, for immich's server",
    openapi_extra=BODY,
    response_model_exclude_none=True,
    responses=documented(*SENT, 404),
)
async def predict(request: Request, services: ServicesDep, stages: StagesDep) -> ImmichAnswer:
    content, model = await read_predict(request, services.input_limits)
    name = served_as(model, services.models.names())
    services = await of_model(request, services, name)
    try:
        if isinstance(content, bytes):
            image, row = await services.embedder.embed(content, stages)
            return ImmichAnswer(
                clip=_json(row[None]), imageHeight=image.height, imageWidth=image.width
            )
        # its search has nowhere to show an error, and its own server takes the beginning too
        texts = checked_texts([content.strip()[:LONGEST_TEXT]], 1, TEXT)
        ensemble = services.classifier.ensemble
        fitted = await embedding.of_texts(ensemble, texts, stages, truncate=True)
    except Problem as problem:
        raise problem.renamed(NAMES) from None
    return ImmichAnswer(clip=_json(fitted.vectors.rows))


def _json(rows: Any) -> str:
    return rows_as_json(rows, "float")[0].decode()
