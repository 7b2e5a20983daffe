"""A problem told in the words of the request that met it. Pure: knows no request."""

from collections.abc import Mapping

from app.errors import Problem


def renamed(problem: Problem, names: Mapping[str, str]) -> Problem:
    """The same problem with its field under the name that this client gave it.

    A new one, because callers that wait for the same label are handed the same problem.
    """
    return _copy(problem, problem.detail, names.get(problem.field or "", problem.field))


def placed(problem: Problem, place: str) -> Problem:
    """The same problem, said of one of many."""
    return _copy(problem, f"{place}: {problem.detail}", problem.field)


def _copy(problem: Problem, detail: str, field: str | None) -> Problem:
    return type(problem)(
        detail,
        field=field,
        limit=problem.limit,
        value=problem.value,
        retry_after=problem.retry_after,
    )
