"""The inputs of POST /v1/embeddings: texts or images, in the formats of several CLIP servers.

Knows nothing of bodies or files. Bare texts and lists of them are OpenAI's. Images are data URIs,
or URLs with `"modality": "image"` (infinity_emb 0.0.77, fastapi_schemas/pymodels.py), objects
`{"image": …}` beside `{"text": …}` (Jina's API, SGLang), parts of a chat message (OpenRouter), or
`messages` of one such part in place of `input` (vLLM).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field

from app.api import bodies, openapi
from app.api.answers import rows_as_json, with_rows
from app.api.bodies import address_fields, check_address, json_body, merge, offload
from app.api.embeddings import (
    LONGEST_TEXT,
    MOST_IMAGES,
    EncodingField,
    Row,
    checked_texts,
    too_many_images,
)
from app.api.fields import IMAGE, InputLimits, RequestFields
from app.api.problems import KEYED, OPENAI_CONTENT, SENT, documented, slash_at_end
from app.api.services import ServicesDep, StagesDep, of_model
from app.classify import embedding
from app.classify.embedding import EmbeddedItems
from app.classify.truncation import TAKE_BEGINNING, few
from app.errors import Invalid, Problem, each_of, shown
from app.images.fetch import Fetcher
from models import EncoderInfo


class OpenAiFields(RequestFields):
    """The JSON body of POST /v1/embeddings except its input, which has many forms."""

    model: str | None = Field(
        None, description="One of the server's models, or an alias; others are refused."
    )
    encoding_format: EncodingField = "float"
    dimensions: int | None = Field(None, description="Only the model's own width is accepted.")
    modality: Literal["text", "image"] | None = Field(
        None,
        description="Kind of all inputs; default: data URIs are images, anything else is text.",
    )
    truncate: bool = Field(
        False, description="Take the beginning of texts that are longer than the model reads."
    )
    user: str | None = Field(None, description="Accepted and ignored.")
    continue_final_message: bool = Field(False, description="As `user`; vLLM's clients send it.")
    add_special_tokens: bool = Field(False, description="As `user`; vLLM's clients send it.")


class OpenAiBody(OpenAiFields):
    """The JSON body of POST /v1/embeddings."""

    input: str | list[str | dict[str, Any]] | None = Field(
        None,
        description="A text or many; images as data URIs, or as URLs where the operator allows "
        'them and `modality` or the form says that they are images; or `{"text": …}` and '
        '`{"image": …}`; or parts of a chat message.',
        examples=[["a cat", "a dog"]],
    )
    messages: list[dict[str, Any]] | None = Field(
        None, description="Instead of `input`: one chat message with one text or image."
    )


class OpenAiEmbedding(BaseModel):
    """One row."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: Row


class OpenAiUsage(BaseModel):
    """Usage in inputs, because tokens are not counted."""

    prompt_tokens: int
    total_tokens: int


class OpenAiAnswer(BaseModel):
    """The response of POST /v1/embeddings."""

    object: Literal["list"] = "list"
    model: str
    usage: OpenAiUsage
    warnings: list[str] = Field(
        [],
        description="What was cut of texts, or had to be guessed about images or is not seen; "
        "absent where there is nothing to say.",
    )
    data: list[OpenAiEmbedding]


class OpenAiModel(BaseModel):
    """A model, or an alias of one."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(0, description="Not known, so 0.")
    owned_by: str = "openvocab"


class OpenAiModels(BaseModel):
    """The response of GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[OpenAiModel]


# what the URL may hold as well: some clients put nothing of their own into the body
IN_ADDRESS: Final = ("truncate",)

INPUT: Final = "input"
MESSAGES: Final = "messages"

Kind = Literal["text", "image"]
FORMS: Final = 'a text, a data URI, {"text": …}, {"image": …} or a part of a message'


@dataclass(frozen=True, slots=True)
class InputPart:
    """A text, or an image as base64, data URI or URL; `where` is its place in the request."""

    kind: Kind
    content: str
    where: str


def input_parts(raw: Any, messages: Any, modality: Kind | None) -> list[InputPart]:
    """The inputs in their order, one at least. Raises Invalid."""
    if messages is None:
        return [_item(item, f"{INPUT}[{at}]", modality) for at, item in enumerate(_listed(raw))]
    if raw is not None:
        raise Invalid(f"give either {INPUT} or {MESSAGES}, not both", field=MESSAGES)
    if not isinstance(messages, list) or len(messages) != 1 or not isinstance(messages[0], dict):
        detail = "messages is not a list of one message; each request embeds one"
        raise Invalid(detail, field=MESSAGES)
    if messages[0].get("role") != "user":
        raise Invalid("the message's role is not user", field=MESSAGES)
    return [_content(messages[0].get("content"), MESSAGES, modality)]


