"""Problems in the forms that clients read."""

import json
import math

import pytest

from app import errors
from app.api.problems import document, openai_error


@pytest.mark.parametrize(
    ("problem", "kind", "code"),
    [
        (errors.Invalid("x", field="input"), "invalid_request_error", "invalid"),
        (errors.NotFound("x", field="model"), "invalid_request_error", "model_not_found"),
        (errors.NotFound("x"), "invalid_request_error", "not_found"),
        (errors.Unauthenticated("x"), "authentication_error", "unauthenticated"),
        (errors.Forbidden("x"), "permission_error", "forbidden"),
        (errors.TooManyRequests("x"), "rate_limit_error", "too_many_requests"),
        (errors.Overloaded("x"), "server_error", "overloaded"),
        (errors.Internal("x"), "server_error", "internal"),
    ],
)
def test_a_problem_has_the_type_and_code_that_clients_know(
    problem: errors.Problem, kind: str, code: str
) -> None:
    assert openai_error(problem) == {
        "error": {"message": "x", "type": kind, "param": problem.field, "code": code}
    }


def test_half_of_a_surrogate_pair_is_sendable() -> None:
    document = openai_error(errors.Invalid("\ud800", field="\ud800"))
    json.dumps(document, ensure_ascii=False).encode()


def test_a_number_that_json_does_not_have_is_sendable() -> None:
    for number, text in ((math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")):
        content = document(errors.Invalid("x", field="boxes", value=number)).model_dump()
        assert json.loads(json.dumps(content, allow_nan=False))["value"] == text
