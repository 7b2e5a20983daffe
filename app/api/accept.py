"""Headers that say what a client likes, and how much. Knows nothing of what there is."""

from collections.abc import Iterator


def weighted(header: str) -> Iterator[tuple[str, float]]:
    """What a header lists, in lower case, each with its weight (RFC 9110, section 12.4.2)."""
    for part in header.lower().split(","):
        name, *parameters = map(str.strip, part.split(";"))
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    weight = min(max(float(value), 0.0), 1.0)
                except ValueError:
                    weight = 0.0
        yield name, weight