def _listed(raw: Any) -> list[Any]:
    listed = raw if isinstance(raw, list) else [raw]
    if raw is None or not listed:
        raise Invalid("input is missing: send a text or a list of texts", field=INPUT)
    if any(map(_is_token_ids, listed)):
        detail = (
            "input holds token ids; this model has a tokenizer of its own: send texts (LangChain: "
            "OpenAIEmbeddings(check_embedding_ctx_length=False))"
        )
        raise Invalid(detail, field=INPUT)
    return listed


def _is_token_ids(item: Any) -> bool:
    """Whether it is one, or a list of them."""
    first = next(iter(item), None) if isinstance(item, list) else item
    return isinstance(first, int) and not isinstance(first, bool)


def _item(item: Any, where: str, modality: Kind | None) -> InputPart:
    if isinstance(item, str):
        kind: Kind = "image" if bodies.is_image_uri(item) else "text"
        return InputPart(modality or kind, item, where)
    if isinstance(item, dict) and set(item) == {"content"}:
        return _content(item["content"], where, modality)
    return _part(item, where, modality)


def _content(content: Any, where: str, modality: Kind | None) -> InputPart:
    """What a chat message holds, which can be but one thing here."""
    if isinstance(content, list) and len(content) != 1:
        detail = f"{where} has {len(content)} parts; a text or an image is embedded by itself"
        raise Invalid(detail, field=_field(where), limit=1, value=len(content))
    part = content[0] if isinstance(content, list) else content
    return _part({"text": content} if isinstance(content, str) else part, where, modality)


def _part(part: Any, where: str, modality: Kind | None) -> InputPart:
    for kind in ("text", "image"):
        content = _content_of(part, kind)
        if isinstance(content, str) and modality in (None, kind):
            return InputPart(kind, content, where)
    detail = f"not a {modality}" if modality else f"not {FORMS}"
    raise Invalid(f"{where} is {detail}", field=_field(where))


def _content_of(part: Any, kind: Kind) -> Any:
    """The text or the image that a part is, if it is one."""
    if not isinstance(part, dict):
        return None
    if set(part) == {kind}:
        return part[kind]
    name = "text" if kind == "text" else "image_url"
    if set(part) != {"type", name} or part["type"] != name:
        return None
    content = part[name]
    return content.get("url") if name == "image_url" and isinstance(content, dict) else content


def _field(where: str) -> str:
    return where.partition("[")[0]


# texts of one request, if OPENVOCAB_MAX_LABELS is not more: as many as OpenAI takes, clients send
MOST_TEXTS: Final = 2_048

# images of one request that are fetched or decoded at once
AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class AskedItems:
    """Texts (str) and image files (bytes) in the order of the request, and the response format.

    `cut` are texts of more than LONGEST_TEXT characters, by what was kept of them.
    """

    items: tuple[str | bytes, ...]
    fields: OpenAiFields
    cut: list[tuple[str, str]]


async def read_items(
    request: Request, limits: InputLimits, fetcher: Fetcher | None = None
) -> AskedItems:
    """The request of POST /v1/embeddings; without a fetcher, image URLs are not accepted.

    Raises:
        Unparsable, Invalid, TooLarge: what is wrong, with the field at fault.
        FetchFailed, UnsupportedImage: what stands at an image's URL.
    """
    check_address(request, IN_ADDRESS)
    body = merge(address_fields(request, ()), await json_body(request))
    raw, messages = body.pop(INPUT, None), body.pop(MESSAGES, None)
    fields = OpenAiFields.checked(body, tuple(OpenAiBody.model_fields))
    parts = input_parts(raw, messages, fields.modality)
    pictures = [part for part in parts if part.kind == "image"]
    if len(pictures) > MOST_IMAGES:
        raise too_many_images(len(pictures), INPUT)
    texts_sent = [part.content for part in parts if part.kind == "text"]
    cut: list[tuple[str, str]] = []
    if fields.truncate:
        whole = list(map(str.strip, texts_sent))
        texts_sent = [text[:LONGEST_TEXT].rstrip() for text in whole]
        both = zip(texts_sent, whole, strict=True)
        cut = [(kept, text) for kept, text in both if len(text) > LONGEST_TEXT]
    most = max(MOST_TEXTS, limits.labels.count)
    shorter = f"; {TAKE_BEGINNING}"
    texts = iter(checked_texts(texts_sent, most, INPUT, shorter) if texts_sent else ())
    files = iter(await _files(request, pictures, fetcher))
    items = tuple(next(texts) if part.kind == "text" else next(files) for part in parts)
    return AskedItems(items, fields, cut)


