"""One answer in the form the client asked for: JSON, plain text or CSV."""

import csv
import io
from typing import Final

from starlette.responses import Response

from app.schemas import ClassifyAnswer

JSON: Final = "application/json"
TEXT: Final = "text/plain"
CSV: Final = "text/csv"
OFFERED: Final = (JSON, TEXT, CSV)

# what a line of text says where nothing fits
NONE: Final = "-\tnone of these\n"


def preferred(accept: str) -> str:
    """The type of OFFERED that an Accept header likes best; JSON where it names none of them.

    Weights as in RFC 9110, section 12.5.1; the most specific range that matches a type counts.
    """
    weights = dict.fromkeys(OFFERED, 0.0)
    specific = dict.fromkeys(OFFERED, -1)
    for part in accept.split(","):
        wanted, _, parameters = part.strip().partition(";")
        weight = _weight(parameters)
        for offered in OFFERED:
            rank = _specificity(wanted.strip().lower(), offered)
            if rank > specific[offered]:
                specific[offered], weights[offered] = rank, weight
    best = max(OFFERED, key=lambda offered: (weights[offered], specific[offered]))
    return best if weights[best] > 0 else JSON


def render(answer: ClassifyAnswer, accept: str, *, says_none: bool = False) -> Response:
    """JSON; or `score<TAB>label` lines; or CSV with a header line (RFC 4180).

    Where there are no predictions there is no line, or in text one that says so.
    """
    kind = preferred(accept)
    if kind == TEXT:
        # a label may hold no line break, so a line is a prediction
        content = "".join(f"{p.score:.6f}\t{p.label}\n" for p in answer.predictions)
        if says_none and answer.abstained:
            content = NONE
    elif kind == CSV:
        lines = io.StringIO()
        writer = csv.writer(lines)
        writer.writerow(("label", "score", "similarity"))
        writer.writerows((p.label, p.score, p.similarity) for p in answer.predictions)
        content = lines.getvalue()
    else:
        content = answer.model_dump_json() + "\n"  # a terminal's prompt belongs on its own line
    return Response(content, media_type=kind, headers={"Vary": "Accept"})


def _weight(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def _specificity(wanted: str, offered: str) -> int:
    if wanted == offered:
        return 2
    if wanted == offered.partition("/")[0] + "/*":
        return 1
    return 0 if wanted == "*/*" else -1
