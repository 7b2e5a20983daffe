"""One response in the requested format: JSON, plain text or CSV."""

import base64
from typing import Any, Final, Literal

from pydantic_core import to_json

from models.info import Floats

Encoding = Literal["float", "base64"]


def rows_as_json(rows: Floats, encoding: Encoding) -> list[bytes]:
    """Each row (D,) of `rows` (N, D) as JSON: numbers that read back to the same float32, or text.

    Row by row, so that in a thread other requests get their turn between two of them.
    """
    little = rows.astype("<f4", copy=False)
    if encoding == "base64":
        return [b'"' + base64.b64encode(row.tobytes()) + b'"' for row in little]
    return [to_json(row.tolist()) for row in little]


def with_rows(head: dict[str, Any], name: str, items: list[bytes]) -> bytes:
    """A JSON object of `head` and then `name`, a list of items that are JSON already."""
    begun = to_json(head).removesuffix(b"}")
    return b"%b,%b:[%b]}\n" % (begun, to_json(name), b",".join(items))


JSON: Final = "application/json"
TEXT: Final = "text/plain"
CSV: Final = "text/csv"
OFFERED: Final = (JSON, TEXT, CSV)


def preferred(accept: str) -> str:
    """The type of OFFERED that an Accept header likes best; JSON where it names none of them.

    Weights as in RFC 9110, section 12.5.1; the most specific range that matches a type counts.
    """
    weights = dict.fromkeys(OFFERED, 0.0)
    specific = dict.fromkeys(OFFERED, -1)
    for part in accept.split(","):
        media_type, _, parameters = part.strip().partition(";")
        weight = _weight(parameters)
        for offered in OFFERED:
            rank = _specificity(media_type.strip().lower(), offered)
            if rank > specific[offered]:
                specific[offered], weights[offered] = rank, weight
    best = max(OFFERED, key=lambda offered: (weights[offered], specific[offered]))
    return best if weights[best] > 0 else JSON


def _weight(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def _specificity(media_type: str, offered: str) -> int:
    if media_type == offered:
        return 2
    if media_type == offered.partition("/")[0] + "/*":
        return 1
    return 0 if media_type == "*/*" else -1
