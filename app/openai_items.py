"""What one input of POST /v1/embeddings is: a text or an image, however servers of CLIP take it.

Knows nothing of bodies or files. Bare texts and lists of them are OpenAI's. Images are data URIs,
or URLs with `"modality": "image"` (infinity_emb 0.0.77, fastapi_schemas/pymodels.py), objects
`{"image": …}` beside `{"text": …}` (Jina's API, SGLang), parts of a chat message (OpenRouter), or
`messages` of one such part in place of `input` (vLLM).
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

from app import inputs
from app.errors import Invalid

INPUT: Final = "input"
MESSAGES: Final = "messages"

Kind = Literal["text", "image"]
FORMS: Final = 'a text, a data URI, {"text": …}, {"image": …} or a part of a message'


@dataclass(frozen=True, slots=True)
class Told:
    """A text, or an image as base64, data URI or URL; `where` in the request it stands."""

    kind: Kind
    content: str
    where: str


def told(raw: Any, messages: Any, modality: Kind | None) -> list[Told]:
    """The inputs in their order, one at least. Raises Invalid."""
    if messages is None:
        return [_item(one, f"{INPUT}[{at}]", modality) for at, one in enumerate(_listed(raw))]
    if raw is not None:
        raise Invalid(f"{INPUT} and {MESSAGES} are both given", field=MESSAGES)
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
    if any(isinstance(item, int | list) and not isinstance(item, bool) for item in listed):
        detail = "input holds token ids; this model has a tokenizer of its own: send texts"
        raise Invalid(detail, field=INPUT)
    return listed


def _item(item: Any, where: str, modality: Kind | None) -> Told:
    if isinstance(item, str):
        is_uri = inputs.DATA_URI.match(item[:200]) is not None
        return Told(modality or ("image" if is_uri else "text"), item, where)
    if isinstance(item, dict) and set(item) == {"content"}:
        return _content(item["content"], where, modality)
    return _part(item, where, modality)


def _content(content: Any, where: str, modality: Kind | None) -> Told:
    """What a chat message holds, which can be but one thing here."""
    if isinstance(content, list) and len(content) != 1:
        detail = f"{where} has {len(content)} parts; a text or an image is embedded by itself"
        raise Invalid(detail, field=_field(where), limit=1, value=len(content))
    return _part(
        {"text": content} if isinstance(content, str) else _first(content), where, modality
    )


def _first(content: Any) -> Any:
    return content[0] if isinstance(content, list) else content


def _part(part: Any, where: str, modality: Kind | None) -> Told:
    for kind in ("text", "image"):
        content = _said(part, kind)
        if isinstance(content, str) and modality in (None, kind):
            return Told(kind, content, where)
    detail = f"not a {modality}" if modality else f"not {FORMS}"
    raise Invalid(f"{where} is {detail}", field=_field(where))


def _said(part: Any, kind: Kind) -> Any:
    """The text or the image that a part is, if it is one."""
    if not isinstance(part, dict):
        return None
    if set(part) == {kind}:
        return part[kind]
    name = "text" if kind == "text" else "image_url"
    if set(part) != {"type", name} or part["type"] != name:
        return None
    said = part[name]
    return said.get("url") if name == "image_url" and isinstance(said, dict) else said


def _field(where: str) -> str:
    return where.partition("[")[0]
