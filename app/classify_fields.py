"""From the options of `openvocab classify` to the fields of a request. Knows no files."""

import contextlib
import json

from app.shell import Ended
from app.statuses import USAGE_ERROR


def form_fields(
    labels: list[str] | None,
    labelset: str | None,
    templates: list[str] | None,
    top_k: int | None,
    threshold: float | None,
    *,
    multi_label: bool,
    abstain: bool = False,
) -> dict[str, str]:
    """The form fields of a request; lists as JSON, so that the server takes nothing apart."""
    if (labels is None) == (labelset is None):
        raise Ended(USAGE_ERROR, "give either --labels or --labelset")
    fields: dict[str, str] = {"multi_label": json.dumps(multi_label)}
    if labels is not None:
        fields["labels"] = json.dumps(_split(labels[0]) if len(labels) == 1 else labels)
    if labelset is not None:
        fields["labelset"] = labelset
    if templates is not None:
        fields["templates"] = json.dumps(templates)
    if top_k is not None:
        fields["top_k"] = str(top_k)
    if threshold is not None:
        fields["threshold"] = repr(threshold)
    if abstain:
        fields["abstain"] = "true"
    return fields


def _split(text: str) -> list[str]:
    """The texts of a JSON list, or those between commas."""
    with contextlib.suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, list) and all(isinstance(one, str) for one in found):
            return found
    return text.split(",")
