"""From a request's bytes to the texts or images to embed, whichever form the client chose.

Knows nothing of models.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from app.api import bodies, openapi
from app.api.answers import Encoding, rows_as_json, with_rows
from app.api.bodies import (
    FORM,
    JSON,
    address_fields,
    is_json,
    json_body,
    media_type,
    merge,
    offload,
    single,
)
from app.api.fields import (
    IMAGE,
    MODEL_DESCRIPTION,
    InputLimits,
    RequestFields,
    Templates,
    own_or_named,
)
from app.api.problems import SENT, documented
from app.api.services import ServicesDep, StagesDep, of_model
from app.classify import embedding
from app.classify.templates import BARE
from app.errors import Invalid, Problem, TooLarge, excerpt, shown
from models import EncoderInfo
from models.info import Floats
from prompts.texts import no_text

Row = list[float] | str

ENCODING: Final = "`float`: numbers; `base64`: the row's float32 numbers, little-endian."

EncodingField = Annotated[Encoding, Field(description=ENCODING)]
Rows = Annotated[list[Row], Field(description="Rows of unit length, in the order of the request.")]
Cached = Annotated[
    int,
    Field(description="Older name of `rows_cached`.", json_schema_extra={"deprecated": True}),
]
RowsCached = Annotated[int, Field(description="Number of rows that needed no encoding.")]


class TextsFields(RequestFields):
    """The JSON body of POST /embeddings/text."""

    texts: list[str] = Field(
        description="Each is embedded as is, without a template.", examples=[["a cat", "a dog"]]
    )
    templates: Templates | None = Field(
        None,
        description="A template set's name, or own templates with one `{}` each: the row of a text "
        "is then that of a label, the ensemble over these templates.",
    )
    model: str | None = Field(None, description=MODEL_DESCRIPTION)
    truncate: bool = Field(
        False,
        description="Take the beginning of texts that are longer than the model reads, with a "
        "warning; else they are an error that names them.",
    )
    encoding_format: EncodingField = "float"


class ImagesFields(RequestFields):
    """The fields of POST /embeddings/image besides the images."""

    model: str | None = Field(None, description=MODEL_DESCRIPTION)
    encoding_format: EncodingField = "float"


class ImagesBody(ImagesFields):
    """The JSON body of POST /embeddings/image."""

    images: list[str] = Field(description="Image files in base64, or data URIs of them.")


class TextEmbeddingsAnswer(BaseModel):
    """The response of POST /embeddings/text."""

    model: str
    fingerprint: str = Field(description="Vectors of one fingerprint can be compared.")
    width: int = Field(description="Length of each row.")
    templates: str | None = Field(description="The template set; null for bare texts.")
    cached: Cached
    rows_cached: RowsCached
    warnings: list[str] = Field(description="With truncate, the texts that were cut.")
    cut: dict[str, str] = Field(
        description="With truncate, what was embedded of each text that was cut."
    )
    embeddings: Rows


class EmbeddedImageAnswer(BaseModel):
    """An image that was embedded, upright, as a viewer shows it."""

    width: int
    height: int
    sha256: str
    cached: bool
    warnings: list[str] = Field(description="What had to be guessed about it, or is not seen.")


class ImageEmbeddingsAnswer(BaseModel):
    """The response of POST /embeddings/image."""

    model: str
    fingerprint: str
    width: int
    images: list[EmbeddedImageAnswer]
    cached: Cached
    rows_cached: RowsCached
    embeddings: Rows


TEXTS: Final = "texts"
IMAGES: Final = "images"

# images of one request
MOST_IMAGES: Final = 64

# characters of a text: more than any text tower reads, and little to find that out
LONGEST_TEXT: Final = 2_000


async def read_images(
    request: Request, limits: InputLimits
) -> tuple[Sequence[bytes], ImagesFields]:
    """The files and fields of POST /embeddings/image. Raises Unparsable, Invalid, TooLarge."""
    kind = media_type(request.headers.get("content-type", ""))
    fields = address_fields(request, ())
    if kind == FORM:
        files, more = await _form(request, limits)
    elif is_json(kind):
        files, more = await _json(request)
    else:
        files, more = [await bodies.raw_image(request)], {}
    known = (IMAGE, IMAGES, *ImagesFields.model_fields)
    checked = ImagesFields.checked(merge(fields, more), known)
    if len(files) < 2:
        files = [bodies.sent_image(files[0] if files else None, kind)]
    return files, checked


def checked_texts(raw: Sequence[str], most: int, field: str, shorter: str = "") -> tuple[str, ...]:
    """Texts without the white space around them, or why one cannot be embedded.

    `shorter` is what helps where one is too long.

    Raises:
        Invalid: none at all, an empty one, or one with characters that are not text.
        TooLarge: too many, or one too long for any text tower.
    """
    if not raw:
        raise Invalid(f"at least one text is needed in {field}", field=field, limit=1, value=0)
    if len(raw) > most:
        detail = f"{field} holds {len(raw)} texts, the limit is {most}"
        raise TooLarge(detail, field=field, limit=most, value=len(raw))
    texts = tuple(map(str.strip, raw))
    for place, text in enumerate(texts, start=1):
        if not text:
            raise Invalid(f"text number {place} of {field} is empty", field=field, value="")
        if len(text) > LONGEST_TEXT:
            detail = f"text {shown(text)} has {len(text)} characters, the limit is {LONGEST_TEXT}"
            detail += shorter
            raise TooLarge(detail, field=field, limit=LONGEST_TEXT, value=len(text))
        if no_text(text) is not None:
            detail = f"text {shown(text)} contains a control character or half of a surrogate pair"
            raise Invalid(detail, field=field, value=excerpt(text))
    return texts


def too_many_images(count: int, field: str) -> TooLarge:
    """The problem of a request with more images than it may carry."""
    detail = f"the request has {count} images or more, the limit is {MOST_IMAGES}"
    return TooLarge(detail, field=field, limit=MOST_IMAGES, value=count)


async def _form(request: Request, limits: InputLimits) -> tuple[list[bytes], dict[str, Any]]:
    fields = await bodies.form_fields(request, (IMAGE, IMAGES), limits)
    uploads = fields.pop(IMAGE, []) + fields.pop(IMAGES, [])
    if len(uploads) > MOST_IMAGES:
        raise too_many_images(len(uploads), IMAGE)
    files = [await _file(uploads, place) for place in range(len(uploads))]
    return files, {name: single(name, values, ()) for name, values in fields.items()}


async def _json(request: Request) -> tuple[list[bytes], dict[str, Any]]:
    fields = await json_body(request)
    image, images = fields.pop(IMAGE, None), fields.pop(IMAGES, None)
    if image is not None and images is not None:
        raise Invalid(f"give either {IMAGE} or {IMAGES}", field=IMAGE)
    value = image if images is None else images
    coded = value if isinstance(value, list) else [] if value is None else [value]
    if len(coded) > MOST_IMAGES:
        raise too_many_images(len(coded), IMAGE)
    for place, text in enumerate(coded, start=1):
        if not isinstance(text, str):
            detail = f"image number {place} is not a text; send base64 or a data URI"
            raise Invalid(detail, field=IMAGE)
    return [await _file(coded, place) for place in range(len(coded))], fields


async def _file(sent: Sequence[str | bytes], place: int) -> bytes:
    image = sent[place]
    if isinstance(image, bytes):
        return image
    try:
        return await offload(len(image), bodies.from_base64, image)
    except Problem as problem:
        if len(sent) == 1:
            raise
        raise problem.placed(f"image {place + 1} of {len(sent)}") from None


router = APIRouter(prefix="/embeddings", tags=["Embeddings"])

# the field that the ensemble complains of, as it is called here
NAMES: Final = {"labels": TEXTS}

TEXTS_BODY: Final = openapi.body(
    {JSON: openapi.titled("TextsRequest", TextsFields.model_json_schema())},
    examples={JSON: {"example": {"texts": ["a cat", "a dog"]}}},
)
OPTIONS: Final = ImagesFields.model_json_schema()["properties"]
IMAGES_BODY: Final = openapi.body(
    {
        FORM: openapi.titled(
            "ImagesForm", {"properties": {"image": openapi.FILES, **OPTIONS}, "required": ["image"]}
        ),
        JSON: openapi.titled("ImagesRequest", ImagesBody.model_json_schema()),
        "application/octet-stream": openapi.FILE,
    },
    openapi.url_fields(OPTIONS, "For the raw body: "),
)


@router.post(
    "/text",
    operation_id="embedTexts",
    summary="Embed texts",
    description="Each text as it is; with `templates`, as a label is embedded.",
    openapi_extra=TEXTS_BODY,
    response_model=TextEmbeddingsAnswer,
    responses=documented(*SENT, 404),
)
async def text(request: Request, services: ServicesDep, stages: StagesDep) -> Response:
    limits = services.input_limits
    fields = TextsFields.checked(merge(address_fields(request, ()), await json_body(request)))
    texts = checked_texts(fields.texts, limits.labels.count, TEXTS)
    choice = own_or_named(fields.templates, limits.templates)
    services = await of_model(request, services, fields.model)
    name, templates = None, BARE
    if choice is not None:
        name, templates = services.templates.resolve(choice)
    ensemble = services.classifier.ensemble
    try:
        fitted = await embedding.of_texts(
            ensemble, texts, stages, templates, truncate=fields.truncate
        )
    except Problem as problem:
        raise problem.renamed(NAMES) from None
    head = {
        **_model(services.encoder.info),
        "templates": name,
        "cached": fitted.vectors.cached,
        "rows_cached": fitted.vectors.cached,
        "warnings": fitted.warnings(),
        "cut": {each.text: each.kept for each in fitted.cuts},
    }
    return await _answer(head, fitted.vectors.rows, fields.encoding_format)


@router.post(
    "/image",
    operation_id="embedImages",
    summary="Embed images",
    description="One image or several: form fields `image`, a JSON list of base64, or a raw body.",
    openapi_extra=IMAGES_BODY,
    response_model=ImageEmbeddingsAnswer,
    responses=documented(*SENT, 404),
)
async def image(request: Request, services: ServicesDep, stages: StagesDep) -> Response:
    files, fields = await read_images(request, services.input_limits)
    services = await of_model(request, services, fields.model)
    embedded = await services.embedder.embed_all(files, stages)
    images = [
        EmbeddedImageAnswer(
            width=picture.width,
            height=picture.height,
            sha256=picture.sha256,
            cached=picture.cached,
            warnings=embedding.facts(picture, services.encoder.info.image),
        )
        for picture, _ in embedded
    ]
    cached = sum(picture.cached for picture, _ in embedded)
    counts = {"cached": cached, "rows_cached": cached}
    head = {**_model(services.encoder.info), "images": images, **counts}
    return await _answer(head, embedding.rows_of(embedded), fields.encoding_format)


def _model(info: EncoderInfo) -> dict[str, Any]:
    return {
        "model": info.name,
        "fingerprint": info.fingerprint,
        "width": info.embedding_width,
    }


async def _answer(head: dict[str, Any], rows: Floats, encoding: Encoding) -> Response:
    items = await offload(rows.nbytes, rows_as_json, rows, encoding)
    return Response(with_rows(head, "embeddings", items), media_type="application/json")
