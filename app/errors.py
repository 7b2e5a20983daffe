"""What can go wrong in a request: one class per answer, with its status, code and title; and of
several calls at once which one's failure counts."""

import asyncio
import contextlib
import errno
import math
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Final, Self, TypeVar

R = TypeVar("R")


class Problem(Exception):
    """An error with an answer of its own (RFC 9457); the message becomes its `detail`.

    `field` is the request's field at fault, `limit` what it may be at most and `value` what it was;
    `retry_after` is in seconds.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "The server failed"

    def __init__(
        self,
        detail: str,
        *,
        field: str | None = None,
        limit: int | float | str | None = None,
        value: object = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.limit = limit
        self.value = value
        self.retry_after = retry_after

    def renamed(self, names: Mapping[str, str]) -> Self:
        """The same problem with its field under the name that this client gave it.

        A new one, because callers that wait for the same label are handed the same problem.
        """
        return self._copy(self.detail, names.get(self.field or "", self.field))

    def placed(self, place: str) -> Self:
        """The same problem, for one of many items."""
        return self._copy(f"{place}: {self.detail}", self.field)

    def _copy(self, detail: str, field: str | None) -> Self:
        return type(self)(
            detail, field=field, limit=self.limit, value=self.value, retry_after=self.retry_after
        )


class Unparsable(Problem):
    status, code, title = 400, "unparsable_body", "The body cannot be parsed"


class BadRequest(Problem):
    status, code, title = 400, "bad_request", "The request is not valid HTTP/1.1"


class NotFound(Problem):
    status, code, title = 404, "not_found", "Not found"


class Unauthenticated(Problem):
    status, code, title = 401, "unauthenticated", "An API key is needed"


class Forbidden(Problem):
    status, code, title = 403, "forbidden", "The API key lacks permission"


class CrossOrigin(Forbidden):
    code, title = "cross_origin", "Cross-origin request not allowed"


class SlowBody(Problem):
    status, code, title = 408, "slow_body", "The body did not arrive in time"


class UnknownTemplates(Problem):
    status, code, title = 404, "unknown_templates", "Template set not found"


class UnknownImage(Problem):
    status, code, title = 404, "image_unknown", "Image not in the cache"


class UnknownLabelset(Problem):
    status, code, title = 404, "unknown_labelset", "Label set not found"


class LabelsetExists(Problem):
    status, code, title = 409, "labelset_exists", "Label set already exists"


class ExampleElsewhere(Problem):
    status, code, title = 409, "example_elsewhere", "The picture is an example of another label"


class PreconditionFailed(Problem):
    status, code, title = 412, "precondition_failed", "Precondition failed"


class MethodNotAllowed(Problem):
    status, code, title = 405, "method_not_allowed", "Method not allowed"


class TooLarge(Problem):
    status, code, title = 413, "too_large", "The request exceeds a limit"


class Misdirected(Problem):
    status, code, title = 421, "misdirected", "Unknown host"


class UnsupportedImage(Problem):
    status, code, title = 415, "unsupported_image", "Unsupported image format"


class UnsupportedEncoding(Problem):
    status, code, title = 415, "unsupported_encoding", "Unsupported Content-Encoding"


class Invalid(Problem):
    status, code, title = 422, "invalid", "Invalid field"


class DamagedImage(Invalid):
    code, title = "damaged_image", "The image is damaged"


class TooManyRequests(Problem):
    status, code, title = 429, "too_many_requests", "Rate limit exceeded"


class Internal(Problem):
    """A fault of the server's; its detail says nothing of what happened inside."""


class Unavailable(Problem):
    status, code, title = 503, "unavailable", "Service unavailable"


# seconds after which a client may always try again
LONGEST_RETRY: Final = 60


class Overloaded(Unavailable):
    code, title = "overloaded", "Too many requests are waiting"


def retry_in(seconds: float) -> int:
    """A Retry-After from an estimate: whole seconds, 1 to LONGEST_RETRY."""
    return max(1, min(LONGEST_RETRY, math.ceil(seconds)))


# how a system says that it has no process, memory or open file left, and Python no thread
_NOTHING_LEFT: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
_NO_THREAD: Final = "can't start new thread"


def failure(error: BaseException) -> Problem:
    """What a request is told of an error that nothing else is made of; its text is for the log."""
    short = isinstance(error, MemoryError) or str(error) == _NO_THREAD
    if short or (isinstance(error, OSError) and error.errno in _NOTHING_LEFT):
        detail = "the server is out of threads, memory or open files; try again later"
        return Overloaded(detail, retry_after=5)
    return Internal("the server failed; see its log")


class Draining(Unavailable):
    code, title = "draining", "The server is shutting down"


class UnreadableLabelset(Problem):
    status, code, title = 409, "unreadable_labelset", "The label set cannot be read by this release"


class LabelsetBuilding(Unavailable):
    code, title = "labelset_building", "The label set is being built"


class StoreUnavailable(Unavailable):
    code, title = "store_unavailable", "The label set store is unavailable"


class NotReady(Unavailable):
    code, title = "not_ready", "The model does not respond"


class ModelLoading(Unavailable):
    code, title = "model_loading", "The model is being loaded"


class DeadlinePassed(Problem):
    status, code, title = 504, "deadline_passed", "The request timed out"


SHOWN: Final = 60


def shown(text: str) -> str:
    """A text as an error may quote it: in quotes, printable and short, whatever was sent."""
    return repr(text) if len(text) <= SHOWN else repr(text[:SHOWN]) + "..."


def excerpt(text: str) -> str:
    """The beginning of a text as a problem document may hold it: always valid UTF-8."""
    return text[:SHOWN].encode(errors="replace").decode()


@contextlib.contextmanager
def first_of_group() -> Iterator[None]:
    """Raises the first exception of a task group alone, since its tasks are one request's."""
    try:
        yield
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def each_of(calls: Iterable[Coroutine[Any, Any, R]]) -> list[R]:
    """The results of calls that run at once, in their order; the first failure fails them all.

    The first in their order, not in time: one that fails cancels those after it alone. This
    caller's end cancels all.
    """
    tasks = [asyncio.create_task(call) for call in calls]

    def cancel_from(first: int) -> None:
        for task in tasks[first:]:
            # once: a second time would cut short what it does at its end
            if not task.cancelling():
                task.cancel()

    def ended(task: asyncio.Task[R]) -> None:
        if task.cancelled() or task.exception() is not None:
            cancel_from(tasks.index(task) + 1)

    for task in tasks:
        task.add_done_callback(ended)
    try:
        return [await task for task in tasks]
    except asyncio.CancelledError:
        cancel_from(0)
        raise
    finally:
        await asyncio.gather(*tasks, return_exceptions=True)
