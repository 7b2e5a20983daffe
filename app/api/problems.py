"""Every error as a problem document (RFC 9457). Knows nothing of what went wrong inside."""

import json
import logging
import math
from collections.abc import Iterable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.api.middleware.state import state_of
from app.errors import (
    Invalid,
    MethodNotAllowed,
    NotFound,
    Problem,
    Unauthenticated,
    Unparsable,
    failure,
)

# error types known to OpenAI's clients; all others are the request's fault
TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}


class OpenAiFault(BaseModel):
    """What went wrong: each is an attribute of the error that OpenAI's clients raise."""

    message: str = Field(description="What happened, in a sentence.", examples=["input is missing"])
    type: str = Field(description="The kind of error.", examples=["invalid_request_error"])
    param: str | None = Field(description="The field at fault.", examples=["input"])
    code: str = Field(
        description="`model_not_found`, or the last part of a problem's `type`.",
        examples=["invalid"],
    )


class OpenAiErrorAnswer(BaseModel):
    """An error as OpenAI's clients read it."""

    model_config = ConfigDict(title="OpenAiError")

    error: OpenAiFault = Field(description="The error.")


def openai_error(problem: Problem) -> dict[str, Any]:
    """The JSON of an OpenAiErrorAnswer."""
    fault = "server_error" if problem.status >= 500 else "invalid_request_error"
    unknown_model = isinstance(problem, NotFound) and problem.field == "model"
    own = OpenAiFault(
        message=sendable(problem.detail),
        type=TYPES.get(problem.status, fault),
        param=sendable(problem.field),
        code="model_not_found" if unknown_model else problem.code,
    )
    return OpenAiErrorAnswer(error=own).model_dump()


class ProblemAnswer(BaseModel):
    """A problem document (RFC 9457), with `error` and `error_type` for inference clients."""

    model_config = ConfigDict(title="Problem")

    type: str = Field(examples=["urn:openvocab:problem:too_large"])
    title: str
    status: int
    detail: str
    error: str = Field(description="The same text as `detail`.")
    error_type: str = Field(description="The last part of `type`.")
    field: str | None = None
    limit: int | float | str | None = None
    value: Any = None
    request_id: str | None = None


log = logging.getLogger("openvocab.http")

MEDIA_TYPE = "application/problem+json"

# for answers that are data; a page brings a policy of its own
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def problem_response(problem: Problem, request_id: str | None = None) -> Response:
    """The document, with Retry-After where waiting helps."""
    return Response(
        document(problem, request_id).model_dump_json(exclude_none=True) + "\n",
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=_retry(problem),
    )


