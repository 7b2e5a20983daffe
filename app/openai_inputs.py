"""From the body of POST /v1/embeddings to texts and images. Knows nothing of models.

Texts are sent as OpenAI's API takes them: `input` is a text or a list of them. Images are sent as
servers of CLIP models take them: data URIs with `"modality": "image"`, as infinity_emb 0.0.77 does
(fastapi_schemas/pymodels.py, OpenAIEmbeddingInput_Image), or objects `{"image": …}` beside
`{"text": …}`, as Jina's API and SGLang do. A data URI is an image also where nothing says so.
"""

from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError
from starlette.requests import Request

from app import inputs
from app.bodies import json_object, offload
from app.embedding_inputs import MOST_IMAGES, checked_texts, too_many_images
from app.embedding_schemas import OpenAiBody, OpenAiFields
from app.errors import Invalid
from app.queries import InputLimits, invalid

INPUT: Final = "input"
KINDS: Final = ("text", "image")


@dataclass(frozen=True, slots=True)
class AskedItems:
    """Texts (str) and image files (bytes) in the order of the request, and how to answer."""

    items: tuple[str | bytes, ...]
    fields: OpenAiFields


async def read_items(request: Request, limits: InputLimits) -> AskedItems:
    """What POST /v1/embeddings asks for. Raises Unparsable, Invalid, TooLarge."""
    body = await request.body()
    sent = await offload(len(body), json_object, body)
    raw = sent.pop(INPUT, None)
    try:
        fields = OpenAiFields.model_validate(sent)
    except ValidationError as error:
        known = ", ".join(OpenAiBody.model_fields)
        raise invalid(error.errors(include_url=False), sent, known) from None
    told = [_told(item, place, fields.modality) for place, item in enumerate(_listed(raw))]
    pictures = sum(kind == "image" for kind, _ in told)
    if pictures > MOST_IMAGES:
        raise too_many_images(pictures, INPUT)
    raw_texts = [text for kind, text in told if kind == "text"]
    texts = iter(checked_texts(raw_texts, limits.labels.count, INPUT) if raw_texts else ())
    items = [
        next(texts) if kind == "text" else await _file(coded, place)
        for place, (kind, coded) in enumerate(told)
    ]
    return AskedItems(tuple(items), fields)


def _listed(raw: Any) -> list[Any]:
    listed = raw if isinstance(raw, list) else [raw]
    if raw is None or not listed:
        raise Invalid("input is missing: send a text or a list of texts", field=INPUT)
    if any(isinstance(item, int | list) and not isinstance(item, bool) for item in listed):
        detail = "input holds token ids; this model has a tokenizer of its own: send texts"
        raise Invalid(detail, field=INPUT)
    return listed


def _told(item: Any, place: int, modality: str | None) -> tuple[str, str]:
    """Whether an item is a text or an image, and what was sent."""
    if isinstance(item, dict) and len(item) == 1:
        kind, text = next(iter(item.items()))
        if kind in KINDS and isinstance(text, str) and modality in (None, kind):
            return kind, text
    if isinstance(item, str):
        is_uri = inputs.DATA_URI.match(item[:200]) is not None
        return modality or KINDS[is_uri], item
    what = (
        f"a {modality}" if modality else 'neither a text, a data URI, {"text": …} nor {"image": …}'
    )
    raise Invalid(f"input[{place}] is {'not ' if modality else ''}{what}", field=INPUT)


async def _file(coded: str, place: int) -> bytes:
    try:
        return await offload(len(coded), inputs.from_base64, coded)
    except Invalid as problem:
        detail = f"input[{place}]: {problem.detail}"
        raise Invalid(detail, field=INPUT, value=problem.value) from None
