"""From a request's bytes to an image and a query, whichever form the client chose.

Knows nothing of what the fields mean.
"""

import base64
import binascii
import re
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import parse_qs

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from app import labels
from app.bodies import address_fields, json_object, merge, offload, single
from app.classification import Query
from app.errors import Invalid, TooLarge, Unparsable
from app.fetch import Fetcher
from app.media_types import is_json, media_type
from app.queries import IMAGE, InputLimits, build_query
from app.sniffing import is_heic, looks_like_image

IMAGE_URL: Final = "image_url"
LISTS: Final = ("labels", "templates")
DATA_URI: Final = re.compile(r"data:[\w.+-]*/?[\w.+-]*(;[\w.+=-]+)*;base64,", re.IGNORECASE)
# no base64 begins so
URL: Final = re.compile(r"\s*https?://", re.IGNORECASE)

# bytes of a text field, or of a whole form that is not multipart
LARGEST_TEXT: Final = 1_000_000


class _InMemory(MultiPartParser):
    """Uploads stay in memory: the body is bounded already, and no picture ever touches a disk."""

    spool_max_size = 2**31
    _ended = False

    def on_end(self) -> None:
        self._ended = True

    async def parse(self) -> FormData:
        form = await super().parse()
        if not self._ended:
            for file in self._files_to_close_on_error:
                file.close()
            raise MultiPartException("it ends before its last boundary")
        return form


async def read_classify(
    request: Request, limits: InputLimits, fetcher: Fetcher | None = None
) -> tuple[bytes, Query]:
    """The image file and what is asked of it; without a fetcher no image is taken by its URL.

    Raises:
        Unparsable, Invalid, TooLarge: what is wrong, with the field at fault.
        FetchFailed, UnsupportedImage: what stands at the image's URL.
    """
    if IMAGE in request.query_params:
        raise Invalid(f"{IMAGE} belongs in the body, not in the address", field=IMAGE)
    fields = address_fields(request.query_params, LISTS)
    kind = media_type(request.headers.get("content-type", ""))
    if kind == "multipart/form-data":
        fields, image = _join(fields, await _form(request, limits))
    elif is_json(kind):
        fields, image = _join(fields, await _json(request))
    else:
        image = await request.body()
        if kind == "application/x-www-form-urlencoded" and not looks_like_image(image):
            # curl's own default type: either a real form, or --data-binary of something
            fields, image = _join(fields, _urlencoded(image, limits))
    url = fields.pop(IMAGE_URL, None)
    if url is not None:
        query = build_query(fields, limits)
        return await _fetched(request, url, image, fetcher), query
    if isinstance(image, str):
        image = await offload(len(image), from_base64, image)
    if not image:
        detail = f"no image was sent: send it as form field, JSON field or raw body named {IMAGE!r}"
        raise Invalid(detail, field=IMAGE)
    return image, build_query(fields, limits)


async def _fetched(request: Request, url: Any, image: Any, fetcher: Fetcher | None) -> bytes:
    if image:
        raise Invalid(f"{IMAGE} and {IMAGE_URL} are both given", field=IMAGE_URL)
    if not isinstance(url, str):
        raise Invalid(f"{IMAGE_URL} is not a text", field=IMAGE_URL)
    return await fetched(request, url, fetcher)


async def fetched(request: Request, url: str, fetcher: Fetcher | None) -> bytes:
    """What stands at an image's URL. Raises Invalid, TooLarge, UnsupportedImage, FetchFailed."""
    if fetcher is None:
        detail = "images are not fetched by their URL here; OPENVOCAB_IMAGE_URLS switches it on"
        raise Invalid(detail, field=IMAGE_URL)
    with request.state.stages.stage("fetch"):
        return await fetcher.fetch(url, request.state.hold)


async def image_file(request: Request, text: str, fetcher: Fetcher | None) -> bytes:
    """The file that base64, a data URI or a URL stands for. Raises what those raise."""
    if URL.match(text):
        return await fetched(request, text, fetcher)
    return await offload(len(text), from_base64, text)


def _join(fields: dict[str, Any], body: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The fields of address and body together, and apart from them the body's image."""
    more = {name: value for name, value in body.items() if name != IMAGE}
    return merge(fields, more), body.get(IMAGE)


async def _form(request: Request, limits: InputLimits) -> dict[str, Any]:
    check_charset(request)
    try:
        async with aclosing(request.stream()) as stream:
            parser = _InMemory(
                request.headers,
                stream,
                max_files=2,
                max_fields=limits.fields,
                max_part_size=LARGEST_TEXT,
            )
            form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many fields"):
            raise too_many(limits) from None
        if error.message.startswith("Part exceeded"):
            detail = f"a text field has over {LARGEST_TEXT} bytes; send the image as a file"
            raise TooLarge(detail, limit=LARGEST_TEXT) from None
        raise Unparsable(f"the multipart body cannot be parsed: {error.message}") from None
    try:
        return await _form_fields(form)
    finally:
        await form.close()


def check_charset(request: Request) -> None:
    """Forms are UTF-8 (RFC 7578, section 5.1.2); other charsets make texts no answer can hold."""
    _, options = parse_options_header(request.headers["content-type"])
    charset = options.get(b"charset", b"utf-8").decode("latin-1").lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise Unparsable(f"a form's charset can only be utf-8, not {labels.shown(charset)}")


def too_many(limits: InputLimits) -> TooLarge:
    """The problem of a form with more fields than there can be."""
    detail = f"the form has over {limits.fields} fields; {limits.labels.count} labels are the limit"
    return TooLarge(detail, field="labels", limit=limits.labels.count)


async def _form_fields(form: FormData) -> dict[str, Any]:
    fields = {name: single(name, form.getlist(name), LISTS) for name in dict.fromkeys(form)}
    for name, value in fields.items():
        if isinstance(value, UploadFile):
            if name != IMAGE:
                raise Invalid(f"{name} is sent as a file, only {IMAGE} can be", field=name)
            fields[name] = await value.read()
    return fields


async def _json(request: Request) -> dict[str, Any]:
    body = await request.body()
    parsed = await offload(len(body), json_object, body)
    if not isinstance(parsed.get(IMAGE, ""), str):
        raise Invalid("image is not a text; send base64 or a data URI", field=IMAGE)
    return parsed


def _urlencoded(body: bytes, limits: InputLimits) -> dict[str, Any]:
    if is_heic(body):
        return {IMAGE: body}
    if len(body) > LARGEST_TEXT:
        detail = f"a body that is no image has over {LARGEST_TEXT} bytes; use -F image=@FILE"
        raise TooLarge(detail, limit=LARGEST_TEXT, value=len(body))
    try:
        text = body.decode()
    except UnicodeDecodeError:
        detail = (
            "the body is neither an image nor a form; with curl, send a file by -F image=@FILE "
            "or --data-binary @FILE"
        )
        raise Unparsable(detail) from None
    try:
        found = parse_qs(text, keep_blank_values=True, max_num_fields=limits.fields)
    except ValueError:
        raise too_many(limits) from None
    return {name: single(name, values, LISTS) for name, values in found.items()}


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
            f"image is not base64: it begins {labels.shown(start)}",
            field=IMAGE,
            value=labels.excerpt(start),
        ) from None