def last_answer(problem: Problem, request_id: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The same as it goes onto a connection that is closed after it, with more headers."""
    answer = problem_response(problem, request_id)
    own = [(b"x-request-id", request_id.encode()), (b"connection", b"close")]
    own += [(name.lower().encode(), text.encode()) for name, text in SECURITY_HEADERS.items()]
    lines = [b"%s: %s\r\n" % line for line in (*headers, *answer.raw_headers, *own)]
    first = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n".encode()
    return b"".join([first, *lines, b"\r\n", bytes(answer.body)])


def document(problem: Problem, request_id: str | None = None) -> ProblemAnswer:
    """The fields of a problem document."""
    return ProblemAnswer(
        type=f"urn:openvocab:problem:{problem.code}",
        title=problem.title,
        status=problem.status,
        detail=sendable(problem.detail),
        error=sendable(problem.detail),
        error_type=problem.code,
        field=sendable(problem.field),
        limit=problem.limit,
        value=sendable(problem.value),
        request_id=request_id,
    )


def refuse(problem: Problem, scope: MutableMapping[str, Any]) -> Response:
    """The same for the request of an ASGI scope, noted for its metrics."""
    state = state_of(scope)
    state.problem = problem.code
    if _below(scope, "/v1/") or _meant_below(scope, "/v1/"):
        response: Response = JSONResponse(openai_error(problem), problem.status, _retry(problem))
    elif _below(scope, "/api/v1/vision/"):
        # PhotoPrism takes what has no code for an answer without labels
        own = {"id": state.request_id, "code": problem.status}
        content = document(problem, state.request_id).model_dump(exclude_none=True) | own
        response = JSONResponse(content, problem.status, _retry(problem), MEDIA_TYPE)
    else:
        response = problem_response(problem, state.request_id)
    if problem.status == Unauthenticated.status:
        response.headers["WWW-Authenticate"] = 'Bearer realm="openvocab"'  # RFC 6750, section 3
    return response


def sendable(value: Any) -> Any:
    """Untrusted text may contain lone surrogates, which cannot be encoded in a response, and JSON
    has no number that is none or without bounds."""
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)  # as Python reads and writes it
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _below(scope: MutableMapping[str, Any], prefix: str) -> bool:
    """Whether the route's clients expect errors in their own format."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path.startswith(prefix)


def _meant_below(scope: MutableMapping[str, Any], prefix: str) -> bool:
    """Whether nothing is there, but would be below `prefix`: a client's base URL lacks it."""
    meant = state_of(scope).route.meant or ""
    return meant.removeprefix(scope.get("root_path", "")).startswith(prefix)


def _retry(problem: Problem) -> dict[str, str]:
    return {} if problem.retry_after is None else {"Retry-After": str(problem.retry_after)}


# what any route that needs a key may answer, and any that reads a body
KEYED: Final = (400, 401, 403, 422, 429, 504)
SENT: Final = (*KEYED, 408, 413, 415, 503)


# made once, and not for each of thirty routes
CONTENT: Final = {MEDIA_TYPE: {"schema": ProblemAnswer.model_json_schema()}}
OPENAI_CONTENT: Final = {"application/json": {"schema": OpenAiErrorAnswer.model_json_schema()}}


def documented(
    *statuses: int, content: Mapping[str, Any] = CONTENT
) -> dict[int | str, dict[str, Any]]:
    """The problems in a route's OpenAPI entry; below /v1 their `content` is OPENAI_CONTENT."""
    return {status: {"description": "Problem", "content": content} for status in statuses}


def add_handlers(app: FastAPI) -> None:
    """Return our own problems and the framework's in the same format."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return refuse(error, request.scope)

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        response = refuse(_from_framework(request, error), request.scope)
        response.headers.update(error.headers or {})
        if error.status_code == MethodNotAllowed.status:
            response.headers["Allow"] = ", ".join(state_of(request.scope).route.allowed)
        return response

    async def parameters(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return refuse(_from_parameters(error), request.scope)

    app.add_exception_handler(Problem, ours)
    app.add_exception_handler(RequestValidationError, parameters)
    app.add_exception_handler(HTTPException, framework)


def slash_at_end(path: str, meant: str) -> NotFound:
    """The problem of an address that is right without the slash at its end."""
    detail = f"{path} not found; remove the slash at the end: {meant}"
    return NotFound(detail, value=path[:200])


def _from_framework(request: Request, error: HTTPException) -> Problem:
    if error.status_code == 404:
        path, meant = request.url.path, state_of(request.scope).route.meant
        if meant is not None and meant == request.scope["path"].rstrip("/"):
            return slash_at_end(path, path.rstrip("/"))
        if meant is not None:
            return NotFound(f"{path} not found; did you mean {quote(meant)}?", value=path[:200])
        lists = "GET /openapi.json lists all paths, /page/reference.html explains them"
        return NotFound(f"{path} not found; {lists}")
    if error.status_code == 405:
        methods = ", ".join(state_of(request.scope).route.allowed)
        detail = f"{request.url.path} does not support {request.method}, but {methods}"
        return MethodNotAllowed(detail)
    if error.status_code < 500:
        return Unparsable(str(error.detail))
    log.error("the framework raised %r", error)
    return failure(error)


def _from_parameters(error: RequestValidationError) -> Invalid:
    first = error.errors()[0]
    name = str(first["loc"][-1])
    context = first.get("ctx", {})
    limit = next((context[key] for key in ("ge", "le", "max_length") if key in context), None)
    message = first["msg"][:1].lower() + first["msg"][1:]
    return Invalid(f"{name}: {message}", field=name, limit=limit, value=str(first["input"])[:60])
