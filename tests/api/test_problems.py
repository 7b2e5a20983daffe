"""Problems in the forms that clients read, and what is told of an error that nobody expected."""

import json
import math
import subprocess
import sys

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
    for number, text in ((math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")):
        content = document(errors.Invalid("x", field="boxes", value=number)).model_dump()
        assert json.loads(json.dumps(content, allow_nan=False))["value"] == text


# in a process of its own, as nothing else in it could open or begin anything meanwhile
USED_UP = """
import resource, sys, threading
from pathlib import Path
from app.errors import failure

kind, most = resource.RLIMIT_NOFILE, 0  # what is open stays so
if sys.argv[1] == "threads":
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    kind, most = resource.RLIMIT_AS, pages * resource.getpagesize()
resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))
ends = threading.Event()
try:
    open("/proc/self/statm").close()
    for _ in range(100):
        threading.Thread(target=ends.wait).start()
except (OSError, RuntimeError) as error:
    problem = failure(error)
    print(problem.code, problem.retry_after)
ends.set()
"""


@pytest.mark.parametrize("short_of", ["files", "threads"])
def test_what_the_system_has_none_left_of_may_be_tried_again(short_of: str) -> None:
    command = [sys.executable, "-c", USED_UP, short_of]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["overloaded", "5"]


def test_any_other_error_is_our_fault_and_its_text_is_kept() -> None:
    problem = errors.failure(FileNotFoundError("a secret path"))
    assert problem.code == "internal"
    assert "secret" not in problem.detail
