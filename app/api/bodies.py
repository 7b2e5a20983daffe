"""What all request bodies and queries have in common. Does not know what the fields mean."""

import asyncio
import base64
import binascii
import codecs
import re
import sys
from collections.abc import Callable, Collection
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import parse_qs, quote, unquote_to_bytes

from starlette.requests import Request

from app import errors
from app.api import json_text, multipart
from app.api.fields import IMAGE, listed_lines
from app.api.json_text import JsonLimits
from app.api.middleware.state import state_of
from app.classify.labels import LabelLimits
from app.errors import Invalid, Problem, TooLarge, Unparsable
from app.images.fetch import Fetcher
from app.images.formats import looks_like_image

T = TypeVar("T")

# beyond this many bytes a body is handled in a thread, so that other requests do not wait
LARGE: Final = 256_000

# byte-order marks (Unicode 16.0, section 23.8); UTF-32's begins like UTF-16's
MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


async def offload(size: int, function: Callable[..., T], *values: Any) -> T:
    """What the function returns; for a large body of `size` bytes it runs in a thread."""
    return function(*values) if size < LARGE else await asyncio.to_thread(function, *values)


def text_of(content: bytes, field: str | None = None) -> str:
    """The text of a body or `field`: UTF-8, or as its byte-order mark says, which is skipped.

    Raises Unparsable, which says how to save it.
    """
    what = "the body" if field is None else f"the field {errors.shown(field)}"
    name = field and errors.excerpt(field)
    mark, coding = next((m for m in MARKS if content.startswith(m[0])), (b"", "utf-8"))
    try:
        text = content[len(mark) :].decode(coding)
    except UnicodeDecodeError as error:
        why = f"{error.reason} at byte {error.start + len(mark)}"
        called = coding.upper().removesuffix("-LE").removesuffix("-BE")
        detail = f"{what} is not {called} text ({why}); save it as UTF-8"
        raise Unparsable(detail, field=name) from None
    if not mark and (content[1:2] == b"\0" or content[:1] == b"\0") and len(content) > 1:
        detail = f"{what} looks like UTF-16 without its byte-order mark; save it as UTF-8"
        raise Unparsable(detail, field=name)
    return text


async def json_body(request: Request) -> dict[str, Any]:
    """The fields of a JSON body; their memory counts as held. Raises Unparsable, TooLarge."""
    body = await request.body()
    state = state_of(request.scope)
    limits: JsonLimits = request.app.state.services.json_limits[state.route.rule.body]
    text = await offload(len(body), _utf8, body)
    expected = await offload(len(text), json_text.cost, text, limits)
    state.hold(expected.bytes)
    return await offload(len(text), json_text.json_object, text)


def _utf8(body: bytes) -> bytes:
    """A JSON body without its byte-order mark. Raises Unparsable."""
    marked = body.startswith(tuple(mark for mark, _ in MARKS)) or body[:2].find(b"\0") >= 0
    return text_of(body).encode() if marked else body


def address_fields(
    request: Request, lists: Collection[str], known: Collection[str] | None = None
) -> dict[str, Any]:
    """The fields of the URL; only those in `lists` may be repeated.

    Raises Unparsable, Invalid.
    """
    # not `query_params`, which replaces what is not UTF-8 and goes on
    query = request.scope["query_string"].decode(errors="surrogateescape")
    values = percent_decoded(query)
    return {name: single(name, of_name, lists, known) for name, of_name in values.items()}


def check_address(request: Request, known: Collection[str]) -> None:
    """Nothing if the URL has only `known` fields, each once. Raises Unparsable, Invalid."""
    for name in address_fields(request, (), known):
        if name not in known:
            there = f"the fields there are {', '.join(known)}" if known else "this path takes none"
            detail = f"unknown field {errors.shown(name)} in the URL; {there}"
            raise Invalid(detail, field=errors.excerpt(name))


