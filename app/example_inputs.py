"""From the body of an upload of examples to its pictures, one at a time, each with its label.

Knows nothing of vectors or stores.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from app import inputs
from app.batch import Item
from app.batch_inputs import (
    IMAGES,
    UploadBatches,
    arriving_body,
    counted,
    decoded,
    file_of,
    json_body,
    json_images,
    labelled,
    text_of,
)
from app.bodies import address_fields
from app.errors import Invalid, Problem, TooLarge
from app.example_changes import LABEL
from app.labels import excerpt, shown
from app.media_types import is_json, media_type
from app.parts import Part, parts
from app.queries import IMAGE

OPTIONS = ("wait",)


@dataclass(slots=True)
class Claims:
    """The labels as they are told: one for all pictures, or one for each, in order."""

    told: list[Any] = field(default_factory=list)
    images: int = 0

    def tell(self, said: str | Problem) -> None:
        """What the next picture shows."""
        self.told.append(said)
        self.images += 1

    def of(self, index: int) -> str | Problem:
        """The label of a picture by its number, once all have been read."""
        if not self.told:
            return Invalid(f"{LABEL} is missing: what the pictures show", field=LABEL)
        if len(self.told) not in (1, self.images):
            detail = f"there are {self.images} images and {len(self.told)} labels; send one for "
            detail += "all or one for each"
            return Invalid(detail, field=LABEL, limit=self.images, value=len(self.told))
        said = self.told[0 if len(self.told) == 1 else index]
        if isinstance(said, Problem):
            return said
        return said if isinstance(said, str) else Invalid(f"{LABEL} is not a text", field=LABEL)


async def read_examples(
    request: Request, uploads: UploadBatches
) -> tuple[Claims, AsyncGenerator[Item, None]]:
    """What is told, complete once all pictures have been read. Raises Unparsable, Invalid."""
    kind = media_type(request.headers.get("content-type", ""))
    claims = Claims()
    fields = {k: v for k, v in _fields(request).items() if k not in OPTIONS}
    _check(fields)
    if LABEL in fields:
        claims.told.append(fields[LABEL])
    if kind == "multipart/form-data":
        inputs.check_charset(request)
        return claims, counted(_form(request, claims, uploads), uploads)
    if is_json(kind):
        images = await _json(request, claims, uploads)
        claims.images = len(images)
        return claims, counted(decoded(images), uploads)
    if LABEL in fields:
        return claims, counted(_raw(request, claims, uploads), uploads)
    return claims, counted(labelled(request, uploads, claims.tell), uploads)


def _fields(request: Request) -> dict[str, Any]:
    return address_fields(request.query_params, ())


def _check(fields: dict[str, Any]) -> None:
    for name in fields:
        if name != LABEL:
            detail = f"there is no field {shown(name)}; the fields are {IMAGE}, {LABEL}"
            raise Invalid(detail, field=excerpt(name))


async def _form(
    request: Request, claims: Claims, uploads: UploadBatches
) -> AsyncGenerator[tuple[str, Any], None]:
    """Labels may come before, between and after the pictures."""
    content_type = request.headers["content-type"]
    arriving = parts(arriving_body(request), content_type, uploads.image_bytes, inputs.LARGEST_TEXT)
    async for part in arriving:
        if part.filename is None:
            claims.told.append(_text(part, claims, uploads))
        else:
            claims.images += 1
            yield file_of(part)
    if not claims.images:
        detail = f"no image was sent: send each as a form field named {IMAGE}"
        raise Invalid(detail, field=IMAGE)


def _text(part: Part, claims: Claims, uploads: UploadBatches) -> str:
    if isinstance(part.content, Problem):
        raise part.content
    _check({part.name: None})
    if len(claims.told) >= uploads.images:
        detail = f"over {uploads.images} labels, the limit of max_upload_images"
        raise TooLarge(detail, field=LABEL, limit=uploads.images, value=len(claims.told) + 1)
    return text_of(part.name, part.content)


async def _json(request: Request, claims: Claims, uploads: UploadBatches) -> list[Any]:
    """One `image` with its `label`, or `images` with theirs."""
    parsed = await json_body(request)
    if IMAGE in parsed:
        images: list[Any] = [{IMAGE: parsed.pop(IMAGE)}]
    else:
        images = json_images(parsed, uploads)
        own = [isinstance(image, dict) and LABEL in image for image in images]
        if any(own):
            missing = Invalid(f"an image has no {LABEL}", field=LABEL)
            claims.told += [
                image[LABEL] if has else missing for image, has in zip(images, own, strict=True)
            ]
    if claims.told and LABEL in parsed:
        raise Invalid(f"{LABEL} is given twice", field=LABEL)
    if LABEL in parsed:
        claims.told.append(parsed.pop(LABEL))
    for name in parsed:
        detail = f"there is no field {shown(name)}; the fields are {IMAGE}, {IMAGES}, {LABEL}"
        raise Invalid(detail, field=excerpt(name))
    return images


async def _raw(
    request: Request, claims: Claims, uploads: UploadBatches
) -> AsyncGenerator[tuple[None, bytes], None]:
    """The body is the picture."""
    held = bytearray()
    async for chunk in arriving_body(request):
        held += chunk
        if len(held) > uploads.image_bytes:
            detail = f"the image has {len(held)} bytes or more, the limit is {uploads.image_bytes}"
            raise TooLarge(detail, field=IMAGE, limit=uploads.image_bytes, value=len(held))
    claims.images = 1
    yield None, bytes(held)
