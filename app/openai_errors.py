"""A problem as OpenAI's API tells of errors, so that its clients' exceptions are readable. Pure.

Knows nothing of HTTP beyond a problem's status.
"""

from typing import Any, Final

from app.errors import NotFound, Problem

# the types that its clients' users know; what is not named here is the request's fault
TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}


def openai_error(problem: Problem) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`, each of its clients' error attributes."""
    fault = "server_error" if problem.status >= 500 else "invalid_request_error"
    unknown_model = isinstance(problem, NotFound) and problem.field == "model"
    return {
        "error": {
            "message": _sendable(problem.detail),
            "type": TYPES.get(problem.status, fault),
            "param": None if problem.field is None else _sendable(problem.field),
            "code": "model_not_found" if unknown_model else problem.code,
        }
    }


def _sendable(text: str) -> str:
    """Texts from strangers may hold halves of surrogate pairs, which no answer can carry."""
    return text.encode(errors="replace").decode()