# what decoding leaves of bytes that are not UTF-8
NOT_UTF_8: Final = re.compile("[\udc80-\udcff]")


def percent_decoded(text: str, most: int | None = None) -> dict[str, list[str]]:
    """Every value of each field of a query string, or of a form in this format.

    Raises Unparsable for what is not UTF-8; ValueError for over `most` fields.
    """
    fields = parse_qs(text, keep_blank_values=True, errors="surrogateescape", max_num_fields=most)
    for name, values in fields.items():
        for value in (name, *values):
            if not value.isascii() and NOT_UTF_8.search(value):
                sent = quote(value, errors="surrogateescape")
                detail = f"the field {errors.shown(name)} is not UTF-8 text: {errors.shown(sent)}; "
                picture = looks_like_image(value[:CURL_BYTES].encode(errors="surrogateescape"))
                form = f"send the picture as a file, -F {IMAGE}=@FILE, or in base64"
                detail += form if picture else "percent-encode it as UTF-8"
                field = errors.excerpt(name)
                raise Unparsable(detail, field=field, value=errors.excerpt(sent))
    return fields


def single(
    name: str, values: list[Any], lists: Collection[str], known: Collection[str] | None = None
) -> Any:
    """The one value of a field, or all of them where it is a list. Raises Invalid.

    One that is not `known` may be repeated: it is refused later, and for its name.
    """
    if len(values) == 1 or (known is not None and name not in known and name not in lists):
        return values[0]
    if name not in lists:
        detail = f"{name} was sent {len(values)} times; send it once"
        raise Invalid(detail, field=name, limit=1, value=len(values))
    return values


