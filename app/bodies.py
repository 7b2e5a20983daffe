"""What every request's body and address have in common. Knows nothing of what the fields mean."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Final, TypeVar

from pydantic_core import from_json
from starlette.datastructures import QueryParams

from app.errors import Invalid, Unparsable

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
