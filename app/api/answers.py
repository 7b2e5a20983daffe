"""What responses share: the choice by the Accept header, and rows of numbers as JSON."""

import base64
from collections.abc import Sequence
from typing import Any, Final, Literal

from pydantic_core import to_json

from app.api.accept import weighted
from app.api.bodies import JSON
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


def rounded(number: float) -> float:
    """To 7 significant digits: float32 has no more."""
    return float(f"{number:.7g}")


def with_rows(head: dict[str, Any], name: str, items: list[bytes]) -> bytes:
    """A JSON object of `head` and then `name`, a list of items that are JSON already."""
    begun = to_json(head).removesuffix(b"}")
    return b"%b,%b:[%b]}\n" % (begun, to_json(name), b",".join(items))


TEXT: Final = "text/plain"
CSV: Final = "text/csv"
OFFERED: Final = (JSON, TEXT, CSV)

# how specific a range without a star is
NAMED: Final = 2


def preferred(accept: str, named: Sequence[str] = ()) -> str:
    """The type of OFFERED that an Accept header likes best; JSON where it names none of them.

    `named` are more types, for whoever names them: no range with a star means them, and they come
    before others that are liked as much. Weights as in RFC 9110, section 12.5.1; the most specific
    range that matches a type counts.
    """
    types = (*named, *OFFERED)
    weights = dict.fromkeys(types, 0.0)
    specific = dict.fromkeys(types, -1)
    for media_type, weight in weighted(accept):
        for offered in types:
            rank = _specificity(media_type, offered)
            if rank > specific[offered] and (rank == NAMED or offered not in named):
                specific[offered], weights[offered] = rank, weight
    best = max(types, key=lambda offered: (weights[offered], specific[offered]))
    return best if weights[best] > 0 else JSON


def _specificity(media_type: str, offered: str) -> int:
    if media_type == offered:
        return NAMED
    if media_type == offered.partition("/")[0] + "/*":
        return 1
    return 0 if media_type == "*/*" else -1