def merge(fields: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """The fields of query and body together. Raises Invalid if they contradict each other.

    null in the body contradicts nothing: it is as if the field were not there.
    """
    more = {name: value for name, value in more.items() if value is not None or name not in fields}
    for name, value in more.items():
        if name in fields and _as_texts(fields[name]) != _as_texts(value):
            detail = f"{name} has one value in the URL and another in the body; send only one"
            raise Invalid(detail, field=name)
    return fields | more


def _as_texts(value: Any) -> list[str]:
    """A value as in a query string: true, "True" and "true" are the same, as [1] and "1" are."""
    values = value if isinstance(value, list) else [value]
    texts = [str(item) for item in values]
    return [text.lower() if text.lower() in ("true", "false") else text for text in texts]


JSON = "application/json"
FORM = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"


def media_type(content_type: str) -> str:
    """The type alone, in lower case, without parameters (RFC 9110, section 8.3.1)."""
    return content_type.partition(";")[0].strip().lower()


def is_json(kind: str) -> bool:
    """Whether a media type is JSON, or a format written in it (RFC 6839, section 3.1)."""
    return kind == JSON or kind.endswith("+json")


IMAGE_URL: Final = "image_url"
IMAGE_SHA256: Final = "image_sha256"
LISTS: Final = ("labels", "labelset", "not", "templates", "boxes")
# RFC 2397; parameters may be quoted, and are often not encoded
DATA_URI: Final = re.compile(
    r'data:([\w.+-]*/?[\w.+*-]*)((?:\s*;(?:[^;,"]|"(?:[^"\\]|\\.)*")*+)*+),', re.IGNORECASE
)
# characters in front of a data URI's comma
LONGEST_URI_HEAD: Final = 10_000

# no base64 begins like this
URL: Final = re.compile(r"\s*https?://", re.IGNORECASE)
ANY_URL: Final = re.compile(r"[\s+]*([a-z][a-z0-9+.-]{1,20})://", re.IGNORECASE)

# a file of more bytes holds line ends or zeros
CURL_BYTES: Final = 64

# RFC 4648, section 5, to section 4; line breaks inside are what the base64 command writes
ALPHABET: Final = str.maketrans("-_", "+/", " \t\n\r\v\f\x1c\x1d\x1e\x1f")
OTHER_SPACES: Final = (
    "\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]")
NOT_BASE64: Final = re.compile(r"[^A-Za-z0-9+/]")


class FormLimits(Protocol):
    """How much one form may hold."""

    @property
    def labels(self) -> LabelLimits: ...

    @property
    def fields(self) -> int: ...


# the values of each field, in the order of the form
Fields = dict[str, list[Any]]

# bytes of a text field, or of a whole form that is not multipart
LARGEST_TEXT: Final = 1_000_000


async def fetched(request: Request, url: str, fetcher: Fetcher | None) -> bytes:
    """The file at an image's URL. Raises Invalid, TooLarge, UnsupportedImage, FetchFailed."""
    if fetcher is None:
        detail = "fetching images by URL is disabled on this server (OPENVOCAB_IMAGE_URLS)"
        raise Invalid(detail, field=IMAGE_URL)
    state = state_of(request.scope)
    with state.stages.stage("fetch"):
        return await fetcher.fetch(url, state.hold)


async def image_file(request: Request, text: str, fetcher: Fetcher | None) -> bytes:
    """The file in base64, a data URI or at a URL. Raises what those raise."""
    if URL.match(text):
        return await fetched(request, text, fetcher)
    return await offload(len(text), from_base64, text)


async def raw_image(request: Request) -> bytes:
    """The body as the picture. Raises Unparsable."""
    body = await request.body()
    if media_type(request.headers.get("content-type", "")) == URLENCODED:
        check_curl(body)
    return body


def sent_image(image: bytes | None, kind: str) -> bytes:
    """The image of a request with this content type.

    Raises Invalid: there is none, as in an empty body of no type of its own, or it is empty.
    """
    if image:
        return image
    if image is None or kind in ("", URLENCODED):
        detail = f"no image was sent: send it as form field, JSON field or raw body named {IMAGE!r}"
        raise Invalid(detail, field=IMAGE)
    raise Invalid("the image is empty (0 bytes)", field=IMAGE)


def check_curl(body: bytes) -> None:
    """A picture that `curl -d @FILE` sent has lost its line ends and zeros. Raises Unparsable."""
    stripped = len(body) > CURL_BYTES and not any(lost in body for lost in (b"\n", b"\r", b"\0"))
    if stripped and looks_like_image(body):
        detail = (
            "this was a picture before curl's -d took line ends and zeros out of it; send it with "
            "-F image=@FILE, or with --data-binary @FILE"
        )
        raise Unparsable(detail, field=IMAGE)


def too_many(limits: FormLimits) -> TooLarge:
    """The problem of a form with more fields than exist."""
    detail = (
        f"the form has more than {limits.fields} fields (at most {limits.labels.count} labels "
        "are allowed)"
    )
    return TooLarge(detail, field="labels", limit=limits.labels.count)


async def form_fields(request: Request, files: Collection[str], limits: FormLimits) -> Fields:
    """Every value of each field of a multipart form: `files` as bytes, the others as text.

    A list that comes as a file, or as a text of several lines, has one item a line.

    Raises: Unparsable, Invalid, TooLarge.
    """
    multipart.check_charset(request)
    fields: Fields = {}
    count = 0
    # the body is already bounded, and the image decoder reports best that it is too large
    async for part in multipart.parts(
        request.stream(), request.headers["content-type"], sys.maxsize, LARGEST_TEXT
    ):
        if isinstance(part.content, Problem):
            detail = f"{part.content.detail}; send the image as a file, -F {IMAGE}=@FILE"
            raise TooLarge(detail, field=part.name, limit=LARGEST_TEXT, value=part.content.value)
        count += 1
        if count > limits.fields:
            raise too_many(limits)
        values = fields.setdefault(part.name, [])
        if part.filename is not None and part.name in files:
            values.append(part.content)
            continue
        if part.filename is not None and part.name not in LISTS:
            raise not_a_file(part.name, files)
        values += field_values(part)
        if len(values) > limits.fields:
            raise too_many(limits)
    return fields


def field_values(part: multipart.Part) -> list[Any]:
    """The text of a field; of a list that is a file, its lines. Raises Problem, Unparsable."""
    if isinstance(part.content, Problem):
        raise part.content
    if multipart.is_picture(part.content[: multipart.PICTURE]):
        detail = f"the field {errors.shown(part.name)} is a picture; send it as -F {IMAGE}=@FILE"
        raise Unparsable(detail, field=errors.excerpt(part.name))
    text = text_of(part.content, part.name)
    lines = listed_lines(text) if part.filename is not None else None
    return [text] if lines is None else list(lines)


def not_a_file(name: str, files: Collection[str]) -> Invalid:
    """The problem of a file in a field that does not take files."""
    advice = f"send the picture as {next(iter(files))!r}" if files else "send it as text"
    detail = f"unexpected file field {errors.shown(name)}; {advice}"
    return Invalid(detail, field=errors.excerpt(name))


def is_image_uri(text: str) -> bool:
    """Whether a text is a data URI of a file, not just similar at the beginning."""
    match = DATA_URI.match(text, 0, LONGEST_URI_HEAD)
    if match is None:
        return False
    return match[1].lower().startswith("image/") or _says_base64(match[2])


def from_base64(text: str) -> bytes:
    """The bytes of base64 (RFC 4648, sections 4 and 5) or a data URI (RFC 2397). Raises Invalid."""
    text = text.strip().removeprefix("\ufeff")
    if (url := ANY_URL.match(text)) is not None:
        raise _is_url(text, url[1].lower())
    payload = text
    if text[:5].lower() == "data:":
        match = DATA_URI.match(text, 0, LONGEST_URI_HEAD)
        if match is None:
            detail = "image is a data URI without the comma that its data stand behind"
            raise Invalid(detail, field=IMAGE, value=errors.excerpt(text[:40]))
        payload = text[match.end() :]
        if not _says_base64(match[2]):
            return unquote_to_bytes(payload)
        if "%" in payload:
            payload = unquote_to_bytes(payload).decode("latin-1")
    try:
        coded = _coded(payload).rstrip("=")
        return base64.b64decode(coded + "=" * (-len(coded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise _not_base64(payload, coded) from None


def _coded(payload: str) -> str:
    """Base64 in its first alphabet without white space, up to the first character that is none.

    Without a list of its words, of which there may be millions.
    """
    if not payload.isascii():
        for space in OTHER_SPACES:
            payload = payload.replace(space, "")
    odd = NOT_ASCII.search(payload)
    end = len(payload) if odd is None else odd.start()
    return payload[:end].translate(ALPHABET) + payload[end : end + 1]


def _not_base64(payload: str, coded: str) -> Invalid:
    """The problem of a text that cannot be decoded, with where it goes wrong."""
    begins = f"image is not base64: it begins {errors.shown(payload[:40])}"
    if (odd := NOT_BASE64.search(coded)) is not None:
        detail = f"{begins}, and its character {odd.start() + 1} is {errors.shown(odd[0])}"
        return Invalid(detail, field=IMAGE, value=errors.excerpt(payload[:40]))
    detail = f"{begins}, but no base64 has {len(coded)} characters; it may be cut short"
    return Invalid(detail, field=IMAGE, value=errors.excerpt(payload[:40]))


def _is_url(text: str, scheme: str) -> Invalid:
    """The problem of a URL in place of a picture."""
    advice = f"send it to POST /classify as {IMAGE_URL}, where the operator allows that"
    if scheme not in ("http", "https"):
        advice = f"{scheme}: URLs are not fetched; send the picture itself"
    detail = f"image is a URL, not base64: {errors.shown(text)}; {advice}"
    return Invalid(detail, field=IMAGE, value=errors.excerpt(text))


def _says_base64(parameters: str) -> bool:
    return parameters.rpartition(";")[2].strip().lower() == "base64"
