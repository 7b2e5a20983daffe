"""POST /classify: from a body to an image and a query, whichever form the client chose.

Knows nothing of what the fields mean.
"""

import re
from dataclasses import replace
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from app.api import openapi
from app.api.answers import preferred
from app.api.bodies import (
    FORM,
    IMAGE_SHA256,
    IMAGE_URL,
    LARGEST_TEXT,
    LISTS,
    URLENCODED,
    address_fields,
    check_curl,
    fetched,
    form_fields,
    from_base64,
    is_json,
    json_body,
    media_type,
    merge,
    offload,
    percent_decoded,
    sent_image,
    single,
    too_many,
)
from app.api.fields import FIELDS, IMAGE, InputLimits, build_query
from app.api.problems import SENT, documented
from app.api.results import Answer, answer_of, check_columns, render
from app.api.services import caller_of, of_model, patience, services_of, stages_of
from app.classify.embedding import SeenBefore
from app.classify.query import Query
from app.errors import Invalid, TooLarge, Unparsable, excerpt, shown
from app.images.fetch import Fetcher
from app.images.unsupported import is_form

# the fields of the form, of JSON and of the URL
NAMES: Final = (*FIELDS, IMAGE_URL, IMAGE_SHA256)


async def read_classify(
    request: Request, limits: InputLimits, fetcher: Fetcher | None = None
) -> tuple[bytes | SeenBefore, Query]:
    """The image file, or its digest, and the query.

    Without a fetcher, image URLs are not accepted.

    Raises:
        Unparsable, Invalid, TooLarge: what is wrong, with the field at fault.
        FetchFailed, UnsupportedImage: what stands at the image's URL.
    """
    if IMAGE in request.query_params:
        raise Invalid(f"{IMAGE} belongs in the body, not in the URL", field=IMAGE)
    fields = address_fields(request, LISTS, NAMES)
    kind = media_type(request.headers.get("content-type", ""))
    if kind == FORM:
        fields, image = _join(fields, await _form(request, limits))
    elif is_json(kind) or (kind == URLENCODED and (await request.body()).lstrip()[:1] == b"{"):
        fields, image = _join(fields, await _json(request))
    else:
        image = await request.body()
        if kind == URLENCODED:
            # curl's own default type: either a real form, or --data-binary of something
            fields, image = _join(fields, _urlencoded(image, limits))
    url, sha256 = fields.pop(IMAGE_URL, None), fields.pop(IMAGE_SHA256, None)
    if sha256 is not None:
        if image or url is not None:
            other = IMAGE if image else IMAGE_URL
            raise Invalid(f"give either {other} or {IMAGE_SHA256}, not both", field=IMAGE_SHA256)
        return _seen_before(sha256), build_query(fields, limits, NAMES)
    if url is not None:
        query = build_query(fields, limits, NAMES)
        return await _fetched(request, url, image, fetcher), query
    if isinstance(image, str):
        image = await offload(len(image), from_base64, image)
    return sent_image(image, kind), build_query(fields, limits, NAMES)


# SHA-256 in hexadecimal digits
SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")


def _seen_before(sha256: Any) -> SeenBefore:
    if isinstance(sha256, str) and SHA256.fullmatch(sha256):
        return SeenBefore(sha256.lower())
    quoted = shown(sha256) if isinstance(sha256, str) else "a value that is not a string"
    detail = f"{IMAGE_SHA256} is 64 hexadecimal digits, `image.sha256` of an answer; sent: {quoted}"
    value = excerpt(sha256) if isinstance(sha256, str) else None
    raise Invalid(detail, field=IMAGE_SHA256, limit=64, value=value)


async def _fetched(request: Request, url: Any, image: Any, fetcher: Fetcher | None) -> bytes:
    if image:
        raise Invalid(f"give either {IMAGE} or {IMAGE_URL}, not both", field=IMAGE_URL)
    if not isinstance(url, str):
        raise Invalid(f"{IMAGE_URL} must be a string", field=IMAGE_URL)
    return await fetched(request, url, fetcher)


def _join(fields: dict[str, Any], body: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The fields of query and body together, and separately the body's image."""
    more = {name: value for name, value in body.items() if name != IMAGE}
    return merge(fields, more), body.get(IMAGE)


async def _form(request: Request, limits: InputLimits) -> dict[str, Any]:
    fields = await form_fields(request, (IMAGE,), limits)
    return {name: single(name, values, LISTS, NAMES) for name, values in fields.items()}


async def _json(request: Request) -> dict[str, Any]:
    parsed = await json_body(request)
    if not isinstance(parsed.get(IMAGE), str | None):
        raise Invalid("image must be a string: base64 or a data URI", field=IMAGE)
    return parsed


def _urlencoded(body: bytes, limits: InputLimits) -> dict[str, Any]:
    """A form, or the image itself: curl gives the same content type to both."""
    if not is_form(body):
        check_curl(body)
        return {IMAGE: body}
    if len(body) > LARGEST_TEXT:
        detail = f"a body that is not an image has over {LARGEST_TEXT} bytes; use -F image=@FILE"
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
        form = percent_decoded(text, limits.fields)
    except ValueError:
        raise too_many(limits) from None
    if IMAGE in form:
        # a plus that was not encoded, as in base64, reads as a space
        form[IMAGE] = [value.replace(" ", "+") for value in form[IMAGE]]
    return {name: single(name, values, LISTS, NAMES) for name, values in form.items()}


router = APIRouter(tags=["Classify"])


@router.post(
    "/classify",
    operation_id="classify",
    summary="Score labels against an image",
    description=openapi.CLASSIFY_DESCRIPTION,
    openapi_extra=openapi.classify_body(),
    response_model=Answer,
    responses={
        200: {"content": {"text/plain": openapi.LINES, "text/csv": openapi.TABLE}},
        **documented(*SENT, 404, 409, 502),
    },
)
async def classify(request: Request) -> Response:
    # called here, not injected: each dependency costs the framework 30 µs
    services, stages = await services_of(request), await stages_of(request)
    caller = await caller_of(request)
    image, query = await read_classify(request, services.input_limits, services.fetcher)
    if query.explain and not services.explains:
        raise Invalid("explain is disabled on this server (OPENVOCAB_EXPLAIN)", field="explain")
    accept = request.headers.get("accept", "")
    check_columns(preferred(accept), query.coverage)
    query = replace(query, namespace=caller.namespace, patience=await patience(request))
    services = await of_model(request, services, query.model)
    classification = await services.classifier.classify(image, query, stages)
    return render(answer_of(classification), accept, says_none=query.abstain)
