"""From the body of POST /v1/embeddings to texts and image files. Knows nothing of models."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError
from starlette.requests import Request

from app import inputs
from app.bodies import json_object, offload
from app.embedding_inputs import MOST_IMAGES, checked_texts, too_many_images
from app.embedding_schemas import OpenAiBody, OpenAiFields
from app.errors import Problem
from app.fetch import Fetcher
from app.openai_items import INPUT, MESSAGES, Told, told
from app.queries import IMAGE, InputLimits, invalid
from app.renaming import placed, renamed

# images of one request that are fetched or decoded at once
AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class AskedItems:
    """Texts (str) and image files (bytes) in the order of the request, and how to answer."""

    items: tuple[str | bytes, ...]
    fields: OpenAiFields


async def read_items(
    request: Request, limits: InputLimits, fetcher: Fetcher | None = None
) -> AskedItems:
    """What POST /v1/embeddings asks for; without a fetcher no image is taken by its URL.

    Raises:
        Unparsable, Invalid, TooLarge: what is wrong, with the field at fault.
        FetchFailed, UnsupportedImage: what stands at an image's URL.
    """
    body = await request.body()
    sent = await offload(len(body), json_object, body)
    raw, messages = sent.pop(INPUT, None), sent.pop(MESSAGES, None)
    try:
        fields = OpenAiFields.model_validate(sent)
    except ValidationError as error:
        known = ", ".join(OpenAiBody.model_fields)
        raise invalid(error.errors(include_url=False), sent, known) from None
    asked = told(raw, messages, fields.modality)
    pictures = [one for one in asked if one.kind == "image"]
    if len(pictures) > MOST_IMAGES:
        raise too_many_images(len(pictures), INPUT)
    said = [one.content for one in asked if one.kind == "text"]
    texts = iter(checked_texts(said, limits.labels.count, INPUT) if said else ())
    files = iter(await _files(request, pictures, fetcher))
    items = tuple(next(texts) if one.kind == "text" else next(files) for one in asked)
    return AskedItems(items, fields)


async def _files(
    request: Request, pictures: Sequence[Told], fetcher: Fetcher | None
) -> list[bytes]:
    """The files in order; the first that cannot be had fails them all."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(picture: Told) -> bytes:
        async with room:
            try:
                return await inputs.image_file(request, picture.content, fetcher)
            except Problem as problem:
                field = picture.where.partition("[")[0]
                names = {IMAGE: field, inputs.IMAGE_URL: field}
                raise placed(renamed(problem, names), picture.where) from None

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(picture)) for picture in pictures]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
