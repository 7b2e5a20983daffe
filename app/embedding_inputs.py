"""From a request's bytes to the texts or images to embed, whichever form the client chose.

Knows nothing of models.
"""

import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError
from starlette.requests import Request

from app import inputs
from app.bodies import address_fields, json_object, merge, offload, single
from app.embedding_schemas import Encoding, ImagesFields, TextsFields
from app.errors import Invalid, Problem, TooLarge, Unparsable
from app.labels import excerpt, shown
from app.media_types import is_json, media_type
from app.parts import Part, parts
from app.queries import IMAGE, InputLimits, invalid, own_or_named
from app.renaming import placed
from app.templates import Asked

TEXTS: Final = "texts"
IMAGES: Final = "images"

# images of one request
MOST_IMAGES: Final = 64

# characters of a text: more than any text tower reads, and little to find that out
LONGEST_TEXT: Final = 2_000


@dataclass(frozen=True, slots=True)
class AskedTexts:
    """Texts to embed, bare where `templates` is None."""

    texts: tuple[str, ...]
    templates: Asked
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class AskedImages:
    """Image files to embed."""

    files: tuple[bytes, ...]
    encoding: Encoding


async def read_texts(request: Request, limits: InputLimits) -> AskedTexts:
    """What POST /embeddings/text asks for. Raises Unparsable, Invalid, TooLarge."""
    body = await request.body()
    fields = await offload(len(body), json_object, body)
    try:
        checked = TextsFields.model_validate(fields)
    except ValidationError as error:
        known = ", ".join(TextsFields.model_fields)
        raise invalid(error.errors(include_url=False), fields, known) from None
    return AskedTexts(
        checked_texts(checked.texts, limits.labels.count, TEXTS),
        own_or_named(checked.templates, limits.templates),
        checked.encoding_format,
    )


async def read_images(request: Request) -> AskedImages:
    """What POST /embeddings/image asks for. Raises Unparsable, Invalid, TooLarge."""
    kind = media_type(request.headers.get("content-type", ""))
    fields = address_fields(request.query_params, ())
    if kind == "multipart/form-data":
        files, more = await _form(request)
    elif is_json(kind):
        files, more = await _json(request)
    else:
        files, more = [await request.body()], {}
    fields = merge(fields, more)
    try:
        checked = ImagesFields.model_validate(fields)
    except ValidationError as error:
        known = ", ".join([IMAGE, IMAGES, *ImagesFields.model_fields])
        raise invalid(error.errors(include_url=False), fields, known) from None
    if files in ([], [b""]):
        detail = f"no image was sent: send it as form field, JSON field or raw body named {IMAGE!r}"
        raise Invalid(detail, field=IMAGE)
    return AskedImages(tuple(files), checked.encoding_format)


def checked_texts(raw: Sequence[str], most: int, field: str) -> tuple[str, ...]:
    """Texts without the white space around them, or why one cannot be embedded.

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
            raise TooLarge(detail, field=field, limit=LONGEST_TEXT, value=len(text))
        if not text.isprintable() and any(map(_is_no_text, text)):
            detail = f"text {shown(text)} holds a control character or half of a surrogate pair"
            raise Invalid(detail, field=field, value=excerpt(text))
    return texts


def too_many_images(count: int, field: str) -> TooLarge:
    """The problem of a request with more images than it may carry."""
    detail = f"the request carries {count} images or more, the limit is {MOST_IMAGES}"
    return TooLarge(detail, field=field, limit=MOST_IMAGES, value=count)


def _is_no_text(character: str) -> bool:
    # sentences, unlike labels, may have lines
    return character not in "\n\r\t" and unicodedata.category(character) in ("Cc", "Cs")


async def _form(request: Request) -> tuple[list[bytes], dict[str, Any]]:
    inputs.check_charset(request)
    files: list[bytes] = []
    fields: dict[str, list[str]] = {}
    content_type = request.headers["content-type"]
    # the body is bounded already, and what decodes an image tells best that it is too large
    async for part in parts(request.stream(), content_type, sys.maxsize, inputs.LARGEST_TEXT):
        if isinstance(part.content, Problem):
            raise part.content
        if part.filename is None and part.name not in (IMAGE, IMAGES):
            _keep(fields, part, part.content)
            continue
        if part.name not in (IMAGE, IMAGES):
            detail = f"{shown(part.name)} is sent as a file, only {IMAGE} can be"
            raise Invalid(detail, field=excerpt(part.name))
        files.append(part.content)
        if len(files) > MOST_IMAGES:
            raise too_many_images(len(files), IMAGE)
    return files, {name: single(name, values, ()) for name, values in fields.items()}


def _keep(fields: dict[str, list[str]], part: Part, content: bytes) -> None:
    if len(fields) > len(ImagesFields.model_fields):
        raise Invalid("the form has too many fields", field=excerpt(part.name))
    try:
        fields.setdefault(part.name, []).append(content.decode())
    except UnicodeDecodeError:
        raise Unparsable(f"the field {shown(part.name)} is not UTF-8 text") from None


async def _json(request: Request) -> tuple[list[bytes], dict[str, Any]]:
    body = await request.body()
    fields = await offload(len(body), json_object, body)
    if IMAGE in fields and IMAGES in fields:
        raise Invalid(f"give either {IMAGE} or {IMAGES}", field=IMAGE)
    sent = fields.pop(IMAGES, None) if IMAGES in fields else fields.pop(IMAGE, None)
    coded = sent if isinstance(sent, list) else [] if sent is None else [sent]
    if len(coded) > MOST_IMAGES:
        raise too_many_images(len(coded), IMAGE)
    for place, text in enumerate(coded, start=1):
        if not isinstance(text, str):
            detail = f"image number {place} is not a text; send base64 or a data URI"
            raise Invalid(detail, field=IMAGE)
    return [await _file(coded, place) for place in range(len(coded))], fields


async def _file(coded: list[str], place: int) -> bytes:
    try:
        return await offload(len(coded[place]), inputs.from_base64, coded[place])
    except Problem as problem:
        if len(coded) == 1:
            raise
        raise placed(problem, f"image {place + 1} of {len(coded)}") from None
