"""What every request's body and address have in common. Knows nothing of what the fields mean."""

import asyncio
import base64
import binascii
import re
from collections.abc import Callable, Collection
from typing import Any, Final, TypeVar

from pydantic_core import from_json
from starlette.datastructures import QueryParams
from starlette.requests import Request

from app import errors
from app.api.fields import IMAGE, InputLimits
from app.api.middleware.state import state_of
from app.errors import Invalid, TooLarge, Unparsable
from app.images.fetch import Fetcher

T = TypeVar("T")

# beyond this many bytes a body is handled in a thread, so that other requests do not wait
LARGE: Final = 256_000


async def offload(size: int, function: Callable[..., T], *values: Any) -> T:
    """What the function returns; for a large body of `size` bytes it runs in a thread."""
    return function(*values) if size < LARGE else await asyncio.to_thread(function, *values)


def json_object(body: bytes) -> dict[str, Any]:
    """The object that a JSON body is. Raises Unparsable."""
    try:
        parsed = from_json(body)
    except ValueError as error:
        raise Unparsable(f"the body is not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise Unparsable(f"the body is a JSON {type(parsed).__name__}, an object is expected")
    return parsed


def address_fields(params: QueryParams, lists: Collection[str]) -> dict[str, Any]:
    """The fields of an address; only those in `lists` may be repeated. Raises Invalid."""
    return {name: single(name, params.getlist(name), lists) for name in dict.fromkeys(params)}


def single(name: str, values: list[Any], lists: Collection[str]) -> Any:
    """The one value of a field, or all of them where it is a list. Raises Invalid."""
    if len(values) == 1:
        return values[0]
    if name not in lists:
        detail = f"{name} is given {len(values)} times"
        raise Invalid(detail, field=name, limit=1, value=len(values))
    return values


def merge(fields: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """The fields of address and body together. Raises Invalid where both have one."""
    for name in more:
        if name in fields:
            raise Invalid(f"{name} is given in the address and in the body", field=name)
    return fields | more


JSON = "application/json"
FORM = "multipart/form-data"


def media_type(content_type: str) -> str:
    """The type alone, in lower case, without parameters (RFC 9110, section 8.3.1)."""
    return content_type.partition(";")[0].strip().lower()


def is_json(kind: str) -> bool:
    """Whether a media type is JSON, or a format written in it (RFC 6839, section 3.1)."""
    return kind == JSON or kind.endswith("+json")


IMAGE_URL: Final = "image_url"
LISTS: Final = ("labels", "labelset", "templates", "boxes")
DATA_URI: Final = re.compile(r"data:[\w.+-]*/?[\w.+-]*(;[\w.+=-]+)*;base64,", re.IGNORECASE)
# no base64 begins so
URL: Final = re.compile(r"\s*https?://", re.IGNORECASE)

# bytes of a text field, or of a whole form that is not multipart
LARGEST_TEXT: Final = 1_000_000


async def fetched(request: Request, url: str, fetcher: Fetcher | None) -> bytes:
    """What stands at an image's URL. Raises Invalid, TooLarge, UnsupportedImage, FetchFailed."""
    if fetcher is None:
        detail = "images are not fetched by their URL here; OPENVOCAB_IMAGE_URLS switches it on"
        raise Invalid(detail, field=IMAGE_URL)
    state = state_of(request.scope)
    with state.stages.stage("fetch"):
        return await fetcher.fetch(url, state.hold)


async def image_file(request: Request, text: str, fetcher: Fetcher | None) -> bytes:
    """The file that base64, a data URI or a URL stands for. Raises what those raise."""
    if URL.match(text):
        return await fetched(request, text, fetcher)
    return await offload(len(text), from_base64, text)


def too_many(limits: InputLimits) -> TooLarge:
    """The problem of a form with more fields than there can be."""
    detail = f"the form has over {limits.fields} fields; {limits.labels.count} labels are the limit"
    return TooLarge(detail, field="labels", limit=limits.labels.count)


def from_base64(text: str) -> bytes:
    """The bytes of base64 or a data URI. Raises Invalid."""
    text = text.strip()
    prefix = DATA_URI.match(text[:200])
    if prefix is None and text[:5].lower() == "data:":
        raise Invalid("image is a data URI, but not one with ;base64,", field=IMAGE)
    payload = text[prefix.end() :] if prefix else text
    try:
        # line breaks inside are what the base64 command writes
        return base64.b64decode("".join(payload.split()), validate=True)
    except (binascii.Error, ValueError):
        start = payload[:40]
        raise Invalid(
            f"image is not base64: it begins {errors.shown(start)}",
            field=IMAGE,
            value=errors.excerpt(start),
        ) from None