async def _files(
    request: Request, pictures: Sequence[InputPart], fetcher: Fetcher | None
) -> list[bytes]:
    """The files in order; the first that is wrong fails them all."""
    room = asyncio.Semaphore(AT_ONCE)

    async def fetch(picture: InputPart) -> bytes:
        async with room:
            try:
                return await bodies.image_file(request, picture.content, fetcher)
            except Problem as problem:
                field = _field(picture.where)
                names = {IMAGE: field, bodies.IMAGE_URL: field}
                raise problem.renamed(names).placed(picture.where) from None

    return await each_of(map(fetch, pictures))


router = APIRouter(prefix="/v1", tags=["OpenAI's API"])

ModelName = Annotated[str, Path(description="A model or an alias.", examples=["everyday"])]

# the fields that ensemble and decoder complain of, as they are called here
NAMES: Final = {"labels": INPUT, "image": INPUT}

BODY: Final = openapi.body(
    {bodies.JSON: openapi.titled("OpenAiRequest", OpenAiBody.model_json_schema())},
    openapi.url_fields(
        {name: OpenAiFields.model_json_schema()["properties"][name] for name in IN_ADDRESS}
    ),
    examples={bodies.JSON: {"example": {"input": ["a cat", "a dog"]}}},
)


@router.post(
    "/embeddings",
    operation_id="openaiCreateEmbeddings",
    summary="Embed texts and images, for OpenAI's clients",
    openapi_extra=BODY,
    response_model=OpenAiAnswer,
    responses=documented(*SENT, 404, 502, content=OPENAI_CONTENT),
)
async def create(request: Request, services: ServicesDep, stages: StagesDep) -> Response:
    items_request = await read_items(request, services.input_limits, services.fetcher)
    services = await of_model(request, services, items_request.fields.model)
    _check(items_request.fields, services.encoder.info)
    try:
        embedded = await embedding.of_items(
            services.classifier.ensemble,
            services.embedder,
            items_request.items,
            stages,
            truncate=items_request.fields.truncate,
        )
    except Problem as problem:
        raise problem.renamed(NAMES) from None
    rows, info = embedded.rows, services.encoder.info
    # tokens are not counted: a text that is known is not tokenized at all
    usage = OpenAiUsage(prompt_tokens=len(rows), total_tokens=len(rows))
    head: dict[str, Any] = {"object": "list", "model": info.name, "usage": usage}
    if warnings := _warnings(items_request, embedded, info):
        head["warnings"] = warnings
    vectors = await offload(rows.nbytes, rows_as_json, rows, items_request.fields.encoding_format)
    items = [
        b'{"object":"embedding","index":%d,"embedding":%b}' % (index, vector)
        for index, vector in enumerate(vectors)
    ]
    return Response(with_rows(head, "data", items), media_type="application/json")


def _warnings(asked: AskedItems, embedded: EmbeddedItems, info: EncoderInfo) -> list[str]:
    """What was cut of texts, and what had to be guessed about images, each with its place."""
    places = [place for place, item in enumerate(asked.items) if isinstance(item, bytes)]
    told = [
        f"{INPUT}[{place}]: {fact}"
        for place, image in zip(places, embedded.images, strict=True)
        for fact in embedding.facts(image, info.image)
    ]
    read = {cut.text for cut in embedded.cut}
    by_length = [
        f"{shown(text)} has {len(text)} characters; only the first {LONGEST_TEXT} count"
        for kept, text in asked.cut
        if kept not in read
    ]
    return [*few([*(cut.warning() for cut in embedded.cut), *by_length]), *told]


@router.get(
    "/models",
    operation_id="openaiListModels",
    summary="List models and their aliases",
    responses=documented(*KEYED, content=OPENAI_CONTENT),
)
async def models(services: ServicesDep) -> OpenAiModels:
    return OpenAiModels(data=[OpenAiModel(id=name) for name in services.models.names()])


@router.get(
    "/models/{name:path}",
    operation_id="openaiGetModel",
    summary="Get a model by its name",
    responses=documented(*KEYED, 404, content=OPENAI_CONTENT),
)
async def model(name: ModelName, request: Request, services: ServicesDep) -> OpenAiModel:
    path = request.url.path  # a name may hold slashes, so the route takes one at the end, too
    if path.endswith("/") and name not in services.models.names():
        raise slash_at_end(path, path.rstrip("/"))
    services.models.known(name)
    return OpenAiModel(id=name)


def _check(fields: OpenAiFields, info: EncoderInfo) -> None:
    """A width that the model does not have is refused."""
    width = info.embedding_width
    if fields.dimensions not in (None, width):
        detail = f"{info.name} has {width} dimensions and was not trained for fewer"
        raise Invalid(detail, field="dimensions", limit=width, value=fields.dimensions)
